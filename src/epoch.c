/*-------------------------------------------------------------------------
 *
 * epoch.c
 *	  Epochs: who of a job's incarnations is the living one.
 *
 * An epoch is a row (job, writer, epoch); for a whole job the writer is NULL.
 * A writer's current epoch is the highest of its own and the whole job's rows.
 * Rows are only inserted; the worker removes those that others supersede.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "checkpoint.h"
#include "compat.h"
#include "seen.h"
#include "spi_util.h"
#include "writer.h"

#define NO_EPOCH PG_INT64_MIN

PG_FUNCTION_INFO_V1(revenue_sink_open_writer);
PG_FUNCTION_INFO_V1(revenue_sink_recover);

/* The highest epochs that concern a writer. */
typedef struct Epochs
{
	int64		every;			/* of anyone in the job */
	int64		whole;			/* of the job as a whole */
	int64		own;			/* of the writer */
} Epochs;

static void
read_epochs(int32 sink_id, const char *job, const char *writer, Epochs *epochs)
{
	Relation	rel = table_open(rsink_catalog_relid("epoch"), AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	epochs->every = epochs->whole = epochs->own = NO_EPOCH;
	ScanKeyInit(&keys[0], Anum_epoch_sink_id, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(sink_id));
	ScanKeyInit(&keys[1], Anum_epoch_job, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(job));
	keys[1].sk_collation = C_COLLATION_OID;
	scan = systable_beginscan(rel, rsink_table_index(rel, Anum_epoch_sink_id), true,
							  snapshot, 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		int64		epoch = DatumGetInt64(heap_getattr(tuple, Anum_epoch_epoch,
													   RelationGetDescr(rel), &isnull));
		Datum		name = heap_getattr(tuple, Anum_epoch_writer, RelationGetDescr(rel), &isnull);

		epochs->every = Max(epochs->every, epoch);
		if (isnull)
			epochs->whole = Max(epochs->whole, epoch);
		else if (writer != NULL && strcmp(TextDatumGetCString(name), writer) == 0)
			epochs->own = Max(epochs->own, epoch);
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
}

/*
 * The current epoch of a writer as committed at this instant, or PG_INT64_MIN
 * if neither it nor its job was ever opened.
 */
int64
rsink_epoch_current(int32 sink_id, const char *job, const char *writer)
{
	Epochs		epochs;

	read_epochs(sink_id, job, writer, &epochs);
	return Max(epochs.whole, epochs.own);
}

static void
raise_fenced(const char *job, const char *writer, int64 epoch, int64 current)
{
	ereport(ERROR,
			(errcode(ERRCODE_RSINK_FENCED),
			 writer ?
			 errmsg("epoch %lld of writer \"%s\" of job \"%s\" has been fenced off",
					(long long) epoch, writer, job) :
			 errmsg("epoch %lld of job \"%s\" has been fenced off", (long long) epoch, job),
			 errdetail("The current epoch is %lld.", (long long) current),
			 errhint("Another incarnation has taken over: stop this one, don't retry.")));
}

/* Raise unless this is the writer's current epoch, as of now. */
void
rsink_epoch_require(const RsinkSink *sink, const char *job, const char *writer, int64 epoch)
{
	int64		current = rsink_epoch_current(sink->id, job, writer);

	if (current == NO_EPOCH)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("writer \"%s\" of job \"%s\" has no epoch on sink \"%s\"",
						writer, job, sink->name),
				 errhint("Open one with CALL revenue_sink.open_writer() or CALL revenue_sink.recover().")));
	if (epoch < current)
		raise_fenced(job, writer, epoch, current);
	if (epoch > current)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("epoch %lld of writer \"%s\" of job \"%s\" has not been opened",
						(long long) epoch, writer, job),
				 errdetail("The current epoch is %lld.", (long long) current),
				 errhint("Use the epoch that open_writer() or recover() gave.")));
}

/* Raise active_sql_transaction unless called by a CALL of its own. */
void
rsink_require_nonatomic(FunctionCallInfo fcinfo, const char *call)
{
	if (fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
		castNode(CallContext, fcinfo->context)->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s cannot run inside a transaction block", call),
				 errhint("Call it with autocommit on, as a statement of its own.")));
}

static void
insert_epoch(int32 sink_id, const char *job, const char *writer, int64 epoch)
{
	RsinkTable	table;
	Datum		values[Natts_epoch];
	bool		nulls[Natts_epoch] = {false};

	rsink_table_open_named(&table, "epoch");
	values[Anum_epoch_sink_id - 1] = Int32GetDatum(sink_id);
	values[Anum_epoch_job - 1] = CStringGetTextDatum(job);
	nulls[Anum_epoch_writer - 1] = writer == NULL;
	values[Anum_epoch_writer - 1] = writer ? CStringGetTextDatum(writer) : (Datum) 0;
	values[Anum_epoch_epoch - 1] = Int64GetDatum(epoch);
	values[Anum_epoch_opened_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	rsink_table_insert_values(&table, values, nulls);
	rsink_table_close(&table);
}

/*
 * Take the lock under which epochs are opened and batches decided on, to the
 * end of the transaction. Jobs rarely share one; no batch ever asks for it.
 */
void
rsink_job_lock(const char *job)
{
	LockDatabaseObject(RelationRelationId, rsink_catalog_relid("epoch"),
					   (uint16) hash_bytes((const unsigned char *) job, strlen(job)),
					   ExclusiveLock);
}

/*
 * Open an epoch for a writer, or (NULL) the whole job, or find that the
 * caller's token is the one that is open. Caller holds the job's lock.
 */
static int64
open_epoch(const RsinkSink *sink, const char *job, const char *writer,
		   bool token_isnull, int64 token, bool *is_new)
{
	Epochs		epochs;
	int64		current;

	*is_new = true;
	read_epochs(sink->id, job, writer, &epochs);
	if (token_isnull)
	{
		if (epochs.every == PG_INT64_MAX)
			ereport(ERROR,
					(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
					 errmsg("job \"%s\" has used up its epochs", job),
					 errhint("Give the job another name.")));
		token = epochs.every < 0 ? 1 : epochs.every + 1;
		insert_epoch(sink->id, job, writer, token);
		return token;
	}
	if (token < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("epoch %lld is negative", (long long) token),
				 errhint("Use a number that grows with each incarnation, or NULL.")));
	current = writer ? Max(epochs.whole, epochs.own) : epochs.whole;
	if (token == current)
	{
		*is_new = false;
		return token;
	}
	/* for a whole job the token must lie above every writer's, too */
	current = writer ? current : epochs.every;
	if (token <= current)
		raise_fenced(job, writer, token, current);
	insert_epoch(sink->id, job, writer, token);
	return token;
}

/*
 * The transactions of sessions that run a batch of an older epoch: a list of
 * transaction ids, without prepared ones.
 */
static List *
open_sessions(int32 sink_id, const char *job, const char *writer, int64 epoch)
{
	Relation	rel = table_open(rsink_catalog_relid("batch"), AccessShareLock);
	List	   *xids = NIL;
	SnapshotData dirty;
	ScanKeyData keys[3];
	SysScanDesc scan;
	HeapTuple	tuple;

	InitDirtySnapshot(dirty);
	ScanKeyInit(&keys[0], Anum_ledger_sink_id, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(sink_id));
	ScanKeyInit(&keys[1], Anum_ledger_job, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(job));
	if (writer)
		ScanKeyInit(&keys[2], Anum_ledger_writer, BTEqualStrategyNumber, F_TEXTEQ,
					CStringGetTextDatum(writer));
	keys[1].sk_collation = keys[2].sk_collation = C_COLLATION_OID;
	scan = systable_beginscan(rel, rsink_table_index(rel, Anum_ledger_sink_id), true,
							  &dirty, writer ? 3 : 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;

		if (TransactionIdIsValid(dirty.xmin) && !rsink_xid_is_prepared(dirty.xmin) &&
			DatumGetInt64(heap_getattr(tuple, Anum_ledger_epoch,
									   RelationGetDescr(rel), &isnull)) < epoch)
			xids = lappend_int(xids, (int) dirty.xmin);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return xids;
}

/* End the sessions of older epochs; returns when none is left. */
static void
end_sessions(int32 sink_id, const char *job, const char *writer, int64 epoch)
{
	List	   *xids;

	while ((xids = open_sessions(sink_id, job, writer, epoch)) != NIL)
	{
		ListCell   *lc;

		foreach(lc, xids)
		{
			int			pid = BackendXidGetPid((TransactionId) lfirst_int(lc));

			if (pid > 0 && pid != MyProcPid)
				(void) kill(pid, SIGTERM);
		}
		list_free(xids);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 10L, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Decide on what the older epochs have left prepared: batches that belong to
 * the restored checkpoint commit, later ones roll back.
 */
static void
decide_leftovers(const RsinkSink *sink, const char *job, const char *writer,
				 int64 epoch, bool restores, int64 restored)
{
	ListCell   *lc;

	foreach(lc, rsink_prepared_list(sink, job, writer))
	{
		RsinkPrepared *p = lfirst(lc);

		if (p->decision == RSINK_UNDECIDED && p->epoch < epoch)
			rsink_decide(sink, p->job, p->writer, p->epoch, p->number,
						 restores && p->number <= restored ? RSINK_COMMIT : RSINK_ROLLBACK);
	}
}

/* What both procedures do; returns the record of their INOUT arguments. */
static Datum
open_and_fence(FunctionCallInfo fcinfo, const char *call, const char *writer,
			   bool restores, int64 restored, bool token_isnull, int64 token)
{
	bool		is_new;
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *job = text_to_cstring(PG_GETARG_TEXT_PP(1));
	RsinkSink  *sink;
	int32		sink_id;
	TupleDesc	desc;
	Datum		value;
	bool		isnull = false;

	rsink_require_nonatomic(fcinfo, call);
	sink = rsink_sink_lookup(name, restores ? RSINK_IS_OWNER : RSINK_MAY_APPLY);
	PreventCommandDuringRecovery(call);
	PreventCommandIfReadOnly(call);
	sink_id = sink->id;
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	desc = BlessTupleDesc(desc);

	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	rsink_job_lock(job);
	token = open_epoch(sink, job, writer, token_isnull, token, &is_new);
	if (is_new)
		decide_leftovers(sink, job, writer, token, restores, restored);
	rsink_durable_answer();
	SPI_commit();
	end_sessions(sink_id, job, writer, token);
	rsink_finish_all(sink, job, writer, token);

	/* a session that was ended may have committed without waiting for a standby */
	rsink_durable_answer();
	SPI_finish();

	value = Int64GetDatum(token);
	return HeapTupleGetDatum(heap_form_tuple(desc, &value, &isnull));
}

static void
require_argument(FunctionCallInfo fcinfo, int argno, const char *name)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
}

/*
 * open_writer(sink, job, writer, restored, INOUT epoch)
 *
 * Starts a writer and fences its predecessor: when it returns, no transaction
 * of an older epoch of this writer can commit any more. What they had prepared
 * is committed up to the restored checkpoint (needs the sink's owner), and
 * rolled back after it; all of it where none was restored.
 */
Datum
revenue_sink_open_writer(PG_FUNCTION_ARGS)
{
	require_argument(fcinfo, 0, "sink");
	require_argument(fcinfo, 1, "job");
	require_argument(fcinfo, 2, "writer");
	return open_and_fence(fcinfo, "open_writer()", text_to_cstring(PG_GETARG_TEXT_PP(2)),
						  !PG_ARGISNULL(3), PG_ARGISNULL(3) ? 0 : PG_GETARG_INT64(3), PG_ARGISNULL(4),
						  PG_ARGISNULL(4) ? 0 : PG_GETARG_INT64(4));
}

/*
 * recover(sink, job, restored, INOUT epoch)
 *
 * The same for all writers of a job at once.
 */
Datum
revenue_sink_recover(PG_FUNCTION_ARGS)
{
	require_argument(fcinfo, 0, "sink");
	require_argument(fcinfo, 1, "job");
	return open_and_fence(fcinfo, "recover()", NULL, !PG_ARGISNULL(2),
						  PG_ARGISNULL(2) ? 0 : PG_GETARG_INT64(2), PG_ARGISNULL(3),
						  PG_ARGISNULL(3) ? 0 : PG_GETARG_INT64(3));
}
