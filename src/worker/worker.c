/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The worker of a database: its rounds.
 *
 * In a round the worker does, for each sink, what others have left to it: it
 * finishes prepared batches that are decided on or fenced off, builds the index,
 * settles and merges; and it keeps the sink small: it expires, removes old
 * totals, packs and folds. Each step is a short transaction of its own. An error
 * is logged, and its sink rests for a while. The worker skips a sink that has a
 * problem, and only checks whether it can adopt the sink; see home.c.
 *
 * DROP DATABASE, ALTER DATABASE .. RENAME and CREATE DATABASE .. TEMPLATE wait
 * five seconds, with a lock on the database, for its other sessions to go. The
 * worker asks for that lock, without waiting, between rounds and once a second
 * while it rests. If somebody has the lock, the worker leaves, and the launcher
 * starts it again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

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
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "api/adopt.h"
#include "core/compat.h"
#include "core/settings.h"
#include "core/spi_util.h"
#include "sink/right.h"
#include "sink/sink.h"
#include "sink/slot.h"
#include "worker/launcher.h"
#include "worker/tend.h"
#include "worker/worker.h"

/*
 * The longest sleep, in ms, between two checks whether we are in the way of
 * somebody.
 */
#define MAX_NAP			1000L

/*
 * Rounds for which a sink at rest is skipped, and one whose round has raised an
 * error.
 */
#define IDLE_ROUNDS		10
#define ERROR_ROUNDS	30

int			rsink_worker_interval = 1000;	/* ms */

static HTAB *tended;
static uint32 adoptions_asked;	/* rsink_adoptions_asked() as the last round began */
static bool old_tables_logged;	/* don't log in each round that tables are old */
static bool idle;				/* did the last round have nothing to do? */
static bool hurry;				/* is there a sink for which the next round can't wait? */

PGDLLEXPORT void revenue_sink_worker_main(Datum arg);

/*
 * Show as a process of the database's owner, so that this owner may end us: DROP
 * DATABASE .. WITH (FORCE) ends all other sessions, and the owner may not end one
 * that belongs to no role. This has no other effect, as it doesn't decide what we
 * may do.
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

/* Does somebody wait for all sessions to leave this database? */
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

/*
 * Look at a sink that isn't in order. Log each problem once, and look less often
 * while the problem stays the same.
 */
static void
look_at_problem(RsinkTended *t, RsinkSink *sink)
{
	char	   *problem;
	uint32		hash = 0;

	if ((problem = rsink_tend_problem(sink)) != NULL)
	{
		hash = Max(1, hash_bytes((unsigned char *) problem, strlen(problem)));
		if (hash != t->problem)
			ereport(LOG,
					(errmsg("the worker skips sink \"%s\": %s", t->name, problem)));
	}
	t->skip = hash != 0 && hash == t->problem ? IDLE_ROUNDS : 0;
	t->problem = hash;
}

/* A number that changes with whatever is done to the sink. */
static uint64
activity_of(const RsinkSink *sink)
{
	uint64		sum = 0;

	for (int i = 0; i < RSINK_NSTATS; i++)
		sum += pg_atomic_read_u64(&sink->shared->stat[i]);
	return sum;
}

/*
 * Look at one sink, and tend it unless it isn't in order or is to be skipped in
 * this round. An error is logged, noted in the sink's slot, and makes the sink rest.
 */
static void
tend_safely(RsinkTended *t, MemoryContext context)
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

		rsink_begin_step("look at sink", t->name);
		sink = rsink_sink_lookup(t->name, RSINK_MAY_ANYTHING);
		in_order = sink->problem == RSINK_READY;
		t->seen = sink->seen;
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
		rsink_end_step();
		t->unusable = false;
		if (in_order && (activity != t->activity || t->skip == 0))
		{
			int64		moved = rsink_tend(t);

			rsink_shared_note_round(t->seen, NULL);
			t->skip = moved > 0 || t->hurry ? 0 : IDLE_ROUNDS;
			t->activity = activity;
			idle &= moved == 0;
			hurry |= t->hurry;
		}
		else if (in_order)
			t->skip--;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		HOLD_INTERRUPTS();
		t->skip = ERROR_ROUNDS;
		error = CopyErrorData();
		EmitErrorReport();
		FlushErrorState();
		AbortCurrentTransaction();
		rsink_shared_note_round(t->seen, error);
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

/* One round for all sinks. False: the extension isn't there, or not any more. */
static bool
work_round(MemoryContext context)
{
	List	   *names = NIL;
	ListCell   *lc;
	bool		installed;
	bool		old_tables;
	uint32		asked = rsink_adoptions_asked();

	rsink_begin_step("look for", "sinks");
	rsink_release_gone();
	installed = OidIsValid(get_extension_oid("revenue_sink", true));
	old_tables = installed && rsink_tables_are_old();
	if (old_tables && !old_tables_logged)
		ereport(LOG,
				(errmsg("the worker of revenue_sink does nothing in database \"%s\"", get_database_name(MyDatabaseId)),
				 errdetail("The extension's tables are of an older version than its library."),
				 errhint("Run ALTER EXTENSION revenue_sink UPDATE in this database.")));
	old_tables_logged = old_tables;
	idle = true;
	hurry = false;
	if (installed && !old_tables)
	{
		MemoryContext old = CurrentMemoryContext;
		List	   *found = list_sinks();

		MemoryContextSwitchTo(context);
		foreach(lc, found)
			names = lappend(names, pstrdup(lfirst(lc)));
		MemoryContextSwitchTo(old);
	}
	rsink_end_step();
	foreach(lc, names)
	{
		bool		found;
		RsinkTended	   *t = hash_search(tended, lfirst(lc), HASH_ENTER, &found);

		if (!found)
			memset((char *) t + NAMEDATALEN, 0, sizeof(RsinkTended) - NAMEDATALEN);
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
		.entrysize = sizeof(RsinkTended)
	};

	/* settings that were reloaded before this moment would be missed: read them */
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	ConfigReloadPending = true;
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	if (!rsink_worker_started(db))
		proc_exit(0);
	rsink_pin_session();
	BackgroundWorkerInitializeConnectionByOid(db, InvalidOid, 0);
	pgstat_report_appname("revenue_sink worker");
	tended = hash_create("revenue_sink tended", 16, &ctl, HASH_ELEM | HASH_STRINGS);
	context = AllocSetContextCreate(TopMemoryContext, "revenue_sink round", ALLOCSET_DEFAULT_SIZES);
	adoptions_asked = rsink_adoptions_asked();

	while (!in_the_way())
	{
		long		rest;

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
		rest = hurry ? 0 : rsink_worker_interval;
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
