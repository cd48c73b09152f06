/*-------------------------------------------------------------------------
 *
 * prepared.c
 *	  Prepared batches, the decisions on them, and how they are finished.
 *
 * A prepared transaction is known to be a batch by the row that it has inserted
 * into the ledger, whose xmin is the transaction's id; never by its gid, which
 * anyone can choose. A decision is a row (job, writer, epoch, number, commit or
 * not), committed before any batch is finished because of it, so that the worker
 * knows what to do after a crash in between. A batch without a decision stays
 * prepared, unless its epoch has been fenced off. Then nobody will ever decide on
 * the batch, because whoever fenced its epoch off has already decided on all
 * batches that were prepared before; so the worker rolls the batch back.
 *
 * The life of a batch, with the states as outcome() and the view prepared tell them:
 *
 *	begin_batch()		COMMIT
 *	   OPEN ------------------------------------------------------> COMMITTED
 *		|  |												   ^
 *		|  | ROLLBACK, or its session is ended	   COMMIT PREPARED |
 *		|  +-------------------------> ROLLED BACK				   |
 *		|									^			   "committing"
 *		| PREPARE TRANSACTION				|				   ^
 *		v									|				   |
 *	 IN DOUBT ------------------------------|------------------+
 *		|		decision: commit			|  commit_prepared(), commit_checkpoint(),
 *		|									|  recover() of the restored checkpoint
 *		|		decision: roll back			|
 *		+--------> "rolling back" ----------+
 *			rollback_prepared(), recover(), or an epoch that was fenced off
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
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/xid.h"
#include "sink/sink.h"
#include "twophase/decision.h"
#include "twophase/gid.h"
#include "twophase/prepared.h"
#include "writer/epoch.h"
#include "writer/ledger.h"

int			rsink_in_doubt_warning = 300;	/* seconds */

/* A prepared transaction of this cluster, as core lists it. */
typedef struct PreparedXact
{
	TransactionId xid;
	char	   *gid;
	Oid			owner;
	TimestampTz prepared_at;
} PreparedXact;

static int
compare_xids(const void *a, const void *b)
{
	TransactionId x = ((const PreparedXact *) a)->xid;
	TransactionId y = ((const PreparedXact *) b)->xid;

	return x < y ? -1 : x > y;
}

/*
 * Count what pg_prepared_xact() lists, and put it into an array with room for
 * max_prepared_xacts, if there is one, by transaction id. The function is
 * called as the executor would, but without a query to plan: every batch comes
 * past here.
 */
static int
prepared_xacts(PreparedXact *xacts)
{
	LOCAL_FCINFO(fcinfo, 0);
	int			n = 0;
	ReturnSetInfo result = {.type = T_ReturnSetInfo};
	FmgrInfo	function;

	fmgr_info(F_PG_PREPARED_XACT, &function);
	result.econtext = CreateStandaloneExprContext();
	result.allowedModes = SFRM_ValuePerCall;
	InitFunctionCallInfoData(*fcinfo, &function, 0, InvalidOid, NULL, (Node *) &result);
	for (;;)
	{
		HeapTupleHeader header;
		Datum		datum;
		bool		isnull;

		fcinfo->isnull = false;
		result.isDone = ExprSingleResult;
		datum = FunctionCallInvoke(fcinfo);
		if (result.isDone != ExprMultipleResult)
			break;
		if (xacts != NULL)
		{
			header = DatumGetHeapTupleHeader(datum);
			xacts[n].xid = DatumGetTransactionId(GetAttributeByNum(header, 1, &isnull));
			xacts[n].gid = TextDatumGetCString(GetAttributeByNum(header, 2, &isnull));
			xacts[n].prepared_at = DatumGetTimestampTz(GetAttributeByNum(header, 3, &isnull));
			xacts[n].owner = DatumGetObjectId(GetAttributeByNum(header, 4, &isnull));
		}
		n++;
	}
	FreeExprContext(result.econtext, true);
	if (xacts != NULL)
		qsort(xacts, n, sizeof(PreparedXact), compare_xids);
	return n;
}

/* How many transactions are prepared, in all databases. */
int
rsink_prepared_count(void)
{
	return prepared_xacts(NULL);
}

/* Fill in what else there is to know of a prepared transaction, which may run a batch. */
static void
fill_in(const RsinkSink *sink, RsinkPrepared *p, const PreparedXact *x)
{
	p->gid = x->gid;
	p->owner = x->owner;
	p->prepared_at = x->prepared_at;
	if (p->job == NULL)
		return;
	p->decision = rsink_decision(sink, p->job, p->writer, p->epoch, p->number, p->xid);
	p->fenced = p->epoch < rsink_epoch_current(sink->id, p->job, p->writer);
}

/* Fill in what else there is to know of those still prepared; drop the others. */
static List *
complete(const RsinkSink *sink, List *batches)
{
	List	   *result = NIL;
	ListCell   *lc;
	PreparedXact *xacts;
	int			n;

	if (batches == NIL)
		return NIL;
	xacts = palloc(max_prepared_xacts * sizeof(PreparedXact));
	n = prepared_xacts(xacts);
	foreach(lc, batches)
	{
		RsinkPrepared *p = lfirst(lc);
		PreparedXact wanted = {.xid = p->xid};
		PreparedXact *x = bsearch(&wanted, xacts, n, sizeof(PreparedXact), compare_xids);

		if (x == NULL)
			continue;
		fill_in(sink, p, x);
		result = lappend(result, p);
	}
	return result;
}

/*
 * The batches in progress that these keys find in the ledger: all of them, or
 * the one of a gid. Of a transaction's id alone nothing follows: on a server
 * that has lost a transaction in a failover, another one may have it.
 */
static List *
find_in_progress(ScanKeyData *keys, int nkeys, const RsinkGid *gid)
{
	Relation	rel = table_open(rsink_ledger_relid(), AccessShareLock);
	List	   *batches = NIL;
	SnapshotData dirty;
	SysScanDesc scan;
	HeapTuple	tuple;

	InitDirtySnapshot(dirty);
	scan = systable_beginscan(rel, rsink_table_index(rel, Anum_ledger_sink_id), true,
							  &dirty, nkeys, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Datum		values[Natts_ledger];
		bool		nulls[Natts_ledger];
		TransactionId xmin = HeapTupleHeaderGetXmin(tuple->t_data);
		TransactionId xmax = HeapTupleHeaderGetRawXmax(tuple->t_data);
		TransactionId xid;
		RsinkPrepared *p;

		if (!TransactionIdIsValid(dirty.xmin) && !TransactionIdIsCurrentTransactionId(xmin))
			continue;

		/* the version that the transaction itself has replaced doesn't count */
		xid = rsink_topmost_xid(xmin);
		if ((gid != NULL && xid != XidFromFullTransactionId(gid->xid)) || xmax == xmin || xmax == xid)
			continue;
		heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
		if (gid != NULL && (!rsink_gid_is_of(gid, values) ||
							DatumGetInt64(values[Anum_ledger_number - 1]) != gid->number))
			continue;
		p = palloc0(sizeof(RsinkPrepared));
		p->job = TextDatumGetCString(values[Anum_ledger_job - 1]);
		p->writer = TextDatumGetCString(values[Anum_ledger_writer - 1]);
		p->epoch = DatumGetInt64(values[Anum_ledger_epoch - 1]);
		p->number = DatumGetInt64(values[Anum_ledger_number - 1]);
		p->events = DatumGetInt64(values[Anum_ledger_events - 1]);
		p->xid = xid;
		batches = lappend(batches, p);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return batches;
}

/* Does this transaction, in progress, run the batch that a gid names? */
bool
rsink_gid_in_progress(const RsinkGid *gid)
{
	ScanKeyData keys[RSINK_LEDGER_KEYS];

	return find_in_progress(keys, rsink_gid_keys(gid, keys), gid) != NIL;
}

/*
 * The prepared batches of a sink, or of a job, or of one writer, each with its
 * decision; a list of RsinkPrepared.
 */
List *
rsink_prepared_list(const RsinkSink *sink, const char *job, const char *writer)
{
	ScanKeyData keys[RSINK_LEDGER_KEYS];

	return complete(sink, find_in_progress(keys, rsink_ledger_keys(sink->id, job, writer, keys), NULL));
}

/* The batch of a gid, if it is prepared, or NULL. */
RsinkPrepared *
rsink_prepared_find(const RsinkGid *gid)
{
	ScanKeyData keys[RSINK_LEDGER_KEYS];
	List	   *found = complete(gid->sink, find_in_progress(keys, rsink_gid_keys(gid, keys), gid));

	return found == NIL ? NULL : linitial(found);
}

/*
 * What is known of an unfinished transaction, given by its top-level id. ->job is NULL
 * unless the transaction runs a batch of the sink; ->gid is NULL unless it is prepared,
 * and on a standby, which has no list of what is prepared.
 */
RsinkPrepared *
rsink_unfinished_find(const RsinkSink *sink, TransactionId xid)
{
	ScanKeyData keys[RSINK_LEDGER_KEYS];
	List	   *batches = find_in_progress(keys, rsink_ledger_keys(sink->id, NULL, NULL, keys), NULL);
	RsinkPrepared *result = palloc0(sizeof(RsinkPrepared));
	PreparedXact *xacts = palloc(max_prepared_xacts * sizeof(PreparedXact));
	PreparedXact wanted = {.xid = xid};
	PreparedXact *x = bsearch(&wanted, xacts, prepared_xacts(xacts), sizeof(PreparedXact), compare_xids);
	ListCell   *lc;

	result->xid = xid;
	foreach(lc, batches)
		if (((RsinkPrepared *) lfirst(lc))->xid == xid)
			result = lfirst(lc);
	if (x != NULL)
		fill_in(sink, result, x);
	return result;
}

/* The state of a prepared batch, as the view prepared shows it. */
const char *
rsink_prepared_state(const RsinkPrepared *p)
{
	if (p->decision == RSINK_COMMIT)
		return "committing";
	return p->decision == RSINK_ROLLBACK || p->fenced ? "rolling back" : "in doubt";
}

/*
 * Decide on a prepared batch whose epoch has been fenced off and that nobody
 * has decided on: it rolls back. Takes the job's lock if need be, to the end of
 * the transaction, which the caller commits before acting on the decision.
 */
static void
decide_fenced(const RsinkSink *sink, RsinkPrepared *p)
{
	if (p->decision != RSINK_UNDECIDED || !p->fenced)
		return;
	rsink_job_lock(p->job);
	p->decision = rsink_decision(sink, p->job, p->writer, p->epoch, p->number, p->xid);
	if (p->decision == RSINK_UNDECIDED && rsink_xid_is_prepared(p->xid))
	{
		rsink_decide(sink, p->job, p->writer, p->epoch, p->number, p->xid, RSINK_ROLLBACK);
		p->decision = RSINK_ROLLBACK;
	}
}

/*
 * Commit or roll back a prepared batch as decided. False: somebody else has
 * done it. Must be called in a transaction that writes nothing and is ended
 * right after, without an active snapshot: core finishes a prepared
 * transaction within a transaction of its own, but not amid others' work. The
 * user id is switched to the preparer's, whose right it is; that the
 * caller may do it was checked against the sink.
 */
bool
rsink_finish(const RsinkPrepared *p)
{
	LOCKTAG		tag;
	Oid			user;
	int			security;

	/* a lock of the batch's own, so that it's finished once */
	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, rsink_catalog_relid("decision"), p->xid, 0);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	if (!TransactionIdIsInProgress(p->xid))
		return false;
	GetUserIdAndSecContext(&user, &security);
	SetUserIdAndSecContext(p->owner, security | SECURITY_LOCAL_USERID_CHANGE);
	FinishPreparedTransaction(p->gid, p->decision == RSINK_COMMIT);
	SetUserIdAndSecContext(user, security);
	return true;
}

/*
 * Of prepared batches those that can be finished: they are decided on, if need be
 * here, where their epoch is below a limit and has been fenced off.
 */
List *
rsink_prepared_due(const RsinkSink *sink, List *prepared, int64 below)
{
	List	   *due = NIL;
	ListCell   *lc;

	foreach(lc, prepared)
	{
		RsinkPrepared *p = lfirst(lc);

		if (p->epoch < below)
			decide_fenced(sink, p);
		if (p->decision != RSINK_UNDECIDED)
			due = lappend(due, p);
	}
	return due;
}

/*
 * Log the batches that nobody has decided on for long, once in a while: *warned
 * is when this was done last.
 */
void
rsink_warn_in_doubt(const RsinkSink *sink, List *prepared, TimestampTz *warned)
{
	TimestampTz now = GetCurrentTimestamp();
	ListCell   *lc;

	if (!TimestampDifferenceExceeds(*warned, now, rsink_in_doubt_warning * 1000))
		return;
	foreach(lc, prepared)
	{
		RsinkPrepared *p = lfirst(lc);

		if (p->decision != RSINK_UNDECIDED ||
			!TimestampDifferenceExceeds(p->prepared_at, now, rsink_in_doubt_warning * 1000))
			continue;
		*warned = now;
		ereport(WARNING,
				(errmsg("batch %lld of writer \"%s\" of job \"%s\" of sink \"%s\" has been in doubt for %ld seconds",
						(long long) p->number, p->writer, p->job, sink->name,
						TimestampDifferenceMilliseconds(p->prepared_at, now) / 1000),
				 errdetail("The batch is held as the prepared transaction \"%s\".", p->gid),
				 errhint("Restart the job, or finish the batch with revenue_sink.commit_prepared() or revenue_sink.rollback_prepared().")));
	}
}
