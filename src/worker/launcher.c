/*-------------------------------------------------------------------------
 *
 * launcher.c
 *	  The launcher: sees that each database that needs a worker has one.
 *
 * At its start the launcher gives every database a worker, which ends at once where
 * the extension isn't installed. CREATE EXTENSION and create_sink() wake the
 * launcher; a database that came in another way, for example as a copy of another
 * database, is noticed soon after the first use of a sink. A worker that dies is
 * started again, after a pause that grows if it dies young time after time.
 *
 * Where max_worker_processes leaves fewer places than databases need, the databases
 * take turns: a worker whose place is needed ends after its round, and its database
 * is due again after worker_interval, or later if there was nothing to do. First
 * comes a database for which somebody waits, then the one that has waited longest.
 *
 * What a database is to the launcher (state_of() below tells which):
 *
 *	   it is seen, or asked for	 its time has come	   a place is free
 *	 (none) ----------> RESTING ----------------> DUE ----------------> RUNNING
 *						  ^  ^												|
 *						  |	 +------ the worker has ended: RSINK_EXIT_* ----+
 *			somebody asks |													|
 *					   UNWANTED <---- RSINK_EXIT_NOT_INSTALLED -------------+
 *
 * How long a database rests follows from why its worker has ended: see reap(). When
 * it has left pg_database it is forgotten, in any state but RUNNING.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "core/compat.h"
#include "core/settings.h"
#include "sink/slot.h"
#include "worker/launcher.h"
#include "worker/worker.h"

PG_FUNCTION_INFO_V1(revenue_sink_start_worker);

#define MAX_DATABASES	1024
#define RESCAN_MS		60000
#define LOOK_MS			1000
#define YIELD_MS		1000
#define MAX_BACKOFF_MS	60000

/* While databases take turns, the launcher looks so often, in ms. */
#define TURN_LOOK_MS	200

/* A database that had nothing to do is due after so many times worker_interval. */
#define IDLE_TURNS		10

/* So often, in ms, it is said that there are too few places. */
#define COMPLAIN_MS		3600000

typedef struct Database
{
	Oid			db;
	bool		wanted;			/* somebody asks for a worker */
	bool		running;		/* it has one, which a launcher before this may have started */
	RsinkExit	reason;			/* why its last worker ended */
} Database;

typedef struct Launcher
{
	slock_t		mutex;
	Latch	   *latch;			/* of the running launcher, or NULL */
	pg_atomic_uint32 waiting;	/* databases that are due and have no place */
	int			n;
	Database	database[MAX_DATABASES];
} Launcher;

/* What the launcher alone knows of a database. */
typedef struct Tracked
{
	BackgroundWorkerHandle *handle; /* of the running worker, or NULL */
	TimestampTz started;
	TimestampTz ended;
	TimestampTz not_before;
	int			backoff;		/* ms */
	bool		idle;			/* had its last worker nothing to do? */
	uint64		activity;		/* of its sinks, when that ended */
} Tracked;

/* What a database is to the launcher; see the top of this file. */
typedef enum DatabaseState
{
	DATABASE_NONE,				/* an entry that is not used */
	DATABASE_UNWANTED,			/* it has not got the extension */
	DATABASE_RESTING,			/* its next worker starts later */
	DATABASE_DUE,				/* it has none, and could use one */
	DATABASE_RUNNING			/* it has a worker, perhaps of a launcher before this */
} DatabaseState;

/* A database that is due for a worker. */
typedef struct Due
{
	int			i;
	bool		urgent;			/* somebody waits for it */
	TimestampTz since;
} Due;

static Launcher *launcher;
static Oid	adoption_asked;		/* where somebody waits for a sink to be adopted */
static bool wanted_at_commit;

PGDLLEXPORT void revenue_sink_launcher_main(Datum arg);

/* Shared memory needed, in bytes. */
Size
rsink_worker_shmem_size(void)
{
	return sizeof(Launcher);
}

/* Attach to it; create it if this is the first time. */
void
rsink_worker_shmem_init(void)
{
	bool		found;

	launcher = ShmemInitStruct("revenue_sink launcher", sizeof(Launcher), &found);
	if (!found)
	{
		memset(launcher, 0, sizeof(Launcher));
		SpinLockInit(&launcher->mutex);
		pg_atomic_init_u32(&launcher->waiting, 0);
	}
}

/*
 * Note something about a database, and wake the launcher. *running: was a worker
 * running there? If not NULL, the caller is one from now on.
 */
static void
note_database(Oid db, bool wanted, RsinkExit reason, bool wake, bool *running)
{
	Latch	   *latch;
	int			unused = launcher->n;
	int			i;

	SpinLockAcquire(&launcher->mutex);
	for (i = 0; i < launcher->n && launcher->database[i].db != db; i++)
		if (!OidIsValid(launcher->database[i].db))
			unused = i;
	if (i == launcher->n)
		i = Min(unused, launcher->n);
	if (i < MAX_DATABASES)
	{
		Database   *d = &launcher->database[i];

		if (i == launcher->n)
			launcher->n++;
		if (d->db != db)
			*d = (Database) {.db = db};
		d->wanted = wanted;
		d->reason = reason;
		if (running != NULL)
		{
			*running = d->running;
			d->running = true;
		}
	}
	latch = launcher->latch;
	SpinLockRelease(&launcher->mutex);
	if (wake && latch != NULL)
		SetLatch(latch);
}

static void
forget_running(int code, Datum db)
{
	SpinLockAcquire(&launcher->mutex);
	for (int i = 0; i < launcher->n; i++)
		if (launcher->database[i].db == DatumGetObjectId(db))
			launcher->database[i].running = false;
	SpinLockRelease(&launcher->mutex);
}

/*
 * A worker says that it runs; until it says more, its end is a crash. False: the
 * database has one already, since a launcher that has just started again can't
 * see a worker of the one before that is still on its way.
 */
bool
rsink_worker_started(Oid db)
{
	bool		running = false;

	note_database(db, true, RSINK_EXIT_CRASH, false, &running);
	if (!running)
		before_shmem_exit(forget_running, ObjectIdGetDatum(db));
	return !running;
}

/* A worker says why it ends. */
void
rsink_worker_ended(Oid db, RsinkExit reason)
{
	note_database(db, reason != RSINK_EXIT_NOT_INSTALLED, reason, true, NULL);
}

/* Does a database wait for a place, such as that of the worker that asks? */
bool
rsink_worker_place_is_needed(void)
{
	return pg_atomic_read_u32(&launcher->waiting) > 0;
}

static void
xact_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT && wanted_at_commit)
		note_database(MyDatabaseId, true, RSINK_EXIT_YIELD, true, NULL);
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT)
		wanted_at_commit = false;
}

/* See that this database has a worker once this transaction has committed. */
void
rsink_worker_wanted(void)
{
	if (launcher != NULL)
		wanted_at_commit = true;
}

/*
 * start_worker(): a worker once the transaction has committed, for CREATE
 * EXTENSION. A server that hasn't loaded the library has none, and can only read.
 */
Datum
revenue_sink_start_worker(PG_FUNCTION_ARGS)
{
	if (!rsink_is_preloaded())
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("revenue_sink is not loaded via shared_preload_libraries"),
				 errdetail("Sinks in this database can be read, but not written to."),
				 errhint("To write, add shared_preload_libraries = 'revenue_sink' to postgresql.conf and restart the server.")));
	rsink_worker_wanted();
	PG_RETURN_VOID();
}

/* Called once a process, from _PG_init. */
void
rsink_init_worker(void)
{
	RegisterXactCallback(xact_callback, NULL);
}

/* What the launcher and its workers have in common as background workers. */
static void
describe_worker(BackgroundWorker *worker, const char *type, const char *function)
{
	memset(worker, 0, sizeof(BackgroundWorker));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker->bgw_start_time = BgWorkerStart_RecoveryFinished;
	snprintf(worker->bgw_library_name, BGW_MAXLEN, "revenue_sink");
	snprintf(worker->bgw_function_name, BGW_MAXLEN, "%s", function);
	snprintf(worker->bgw_name, BGW_MAXLEN, "%s", type);
	snprintf(worker->bgw_type, BGW_MAXLEN, "%s", type);
}

/* Register the launcher with the postmaster. */
void
rsink_launcher_register(void)
{
	BackgroundWorker worker;

	describe_worker(&worker, "revenue_sink launcher", "revenue_sink_launcher_main");
	worker.bgw_restart_time = 5;
	RegisterBackgroundWorker(&worker);
}

static BackgroundWorkerHandle *
start_worker(Oid db)
{
	BackgroundWorkerHandle *handle = NULL;
	BackgroundWorker worker;

	describe_worker(&worker, "revenue_sink worker", "revenue_sink_worker_main");
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = ObjectIdGetDatum(db);
	worker.bgw_notify_pid = MyProcPid;
	snprintf(worker.bgw_name, BGW_MAXLEN, "revenue_sink worker for database %u", db);
	return RegisterDynamicBackgroundWorker(&worker, &handle) ? handle : NULL;
}

static bool
is_known(Oid db)
{
	bool		known = false;

	SpinLockAcquire(&launcher->mutex);
	for (int i = 0; i < launcher->n; i++)
		known |= launcher->database[i].db == db;
	SpinLockRelease(&launcher->mutex);
	return known;
}

/* Databases whose sinks are in use, or wait to be adopted, have the extension. */
static void
look_at_slots(void)
{
	adoption_asked = rsink_adoption_database();
	for (int i = -1; i < rsink_max_sinks; i++)
	{
		Oid			db = i < 0 ? adoption_asked : rsink_shared_database(i);

		if (!OidIsValid(db))
			continue;
		SpinLockAcquire(&launcher->mutex);
		for (int j = 0; j < launcher->n; j++)
			if (launcher->database[j].db == db)
				launcher->database[j].wanted = true;
		SpinLockRelease(&launcher->mutex);
		if (!is_known(db))
			note_database(db, true, RSINK_EXIT_YIELD, false, NULL);
	}
}

/*
 * Can a worker connect to this database? *gone: it doesn't exist any more. Nobody
 * connects to one that allows no connections, or whose DROP was interrupted.
 */
static bool
can_connect(Oid db, bool *gone)
{
	HeapTuple	tuple;
	bool		can = false;

	StartTransactionCommand();
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(db));
	*gone = !HeapTupleIsValid(tuple);
	if (!*gone)
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

		can = form->datallowconn && form->datconnlimit != RSINK_DATCONNLIMIT_INVALID;
		ReleaseSysCache(tuple);
	}
	CommitTransactionCommand();
	return can;
}

/* Note databases that are new, and let go of those that are gone. */
static void
scan_databases(Tracked *tracked)
{
	List	   *found = NIL;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;
	MemoryContext context = CurrentMemoryContext;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext old = MemoryContextSwitchTo(context);

		found = lappend_oid(found, form->oid);
		MemoryContextSwitchTo(old);
		if (!is_known(form->oid) && form->datallowconn)
			note_database(form->oid, true, RSINK_EXIT_YIELD, false, NULL);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();

	for (int i = 0; i < rsink_max_sinks; i++)
	{
		Oid			db = rsink_shared_database(i);

		if (OidIsValid(db) && !list_member_oid(found, db))
			rsink_release_database(db);
	}
	SpinLockAcquire(&launcher->mutex);
	for (int i = 0; i < launcher->n; i++)
	{
		if (tracked[i].handle != NULL || launcher->database[i].running ||
			list_member_oid(found, launcher->database[i].db))
			continue;
		launcher->database[i] = (Database) {.db = InvalidOid};
		memset(&tracked[i], 0, sizeof(Tracked));
	}
	SpinLockRelease(&launcher->mutex);
	list_free(found);
}

/* See whether a database's worker has ended, and when the next one is due. */
static void
reap(const Database *d, Tracked *t)
{
	TimestampTz now = GetCurrentTimestamp();
	long		rest = YIELD_MS;
	pid_t		pid;

	if (t->handle == NULL || GetBackgroundWorkerPid(t->handle, &pid) != BGWH_STOPPED)
		return;
	pfree(t->handle);
	t->handle = NULL;
	t->ended = now;
	t->idle = d->reason == RSINK_EXIT_IDLE;
	t->activity = rsink_shared_activity(d->db);
	if (d->reason == RSINK_EXIT_TURN)
		rest = rsink_worker_interval;
	else if (t->idle)
		rest = (long) rsink_worker_interval * IDLE_TURNS;
	else if (d->reason == RSINK_EXIT_CRASH && !TimestampDifferenceExceeds(t->started, now, MAX_BACKOFF_MS))
		rest = Min(Max(t->backoff * 2, YIELD_MS), MAX_BACKOFF_MS);
	t->backoff = d->reason == RSINK_EXIT_CRASH ? rest : YIELD_MS;
	t->not_before = TimestampTzPlusMilliseconds(now, rest);
}

/* Does somebody wait for the worker of this database? */
static bool
is_urgent(Oid db)
{
	return db == adoption_asked;
}

/* One that rests for want of work is due once its sinks are used, or waited for. */
static DatabaseState
state_of(const Database *d, Tracked *t)
{
	if (!OidIsValid(d->db))
		return DATABASE_NONE;
	if (t->handle != NULL || d->running)
		return DATABASE_RUNNING;
	if (!d->wanted)
		return DATABASE_UNWANTED;
	if (t->idle && t->activity != rsink_shared_activity(d->db))
		t->not_before = Min(t->not_before, TimestampTzPlusMilliseconds(t->ended, rsink_worker_interval));
	if (GetCurrentTimestamp() < t->not_before && !(t->idle && is_urgent(d->db)))
		return DATABASE_RESTING;
	return DATABASE_DUE;
}

/* Is a worker to start? If later, *nap is shortened to the ms until then. */
static bool
is_due(const Database *d, Tracked *t, long *nap)
{
	DatabaseState state = state_of(d, t);
	bool		gone;

	if (state == DATABASE_RESTING)
		*nap = Min(*nap, t->idle ? TURN_LOOK_MS :
				   TimestampDifferenceMilliseconds(GetCurrentTimestamp(), t->not_before) + 1);
	if (state != DATABASE_DUE)
		return false;
	if (can_connect(d->db, &gone))
		return true;
	if (gone)
	{
		note_database(d->db, false, RSINK_EXIT_NOT_INSTALLED, false, NULL);
		rsink_release_database(d->db);
	}
	return false;
}

static int
compare_due(const void *a, const void *b)
{
	const Due  *x = a;
	const Due  *y = b;

	if (x->urgent != y->urgent)
		return x->urgent ? -1 : 1;
	return x->since < y->since ? -1 : x->since > y->since;
}

/* Start workers for the databases that are due, as far as there are places. */
static void
start_due(Due *due, int n, Tracked *tracked)
{
	static TimestampTz complained = 0;
	int			started = 0;

	qsort(due, n, sizeof(Due), compare_due);
	for (; started < n; started++)
	{
		Tracked    *t = &tracked[due[started].i];
		Oid			db;

		SpinLockAcquire(&launcher->mutex);
		db = launcher->database[due[started].i].db;
		SpinLockRelease(&launcher->mutex);
		if ((t->handle = start_worker(db)) == NULL)
			break;
		t->started = GetCurrentTimestamp();
	}
	pg_atomic_write_u32(&launcher->waiting, n - started);
	if (started < n && TimestampDifferenceExceeds(complained, GetCurrentTimestamp(), COMPLAIN_MS))
	{
		complained = GetCurrentTimestamp();
		ereport(LOG,
				(errmsg("workers of revenue_sink take turns, because there are too few places for them"),
				 errhint("Raise max_worker_processes by %d or more.", n - started)));
	}
}

static void
forget_latch(int code, Datum arg)
{
	SpinLockAcquire(&launcher->mutex);
	launcher->latch = NULL;
	SpinLockRelease(&launcher->mutex);
}

/* Entry point of the launcher. */
void
revenue_sink_launcher_main(Datum arg)
{
	Tracked    *tracked;
	Due		   *due;
	TimestampTz scanned = 0;

	/* a reload of the moments before this is caught up with, not missed */
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	ConfigReloadPending = true;
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	rsink_pin_session();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	tracked = MemoryContextAllocZero(TopMemoryContext, MAX_DATABASES * sizeof(Tracked));
	due = MemoryContextAlloc(TopMemoryContext, MAX_DATABASES * sizeof(Due));
	MemoryContextSwitchTo(TopMemoryContext);
	before_shmem_exit(forget_latch, (Datum) 0);
	SpinLockAcquire(&launcher->mutex);
	launcher->latch = MyLatch;
	SpinLockRelease(&launcher->mutex);

	for (;;)
	{
		long		nap = LOOK_MS;
		int			n;
		int			ndue = 0;

		if (TimestampDifferenceExceeds(scanned, GetCurrentTimestamp(), RESCAN_MS))
		{
			scan_databases(tracked);
			scanned = GetCurrentTimestamp();
		}
		look_at_slots();
		SpinLockAcquire(&launcher->mutex);
		n = launcher->n;
		SpinLockRelease(&launcher->mutex);
		for (int i = 0; i < n; i++)
		{
			Database	d;

			SpinLockAcquire(&launcher->mutex);
			d = launcher->database[i];
			SpinLockRelease(&launcher->mutex);
			reap(&d, &tracked[i]);
			if (is_due(&d, &tracked[i], &nap))
			{
				due[ndue].i = i;
				due[ndue].urgent = is_urgent(d.db);
				due[ndue++].since = tracked[i].ended;
			}
		}
		start_due(due, ndue, tracked);
		if (rsink_worker_place_is_needed())
			nap = Min(nap, TURN_LOOK_MS);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 nap, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
	}
}
