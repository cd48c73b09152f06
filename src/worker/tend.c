/*-------------------------------------------------------------------------
 *
 * tend.c
 *	  One round of the worker for one sink, step by step.
 *
 * Each step is a transaction of its own and looks the sink up again, since the sink
 * may not be in order any more, or be gone, from one step to the next.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/procarray.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "api/admin.h"
#include "apply/watch.h"
#include "core/compat.h"
#include "core/lock.h"
#include "revenue/retain.h"
#include "revenue/revenue.h"
#include "seen/expire.h"
#include "seen/pack.h"
#include "seen/pool.h"
#include "seen/seal.h"
#include "seen/seen.h"
#include "seen/seen_build.h"
#include "seen/slice_load.h"
#include "seen/slice_merge.h"
#include "seen/sweep.h"
#include "sink/choice.h"
#include "sink/right.h"
#include "sink/sink.h"
#include "twophase/prepared.h"
#include "worker/fold.h"
#include "worker/settle.h"
#include "worker/statistics.h"
#include "worker/tend.h"
#include "worker/vacuum.h"

/* The worker folds once per this many rounds. */
#define FOLD_ROUNDS		30

/*
 * The worker checks once per this many rounds that the views' owners have their
 * rights. A restore that has brought all rows is about to give these rights
 * itself, so it gets some rounds for that.
 */
#define RIGHTS_ROUNDS	3

/* The most steps of a build in one transaction. */
#define BUILD_STEPS		16

/* The most deltas merged in one transaction, and such transactions per round. */
#define MERGE_ROWS		20000
#define MERGE_STEPS		100

/*
 * The most slices loaded per round, and the most slices sealed, each in a transaction of
 * its own. Merging follows as soon as there are slices for it.
 */
#define LOAD_STEPS		64
#define SEAL_STEPS		RSINK_MERGE_SLICES

/*
 * Merging pauses for at most this many rounds while a snapshot keeps dead deltas.
 */
#define MAX_BACKOFF		64

/* Begin a step: a transaction with a snapshot, shown in pg_stat_activity. */
void
rsink_begin_step(const char *what, const char *sink)
{
	char		activity[NAMEDATALEN + 64];

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	snprintf(activity, sizeof(activity), "%s %s", what, sink);
	pgstat_report_activity(STATE_RUNNING, activity);
}

/* End a step, and commit what it has done. */
void
rsink_end_step(void)
{
	if (ActiveSnapshotSet())
		PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_activity(STATE_IDLE, NULL);
	CHECK_FOR_INTERRUPTS();
}

/*
 * Begin a step for a sink. Returns NULL, and begins no step, if the sink isn't in
 * order any more, which may happen between any two steps.
 */
static RsinkSink *
begin_sink_step(const char *what, const char *name)
{
	RsinkSink  *sink;

	rsink_begin_step(what, name);
	sink = rsink_sink_lookup(name, RSINK_MAY_ANYTHING);
	if (sink->problem == RSINK_READY)
		return sink;
	rsink_end_step();
	return NULL;
}

/*
 * Build a sink's index until it is complete. False: there is no memory for it, as this
 * build has found out or, meanwhile, somebody else's.
 */
static bool
build_index(const char *name)
{
	RsinkBuild	build = RSINK_BUILD_GOES_ON;

	while (build == RSINK_BUILD_GOES_ON)
	{
		RsinkSink  *sink = begin_sink_step("build index of sink", name);
		RsinkSeen	seen;

		if (sink == NULL)
			return true;
		if (sink->mode == RSINK_TOTALS || sink->shared->built)
			build = RSINK_BUILD_DONE;
		else if (sink->shared->overflows)
			build = RSINK_BUILD_OVERFLOWS;
		else
		{
			rsink_seen_begin(&seen, sink, false);
			for (int i = 0; i < BUILD_STEPS && build == RSINK_BUILD_GOES_ON; i++)
				build = rsink_seen_build(&seen);
			rsink_seen_end(&seen);
		}
		rsink_end_step();
	}
	return build == RSINK_BUILD_DONE;
}

/*
 * May deltas be merged now? While somebody's snapshot keeps the deltas that the
 * last merge deleted, each further merge would only add to these dead rows.
 */
static bool
merge_is_due(RsinkTended *t, RsinkSink *sink)
{
	Relation	delta;
	bool		pinned = false;

	if (t->merge_wait > 0)
	{
		t->merge_wait--;
		return false;
	}
	if (TransactionIdIsValid(t->merged))
	{
		delta = table_open(sink->delta, AccessShareLock);
		pinned = TransactionIdPrecedesOrEquals(GetOldestNonRemovableTransactionId(delta), t->merged);
		table_close(delta, AccessShareLock);
	}
	t->merge_backoff = pinned ? Min(Max(1, t->merge_backoff * 2), MAX_BACKOFF) : 0;
	t->merge_wait = t->merge_backoff;
	return true;
}

/*
 * Finish prepared batches that are decided on, and decide on those that are
 * fenced off. Returns how many were finished, each in a transaction of its own.
 */
static int64
finish_decided(RsinkTended *t)
{
	MemoryContext old = CurrentMemoryContext;
	MemoryContext context;
	List	   *due;
	List	   *prepared;
	ListCell   *lc;
	RsinkSink  *sink = begin_sink_step("look at prepared batches of sink", t->name);
	int64		finished = 0;

	if (sink == NULL)
		return 0;
	context = AllocSetContextCreate(old, "revenue_sink finish", ALLOCSET_SMALL_SIZES);
	MemoryContextSwitchTo(context);
	prepared = rsink_prepared_list(sink, NULL, NULL);
	due = rsink_prepared_due(sink, prepared, PG_INT64_MAX);
	rsink_warn_in_doubt(sink, prepared, &t->warned);
	rsink_end_step();
	foreach(lc, due)
	{
		StartTransactionCommand();
		pgstat_report_activity(STATE_RUNNING, "finish a prepared batch");
		finished += rsink_finish(lfirst(lc));
		CommitTransactionCommand();
		pgstat_report_activity(STATE_IDLE, NULL);
		CHECK_FOR_INTERRUPTS();
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return finished;
}

/*
 * Settle and merge, in short transactions, so that none holds its snapshot for
 * long. Returns the number of rows moved.
 */
static int64
settle_and_merge(RsinkTended *t)
{
	int64		moved = 0;
	int64		merged = MERGE_ROWS;
	BlockNumber from = 0;

	for (int step = 0; step < MERGE_STEPS && merged == MERGE_ROWS; step++)
	{
		RsinkSink  *sink = begin_sink_step("merge sink", t->name);
		bool		pending = false;

		if (sink == NULL)
			break;
		merged = 0;
		if (rsink_maintenance_lock(sink, false))
		{
			if (step == 0 && sink->mode != RSINK_TOTALS)
				moved += rsink_settle(sink, &pending);
			moved += pending;	/* don't skip the next rounds */
			if (step > 0 || merge_is_due(t, sink))
			{
				merged = rsink_merge_deltas(sink, MERGE_ROWS, &from);
				if (merged > 0)
					t->merged = GetTopTransactionIdIfAny();
				moved += merged;
			}
			else
				moved++;		/* don't skip the next rounds */
		}
		rsink_end_step();
	}
	return moved;
}

/*
 * Remove totals that the sink no longer keeps, in short transactions. Returns how
 * many were removed.
 */
static int64
remove_old(RsinkTended *t)
{
	TimestampTz oldest = DT_NOBEGIN;
	int64		all = 0;
	int64		removed = RSINK_RETAIN_ROWS;

	for (int step = 0; step < MERGE_STEPS && removed == RSINK_RETAIN_ROWS; step++)
	{
		RsinkSink  *sink = begin_sink_step("remove old totals of sink", t->name);

		if (sink == NULL)
			break;
		removed = rsink_maintenance_lock(sink, false) ? rsink_retain(sink, &oldest) : 0;
		all += removed;
		rsink_end_step();
	}
	return all;
}

/* Let the planner know of tables that have grown or shrunk a lot. */
static void
refresh_statistics(RsinkTended *t)
{
	RsinkSink  *sink = begin_sink_step("analyze sink", t->name);

	if (sink == NULL)
		return;
	rsink_refresh_statistics(sink->delta);
	rsink_refresh_statistics(sink->total);
	rsink_end_step();
}

/* Vacuum a table, unless it is gone. */
static void
vacuum(const char *name, Oid relid)
{
	if (begin_sink_step("vacuum sink", name) == NULL)
		return;
	PopActiveSnapshot();
	rsink_vacuum(relid);
	rsink_end_step();
}

/*
 * Seal what is no longer hot, in transactions of a bounded size. Before that load sealed
 * slices into memory, unless the index isn't built, as it comes first. Returns the number
 * of events sealed.
 */
static int64
seal(RsinkTended *t, bool built)
{
	int64		all = 0;
	int64		sealed = 0;
	bool		more = true;
	int			nsealed = 0;
	double		room = rsink_pool_free();
	Oid			seen = InvalidOid;

	t->mergeable = false;
	for (int step = 0; step < LOAD_STEPS && nsealed < SEAL_STEPS && (more || sealed > 0); step++)
	{
		RsinkSink  *sink = begin_sink_step("seal sink", t->name);

		if (sink == NULL)
			return all;
		more = false;
		sealed = 0;
		seen = sink->seen;
		if (sink->mode != RSINK_TOTALS && rsink_maintenance_lock(sink, false))
		{
			rsink_watch_tend(sink);
			if (built)
				more = rsink_slices_refresh(sink);
			else
				rsink_slices_load(sink);
			rsink_sweep_runs(sink);
			if (!more)
				sealed = rsink_seal(sink);
			t->mergeable = !more && sink->shared->slices.n >= RSINK_MERGE_SLICES;
		}
		all += sealed;
		nsealed += sealed > 0;
		rsink_end_step();
	}
	if (all > 0)
		vacuum(t->name, seen);

	/* more slices are to be loaded, as long as memory goes to them */
	t->hurry |= nsealed == SEAL_STEPS || (more && rsink_pool_free() < room);
	return all;
}

/*
 * The index has no memory for all page rows: the slices give theirs back or, if they have
 * none, some page rows are sealed. The next round, without a rest, builds again. Nothing
 * else can be done before. Returns the number of events sealed. Raises
 * configuration_limit_exceeded if nothing helps, as most events are unfinished.
 */
static int64
make_room(RsinkTended *t)
{
	RsinkSink  *sink = begin_sink_step("build index of sink", t->name);
	bool		shed;
	int64		sealed;

	if (sink == NULL)
		return 0;
	shed = rsink_maintenance_lock(sink, false) && rsink_slices_shed(sink);
	rsink_end_step();
	sealed = shed ? 0 : seal(t, false);
	if ((sink = begin_sink_step("build index of sink", t->name)) == NULL)
		return sealed;
	rsink_seen_build_again(sink);
	t->hurry = shed || sealed > 0;
	if (!t->hurry && rsink_maintenance_lock(sink, false))
		rsink_seen_overflows(sink);
	rsink_end_step();
	return sealed;
}

/*
 * Merge cold slices, if all slices are loaded for which there is memory, and forget the
 * slices that went into the new one. Returns the number of events moved.
 */
static int64
merge_slices(RsinkTended *t)
{
	int64		merged = 0;
	RsinkSink  *sink;
	Oid			sealed;
	Oid			filter;

	if (!t->mergeable || (sink = begin_sink_step("merge slices of sink", t->name)) == NULL)
		return 0;
	sealed = sink->sealed;
	filter = sink->filter;
	if (sink->mode != RSINK_TOTALS && rsink_maintenance_lock(sink, false) && !rsink_slices_refresh(sink))
		merged = rsink_merge_slices(sink);
	rsink_end_step();
	if (merged == 0)
		return 0;
	if ((sink = begin_sink_step("load slices of sink", t->name)) == NULL)
		return merged;
	if (rsink_maintenance_lock(sink, false))
		rsink_slices_refresh(sink);
	rsink_end_step();
	vacuum(t->name, sealed);
	vacuum(t->name, filter);
	t->hurry = true;
	return merged;
}

/* One round for one sink. Returns the number of rows moved. */
int64
rsink_tend(RsinkTended *t)
{
	int64		moved = 0;
	RsinkSink  *sink;

	t->hurry = false;

	/*
	 * Prepared batches come first: while they are unfinished, a build needs
	 * memory for their events.
	 */
	moved += finish_decided(t);

	if (!build_index(t->name))
		return moved + make_room(t);
	moved += seal(t, true);

	moved += settle_and_merge(t);
	refresh_statistics(t);

	if ((sink = begin_sink_step("expire sink", t->name)) == NULL)
		return moved;
	if (rsink_maintenance_lock(sink, false))
		moved += rsink_expire(sink);
	rsink_end_step();

	moved += remove_old(t);

	if ((sink = begin_sink_step("pack sink", t->name)) == NULL)
		return moved;
	if (rsink_maintenance_lock(sink, false))
		moved += rsink_pack(sink);
	rsink_end_step();

	if (t->rounds % RIGHTS_ROUNDS == RIGHTS_ROUNDS - 1 &&
		(sink = begin_sink_step("look at the rights of sink", t->name)) != NULL)
	{
		if (rsink_maintenance_lock(sink, false))
			rsink_mend_rights(sink);
		rsink_end_step();
	}

	if (t->rounds++ % FOLD_ROUNDS == FOLD_ROUNDS - 1 &&
		(sink = begin_sink_step("fold sink", t->name)) != NULL)
	{
		if (rsink_maintenance_lock(sink, false))
			rsink_fold(sink);
		rsink_end_step();
	}

	/* this comes last: if it finds a damaged slice, all else has been done */
	moved += merge_slices(t);
	return moved;
}
