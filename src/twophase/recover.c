/*-------------------------------------------------------------------------
 *
 * recover.c
 *	  open_writer() and recover(): a new epoch, and the end of the older ones.
 *
 * The new epoch is committed first, under the job's lock, together with decisions
 * on all batches that older epochs have prepared. Then the open sessions of older
 * epochs are ended. Then the prepared batches are finished. A session that had
 * passed all checks of its epoch when the new one was committed may still prepare.
 * So we wait for such a session and roll back the batch that it prepares; if we are
 * gone by then, the worker does it.
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

#include "api/argument.h"
#include "core/catalog.h"
#include "core/compat.h"
#include "core/xid.h"
#include "sink/right.h"
#include "sink/sink.h"
#include "twophase/checkpoint.h"
#include "twophase/decision.h"
#include "twophase/durable.h"
#include "twophase/prepared.h"
#include "writer/epoch.h"
#include "writer/ledger.h"

PG_FUNCTION_INFO_V1(revenue_sink_open_writer);
PG_FUNCTION_INFO_V1(revenue_sink_recover);

/*
 * The ids of transactions, prepared ones aside, in which sessions run a batch of
 * an older epoch. The row with which a batch registers has no time of its end
 * yet. The worker, when it folds the ledger of old epochs, inserts rows that have
 * one, and so isn't taken for such a session.
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

/*
 * End the sessions that run a batch of an older epoch. Returns when none is left;
 * heeds cancels.
 */
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
 * Decide on the batches that older epochs have left prepared. Those that belong
 * to the restored checkpoint commit. Later ones roll back, and so do those whose
 * epoch was over before. This is for the sink's owner, or the role that has
 * prepared the batch; others get insufficient_privilege.
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
					 errhint("The owner of the sink, or the role that has prepared the batch, can start the job.")));
		rsink_decide(sink, p->job, p->writer, p->epoch, p->number, p->xid,
					 commits ? RSINK_COMMIT : RSINK_ROLLBACK);
	}
}

/*
 * Do what open_writer() and recover() have in common. Returns the record of their
 * INOUT arguments.
 */
static Datum
open_and_fence(FunctionCallInfo fcinfo, const char *call, const char *writer,
			   bool restores, int64 restored, bool epoch_isnull, int64 epoch)
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
	epoch = rsink_epoch_open(sink, job, writer, epoch_isnull, epoch, &is_new);
	if (is_new)
		decide_leftovers(sink, leftovers, epoch, restores, restored);
	rsink_durable_answer();
	SPI_commit();
	end_sessions(sink_id, job, writer, epoch);
	rsink_finish_all(sink, job, writer, epoch);

	/* a session that was ended may have committed without waiting for standbys */
	rsink_durable_answer();
	SPI_finish();
	return rsink_one_column(desc, Int64GetDatum(epoch));
}

/*
 * open_writer(sink, job, writer, restored, INOUT epoch)
 *
 * Starts a writer and fences off its predecessor: when open_writer() returns, no
 * transaction of an older epoch of this writer can commit any more. Of the
 * batches that older epochs have prepared, those up to the restored checkpoint
 * are committed, which needs the sink's owner, and later ones are rolled back. If
 * no checkpoint was restored, all are rolled back.
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
 * Starts a job, and does for all of its writers at once what open_writer() does
 * for one.
 */
Datum
revenue_sink_recover(PG_FUNCTION_ARGS)
{
	rsink_require_argument(fcinfo, 0, "sink");
	return open_and_fence(fcinfo, "recover()", NULL, !PG_ARGISNULL(2),
						  PG_ARGISNULL(2) ? 0 : PG_GETARG_INT64(2), PG_ARGISNULL(3),
						  PG_ARGISNULL(3) ? 0 : PG_GETARG_INT64(3));
}
