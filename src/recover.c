/*-------------------------------------------------------------------------
 *
 * recover.c
 *	  open_writer() and recover(): a new epoch, and the end of the older ones.
 *
 * First the new epoch and what becomes of all that older ones have prepared,
 * committed together under the job's lock; then their open sessions are ended;
 * then what is prepared is finished. A session that was past all checks of its
 * epoch when that was committed may still prepare: it is waited for, and what
 * it leaves is rolled back, by us or, if we don't live to see it, the worker.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/procarray.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "argument.h"
#include "catalog.h"
#include "checkpoint.h"
#include "compat.h"
#include "seen.h"

PG_FUNCTION_INFO_V1(revenue_sink_open_writer);
PG_FUNCTION_INFO_V1(revenue_sink_recover);

/*
 * The transactions of sessions that run a batch of an older epoch: a list of
 * transaction ids, without prepared ones. The row with which a batch registers
 * has no end yet; so the worker, which folds rows of old epochs, isn't taken for
 * a zombie.
 */
static List *
open_sessions(int32 sink_id, const char *job, const char *writer, int64 epoch)
{
	Relation	rel = table_open(rsink_ledger_relid(), AccessShareLock);
	List	   *xids = NIL;
	SnapshotData dirty;
	ScanKeyData keys[RSINK_LEDGER_KEYS];
	SysScanDesc scan;
	HeapTuple	tuple;

	InitDirtySnapshot(dirty);
	scan = systable_beginscan(rel, rsink_table_index(rel, Anum_ledger_sink_id), true,
							  &dirty, rsink_ledger_keys(sink_id, job, writer, keys), keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		TupleDesc	desc = RelationGetDescr(rel);
		bool		isnull;

		if (TransactionIdIsValid(dirty.xmin) && !rsink_xid_is_prepared(dirty.xmin) &&
			heap_attisnull(tuple, Anum_ledger_ended_at, desc) &&
			DatumGetInt64(heap_getattr(tuple, Anum_ledger_epoch, desc, &isnull)) < epoch)
			xids = lappend_int(xids, (int) rsink_topmost_xid(dirty.xmin));
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
 * the restored checkpoint commit, later ones roll back, and so do those whose
 * epoch was over before. This is for the sink's owner, or the role that prepared
 * them.
 */
static void
decide_leftovers(const RsinkSink *sink, List *leftovers, int64 epoch,
				 bool restores, int64 restored)
{
	bool		is_owner = rsink_sink_allows(sink, RSINK_IS_OWNER);
	ListCell   *lc;

	foreach(lc, leftovers)
	{
		RsinkPrepared *p = lfirst(lc);
		bool		commits = restores && p->number <= restored && !p->fenced;

		if (p->decision != RSINK_UNDECIDED || p->epoch >= epoch)
			continue;
		if (!is_owner && !p->fenced && !has_privs_of_role(GetUserId(), p->owner))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("must be owner of sink \"%s\" to finish the prepared batch \"%s\"",
							sink->name, p->gid),
					 errdetail("Nothing has been changed."),
					 errhint("The owner of the sink, or the role that has prepared it, can start the job.")));
		rsink_decide(sink, p->job, p->writer, p->epoch, p->number, p->xid,
					 commits ? RSINK_COMMIT : RSINK_ROLLBACK);
	}
}

/* What both procedures do; returns the record of their INOUT arguments. */
static Datum
open_and_fence(FunctionCallInfo fcinfo, const char *call, const char *writer,
			   bool restores, int64 restored, bool token_isnull, int64 token)
{
	bool		is_new;
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *job = rsink_name_argument(fcinfo, 1, "job");
	RsinkSink  *sink;
	int32		sink_id;
	TupleDesc	desc;
	List	   *leftovers;

	rsink_require_nonatomic(fcinfo, call);
	sink = rsink_sink_lookup(name, restores ? RSINK_IS_OWNER : RSINK_MAY_APPLY);
	PreventCommandDuringRecovery(call);
	PreventCommandIfReadOnly(call);
	sink_id = sink->id;
	desc = rsink_result_desc(fcinfo);

	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	rsink_job_lock(job);
	leftovers = rsink_prepared_list(sink, job, writer);
	token = rsink_epoch_open(sink, job, writer, token_isnull, token, &is_new);
	if (is_new)
		decide_leftovers(sink, leftovers, token, restores, restored);
	rsink_durable_answer();
	SPI_commit();
	end_sessions(sink_id, job, writer, token);
	rsink_finish_all(sink, job, writer, token);

	/* a session that was ended may have committed without waiting for a standby */
	rsink_durable_answer();
	SPI_finish();
	return rsink_one_column(desc, Int64GetDatum(token));
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
	rsink_require_argument(fcinfo, 0, "sink");
	return open_and_fence(fcinfo, "open_writer()", rsink_name_argument(fcinfo, 2, "writer"),
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
	rsink_require_argument(fcinfo, 0, "sink");
	return open_and_fence(fcinfo, "recover()", NULL, !PG_ARGISNULL(2),
						  PG_ARGISNULL(2) ? 0 : PG_GETARG_INT64(2), PG_ARGISNULL(3),
						  PG_ARGISNULL(3) ? 0 : PG_GETARG_INT64(3));
}
