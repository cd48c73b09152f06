/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The worker of a database: its rounds.
 *
 * A round does, for each sink, what others have left: finish prepared batches
 * that are decided on or fenced off, build the index; and what keeps it small:
 * settle and merge, expire, pack, fold. Each step is a short transaction of its
 * own; an error is logged, and that sink rests for a while. A sink that isn't in
 * order is left alone, but for a look whether it can be taken in; see home.c.
 *
 * DROP DATABASE, RENAME and CREATE DATABASE .. TEMPLATE wait five seconds for
 * other sessions of the database to go, with a lock on it. The worker asks for
 * that lock, without waiting, between rounds and once a second while it rests,
 * and leaves when somebody has it; the launcher starts it again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "admin.h"
#include "adopt.h"
#include "catalog.h"
#include "checkpoint.h"
#include "compat.h"
#include "expire.h"
#include "launcher.h"
#include "retain.h"
#include "revenue.h"
#include "seen.h"
#include "settings.h"
#include "spi_util.h"
#include "worker.h"

/* The longest sleep, in ms, between two looks whether we are in the way. */
#define MAX_NAP			1000L

/* Rounds that a sink at rest may skip, and that one with an error does. */
#define IDLE_ROUNDS		10
#define ERROR_ROUNDS	30

/* Rounds between two foldings. */
#define FOLD_ROUNDS		30

/*
 * Rounds between two looks whether the views' owners have their rights: some, as
 * a restore that has brought all rows is about to give them itself.
 */
#define RIGHTS_ROUNDS	3

/* Steps of a build in one transaction. */
#define BUILD_STEPS		16

/* Deltas merged in one transaction, and such transactions in a round. */
#define MERGE_ROWS		20000
#define MERGE_STEPS		100

/* Longest back-off, in rounds, of merging under a held snapshot. */
#define MAX_BACKOFF		64

int			rsink_worker_interval = 1000;	/* ms */

/* What the worker remembers of a sink between rounds. */
typedef struct Tended
{
	char		name[NAMEDATALEN];
	int32		id;
	uint64		activity;		/* sum of its counters, last time */
	int			skip;			/* rounds to skip */
	bool		unusable;		/* has the last look at it failed? */
	int			rounds;
	TransactionId merged;		/* transaction that merged last */
	int			merge_wait;		/* rounds to wait before merging again */
	int			merge_backoff;
	TimestampTz warned;			/* of batches in doubt, last time */
	uint32		problem;		/* hash of the one that was logged last, or 0 */
} Tended;

static HTAB *tended;
static uint32 adoptions_asked;	/* when the last round began */
static bool old_tables_logged;
static bool idle;				/* had the last round nothing to do? */

PGDLLEXPORT void revenue_sink_worker_main(Datum arg);

static void
begin_step(const char *what, const char *sink)
{
	char		activity[NAMEDATALEN + 64];

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	snprintf(activity, sizeof(activity), "%s %s", what, sink);
	pgstat_report_activity(STATE_RUNNING, activity);
}

static void
end_step(void)
{
	if (ActiveSnapshotSet())
		PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_activity(STATE_IDLE, NULL);
	CHECK_FOR_INTERRUPTS();
}

/*
 * Begin a step for a sink. NULL, and no step is begun, if the sink isn't in order
 * any more: that may be so from any step to the next.
 */
static RsinkSink *
begin_sink_step(const char *what, const char *name)
{
	RsinkSink  *sink;

	begin_step(what, name);
	sink = rsink_sink_lookup(name, RSINK_MAY_ANYTHING);
	if (sink->problem == RSINK_READY)
		return sink;
	end_step();
	return NULL;
}

/*
 * Show as a process of the database's owner, who may then end us: DROP DATABASE
 * .. WITH (FORCE) ends all other sessions, and the owner of a database may not end
 * one of nobody's. Nothing else comes of that: what we may do isn't decided by it.
 */
static void
lend_role(void)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(MyDatabaseId));

	if (!HeapTupleIsValid(tuple))
		return;
	MyProc->roleId = ((Form_pg_database) GETSTRUCT(tuple))->datdba;
	ReleaseSysCache(tuple);
}

/* Is somebody waiting for this database to be left? */
static bool
in_the_way(void)
{
	LOCKTAG		tag;
	bool		free;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, MyDatabaseId, 0);
	StartTransactionCommand();
	lend_role();
	free = LockAcquire(&tag, RowExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
	CommitTransactionCommand();
	return !free;
}

/* Let the build of a sink's index go on until it is complete. */
static void
build_index(const char *name)
{
	bool		done = false;

	while (!done)
	{
		RsinkSink  *sink = begin_sink_step("build index of sink", name);
		RsinkSeen	seen;

		if (sink == NULL)
			return;
		if (sink->totals || sink->shared->built)
			done = true;
		else
		{
			rsink_seen_begin(&seen, sink, false);
			for (int i = 0; i < BUILD_STEPS && !done && !sink->shared->spilling; i++)
				done = rsink_seen_build(&seen, true);
			rsink_seen_end(&seen);
		}
		end_step();
	}
}

/*
 * May deltas be merged now? While somebody's snapshot keeps the dead rows of
 * the last merge, each further one would only add to them.
 */
static bool
merge_is_due(Tended *t, RsinkSink *sink)
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
 * fenced off; returns how many. Each is finished in a transaction of its own.
 */
static int64
finish_decided(Tended *t)
{
	MemoryContext old = CurrentMemoryContext;
	MemoryContext context;
	List	   *due = NIL;
	List	   *prepared;
	ListCell   *lc;
	RsinkSink  *sink = begin_sink_step("look at prepared batches of sink", t->name);
	int64		finished = 0;

	if (sink == NULL)
		return 0;
	context = AllocSetContextCreate(old, "revenue_sink finish", ALLOCSET_SMALL_SIZES);
	MemoryContextSwitchTo(context);
	prepared = rsink_prepared_list(sink, NULL, NULL);
	foreach(lc, prepared)
	{
		RsinkPrepared *p = lfirst(lc);

		rsink_decide_fenced(sink, p);
		if (p->decision != RSINK_UNDECIDED)
			due = lappend(due, p);
	}
	rsink_warn_in_doubt(sink, prepared, &t->warned);
	end_step();
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
 * Settle and merge, in short transactions: none holds its snapshot for long. The
 * rows moved are returned.
 */
static int64
settle_and_merge(Tended *t)
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
			if (step == 0 && !sink->totals)
				moved += rsink_settle(sink, &pending);
			moved += pending;	/* come again */
			if (step > 0 || merge_is_due(t, sink))
			{
				merged = rsink_merge_deltas(sink, MERGE_ROWS, &from);
				if (merged > 0)
					t->merged = GetTopTransactionIdIfAny();
				moved += merged;
			}
			else
				moved++;		/* come again */
		}
		end_step();
	}
	return moved;
}

/* Remove what the sink keeps no longer, in short transactions; returns how many totals. */
static int64
remove_old(Tended *t)
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
		end_step();
	}
	return all;
}

/* Tell the planner of tables that have grown or shrunk a lot. */
static void
refresh_statistics(Tended *t)
{
	RsinkSink  *sink = begin_sink_step("analyze sink", t->name);

	if (sink == NULL)
		return;
	rsink_refresh_statistics(sink->delta);
	rsink_refresh_statistics(sink->total);
	end_step();
}

/* One round for one sink; returns the rows it moved. */
static int64
tend(Tended *t)
{
	int64		moved = 0;
	RsinkSink  *sink;

	/* first what may be in the way of a build: it needs memory */
	moved += finish_decided(t);

	build_index(t->name);

	moved += settle_and_merge(t);
	refresh_statistics(t);

	if ((sink = begin_sink_step("expire sink", t->name)) == NULL)
		return moved;
	if (rsink_maintenance_lock(sink, false))
		moved += rsink_expire(sink);
	end_step();

	moved += remove_old(t);

	if ((sink = begin_sink_step("pack sink", t->name)) == NULL)
		return moved;
	if (rsink_maintenance_lock(sink, false))
		moved += rsink_pack(sink);
	end_step();

	if (t->rounds % RIGHTS_ROUNDS == RIGHTS_ROUNDS - 1 &&
		(sink = begin_sink_step("look at the rights of sink", t->name)) != NULL)
	{
		if (rsink_maintenance_lock(sink, false))
			rsink_mend_rights(sink);
		end_step();
	}

	if (t->rounds++ % FOLD_ROUNDS == FOLD_ROUNDS - 1 &&
		(sink = begin_sink_step("fold sink", t->name)) != NULL)
	{
		if (rsink_maintenance_lock(sink, false))
			rsink_fold(sink);
		end_step();
	}
	return moved;
}

/*
 * Look at a sink that isn't in order: log what is wrong once, and look less often
 * while that stays so.
 */
static void
look_at_problem(Tended *t, RsinkSink *sink)
{
	char	   *problem;
	uint32		hash = 0;

	if ((problem = rsink_tend_problem(sink)) != NULL)
	{
		hash = Max(1, hash_bytes((unsigned char *) problem, strlen(problem)));
		if (hash != t->problem)
			ereport(LOG,
					(errmsg("sink \"%s\" is left alone: %s", t->name, problem)));
	}
	t->skip = hash != 0 && hash == t->problem ? IDLE_ROUNDS : 0;
	t->problem = hash;
}

static uint64
activity_of(const RsinkSink *sink)
{
	uint64		sum = 0;

	for (int i = 0; i < RSINK_NSTATS; i++)
		sum += pg_atomic_read_u64(&sink->shared->stat[i]);
	return sum;
}

/* The same, but an error is logged and makes the sink rest. */
static void
tend_safely(Tended *t, MemoryContext context)
{
	if (t->unusable && t->skip > 0)
	{
		t->skip--;
		return;
	}
	t->unusable = true;
	PG_TRY();
	{
		RsinkSink  *sink;
		bool		in_order;
		uint64		activity = t->activity;

		begin_step("look at sink", t->name);
		sink = rsink_sink_lookup(t->name, RSINK_MAY_ANYTHING);
		in_order = sink->problem == RSINK_READY;
		if (in_order)
		{
			activity = activity_of(sink);
			t->skip = t->problem != 0 ? 0 : t->skip;
			t->problem = 0;
		}
		else if (t->problem == 0 || t->skip == 0)
			look_at_problem(t, sink);
		else
			t->skip--;
		end_step();
		t->unusable = false;
		if (in_order && (activity != t->activity || t->skip == 0))
		{
			int64		moved = tend(t);

			t->skip = moved > 0 ? 0 : IDLE_ROUNDS;
			t->activity = activity;
			idle &= moved == 0;
		}
		else if (in_order)
			t->skip--;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		HOLD_INTERRUPTS();
		/* an index that has to be built again is built first thing next round */
		t->skip = geterrcode() == ERRCODE_RSINK_NOT_BUILT ? 0 : ERROR_ROUNDS;
		EmitErrorReport();
		FlushErrorState();
		AbortCurrentTransaction();
		pgstat_report_activity(STATE_IDLE, NULL);
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
}

/* The names of this database's sinks, in the current memory context. */
static List *
list_sinks(void)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *names = NIL;
	RsinkSpi	spi;

	rsink_spi_begin(&spi);
	rsink_spi(SPI_OK_SELECT, "SELECT name FROM revenue_sink.sink_catalog ORDER BY id");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		names = lappend(names, SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1));
		MemoryContextSwitchTo(old);
	}
	rsink_spi_end(&spi);
	return names;
}

/* One round. False: the extension isn't there (any more). */
static bool
work_round(MemoryContext context)
{
	List	   *names = NIL;
	ListCell   *lc;
	bool		installed;
	bool		old_tables;
	uint32		asked = rsink_adoptions_asked();

	begin_step("look for", "sinks");
	rsink_release_gone();
	installed = OidIsValid(get_extension_oid("revenue_sink", true));
	old_tables = installed && rsink_tables_are_old();
	if (old_tables && !old_tables_logged)
		ereport(LOG,
				(errmsg("the worker of revenue_sink rests in database \"%s\"", get_database_name(MyDatabaseId)),
				 errdetail("The extension's tables are of an older version than its library."),
				 errhint("Run ALTER EXTENSION revenue_sink UPDATE in this database.")));
	old_tables_logged = old_tables;
	idle = true;
	if (installed && !old_tables)
	{
		MemoryContext old = CurrentMemoryContext;
		List	   *found = list_sinks();

		MemoryContextSwitchTo(context);
		foreach(lc, found)
			names = lappend(names, pstrdup(lfirst(lc)));
		MemoryContextSwitchTo(old);
	}
	end_step();
	foreach(lc, names)
	{
		bool		found;
		Tended	   *t = hash_search(tended, lfirst(lc), HASH_ENTER, &found);

		if (!found)
			memset((char *) t + NAMEDATALEN, 0, sizeof(Tended) - NAMEDATALEN);
		if (asked != adoptions_asked && t->problem != 0)
			t->skip = 0;
		tend_safely(t, context);
	}
	adoptions_asked = asked;
	return installed;
}

/* Entry point of the worker of one database. */
void
revenue_sink_worker_main(Datum arg)
{
	Oid			db = DatumGetObjectId(arg);
	RsinkExit	reason = RSINK_EXIT_YIELD;
	MemoryContext context;
	HASHCTL		ctl = {
		.keysize = NAMEDATALEN,
		.entrysize = sizeof(Tended)
	};

	/* a reload of the moments before this is caught up with, not missed */
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	ConfigReloadPending = true;
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	if (!rsink_worker_started(db))
		proc_exit(0);
	rsink_pin_session();
	BackgroundWorkerInitializeConnectionByOid(db, InvalidOid, 0);
	pgstat_report_appname("revenue_sink worker");
	rsink_seen_builder = true;
	tended = hash_create("revenue_sink tended", 16, &ctl, HASH_ELEM | HASH_STRINGS);
	context = AllocSetContextCreate(TopMemoryContext, "revenue_sink round", ALLOCSET_DEFAULT_SIZES);
	adoptions_asked = rsink_adoptions_asked();

	while (!in_the_way())
	{
		long		rest = rsink_worker_interval;

		MemoryContextSwitchTo(context);
		if (!work_round(context))
		{
			reason = RSINK_EXIT_NOT_INSTALLED;
			break;
		}
		MemoryContextReset(context);
		pgstat_report_stat(true);
		if (rsink_worker_place_is_needed())
		{
			reason = idle ? RSINK_EXIT_IDLE : RSINK_EXIT_TURN;
			break;
		}
		do
		{
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 Min(rest, MAX_NAP), PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
			if (ConfigReloadPending)
			{
				ConfigReloadPending = false;
				ProcessConfigFile(PGC_SIGHUP);
				rest = Min(rest, rsink_worker_interval);
			}
			rest -= MAX_NAP;
		} while (rest > 0 && adoptions_asked == rsink_adoptions_asked() &&
				 !rsink_worker_place_is_needed() && !in_the_way());
	}
	rsink_worker_ended(db, reason);
	proc_exit(0);
}
