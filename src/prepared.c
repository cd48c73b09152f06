/*-------------------------------------------------------------------------
 *
 * prepared.c
 *	  Prepared batches, the decisions on them, and how they are finished.
 *
 * What a prepared transaction is, is known from the row that it has inserted
 * into the ledger, whose xmin is its id; never from its gid, which anyone can
 * choose. A decision is a row (job, writer, epoch, number, commit or not),
 * committed before anything is finished by it, so that a crash in between
 * leaves the worker knowing what to do. A batch without a decision is held,
 * unless its epoch has been fenced off: then nobody will ever decide on it,
 * for whoever fenced it has decided on all that counted, and it is rolled back.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/twophase.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "checkpoint.h"
#include "compat.h"
#include "spi_util.h"

int			rsink_in_doubt_warning = 300;	/* seconds */

/* Fill in gid, owner and time of those still prepared; drop the others. */
static List *
with_gids(List *batches)
{
	List	   *result = NIL;
	ListCell   *lc;
	MemoryContext context = CurrentMemoryContext;
	MemoryContext old;
	RsinkSpi	spi;

	if (batches == NIL)
		return NIL;
	rsink_spi_begin(&spi);
	rsink_spi(SPI_OK_SELECT, "SELECT transaction, gid, ownerid, prepared FROM pg_prepared_xact()");
	old = MemoryContextSwitchTo(context);
	foreach(lc, batches)
	{
		RsinkPrepared *p = lfirst(lc);

		for (uint64 i = 0; i < SPI_processed; i++)
		{
			HeapTuple	tuple = SPI_tuptable->vals[i];
			TupleDesc	desc = SPI_tuptable->tupdesc;
			bool		isnull;

			if (DatumGetTransactionId(SPI_getbinval(tuple, desc, 1, &isnull)) != p->xid)
				continue;
			p->gid = TextDatumGetCString(SPI_getbinval(tuple, desc, 2, &isnull));
			p->owner = DatumGetObjectId(SPI_getbinval(tuple, desc, 3, &isnull));
			p->prepared_at = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 4, &isnull));
			result = lappend(result, p);
			break;
		}
	}
	MemoryContextSwitchTo(old);
	rsink_spi_end(&spi);
	return result;
}

/*
 * The prepared batches of a sink, or of a job, or of one writer, each with its
 * decision; a list of RsinkPrepared.
 */
List *
rsink_prepared_list(const RsinkSink *sink, const char *job, const char *writer)
{
	Relation	rel = table_open(rsink_catalog_relid("batch"), AccessShareLock);
	List	   *batches = NIL;
	int			nkeys = job == NULL ? 1 : writer == NULL ? 2 : 3;
	SnapshotData dirty;
	ScanKeyData keys[3];
	SysScanDesc scan;
	HeapTuple	tuple;
	ListCell   *lc;

	InitDirtySnapshot(dirty);
	ScanKeyInit(&keys[0], Anum_ledger_sink_id, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(sink->id));
	if (job)
		ScanKeyInit(&keys[1], Anum_ledger_job, BTEqualStrategyNumber, F_TEXTEQ,
					CStringGetTextDatum(job));
	if (writer)
		ScanKeyInit(&keys[2], Anum_ledger_writer, BTEqualStrategyNumber, F_TEXTEQ,
					CStringGetTextDatum(writer));
	keys[1].sk_collation = keys[2].sk_collation = C_COLLATION_OID;
	scan = systable_beginscan(rel, rsink_table_index(rel, Anum_ledger_sink_id), true,
							  &dirty, nkeys, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Datum		values[Natts_ledger];
		bool		nulls[Natts_ledger];
		RsinkPrepared *p;

		/* the version that the transaction itself has replaced doesn't count */
		if (!TransactionIdIsValid(dirty.xmin) ||
			HeapTupleHeaderGetRawXmax(tuple->t_data) == dirty.xmin ||
			!rsink_xid_is_prepared(dirty.xmin))
			continue;
		heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
		p = palloc0(sizeof(RsinkPrepared));
		p->job = TextDatumGetCString(values[Anum_ledger_job - 1]);
		p->writer = TextDatumGetCString(values[Anum_ledger_writer - 1]);
		p->epoch = DatumGetInt64(values[Anum_ledger_epoch - 1]);
		p->number = DatumGetInt64(values[Anum_ledger_number - 1]);
		p->events = DatumGetInt64(values[Anum_ledger_events - 1]);
		p->xid = dirty.xmin;
		batches = lappend(batches, p);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	batches = with_gids(batches);
	foreach(lc, batches)
	{
		RsinkPrepared *p = lfirst(lc);

		p->decision = rsink_decision(sink, p->job, p->writer, p->epoch, p->number);
	}
	return batches;
}

/* Has the batch's epoch been fenced off? */
bool
rsink_is_fenced(const RsinkSink *sink, const RsinkPrepared *p)
{
	return p->epoch < rsink_epoch_current(sink->id, p->job, p->writer);
}

/*
 * Commit or roll back a prepared batch as decided. False: somebody else has
 * done it. Must be called first thing in a transaction that does nothing else
 * and is ended right after, without an active snapshot: core finishes a
 * prepared transaction within a transaction of its own, but not amid others'
 * work. The user id is switched to the preparer's, whose right it is; that the
 * caller may do it was checked against the sink.
 */
bool
rsink_finish(const RsinkPrepared *p)
{
	LOCKTAG		tag;
	Oid			user;
	int			security;

	/* whoever finishes batches takes turns, so that each is finished once */
	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, RelationRelationId, rsink_catalog_relid("decision"), 0);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	if (!TransactionIdIsInProgress(p->xid))
		return false;
	GetUserIdAndSecContext(&user, &security);
	SetUserIdAndSecContext(p->owner, security | SECURITY_LOCAL_USERID_CHANGE);
	FinishPreparedTransaction(p->gid, p->decision == RSINK_COMMIT);
	SetUserIdAndSecContext(user, security);
	return true;
}

/* Log the batches that nobody has decided on for long, once in a while each. */
void
rsink_warn_in_doubt(const RsinkSink *sink, List *prepared)
{
	static TimestampTz warned = 0;
	TimestampTz now = GetCurrentTimestamp();
	ListCell   *lc;

	if (!TimestampDifferenceExceeds(warned, now, rsink_in_doubt_warning * 1000))
		return;
	foreach(lc, prepared)
	{
		RsinkPrepared *p = lfirst(lc);

		if (p->decision != RSINK_UNDECIDED ||
			!TimestampDifferenceExceeds(p->prepared_at, now, rsink_in_doubt_warning * 1000))
			continue;
		warned = now;
		ereport(WARNING,
				(errmsg("batch %lld of writer \"%s\" of job \"%s\" of sink \"%s\" has been in doubt for %ld seconds",
						(long long) p->number, p->writer, p->job, sink->name,
						TimestampDifferenceMilliseconds(p->prepared_at, now) / 1000),
				 errdetail("It is held as the prepared transaction \"%s\".", p->gid),
				 errhint("Restart its job, or finish it with revenue_sink.commit_prepared() or revenue_sink.rollback_prepared().")));
	}
}
