/*-------------------------------------------------------------------------
 *
 * sink_shared.c
 *	  The sinks' places in shared memory.
 *
 * A sink takes a place when a backend first uses it, and gives it back when it,
 * or its database, is gone. All that is in it can be had again from the tables.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/shmem.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "sink.h"

typedef struct Slots
{
	LWLock		lock;			/* protects who has which slot */
	pg_atomic_uint32 adoptions_asked;	/* see rsink_ask_for_adoption() */
	pg_atomic_uint32 adoption_db;	/* in which that was done last */
	RsinkShared slot[FLEXIBLE_ARRAY_MEMBER];
} Slots;

int			rsink_max_sinks = 64;

static Slots *slots;

/* Has the server loaded the library at its start? */
bool
rsink_is_preloaded(void)
{
	return slots != NULL;
}

/* Raise, with the way out, where it hasn't. */
void
rsink_require_preload(void)
{
	if (slots == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("revenue_sink must be loaded via shared_preload_libraries"),
				 errhint("Add shared_preload_libraries = 'revenue_sink' to postgresql.conf and restart the server.")));
}

/* Shared memory needed for the sinks, in bytes. */
Size
rsink_shared_size(void)
{
	return add_size(offsetof(Slots, slot), mul_size(rsink_max_sinks, sizeof(RsinkShared)));
}

/* Attach to it; create it if this is the first time. */
void
rsink_shared_init(void)
{
	bool		found;

	slots = ShmemInitStruct("revenue_sink sinks", rsink_shared_size(), &found);
	if (!found)
	{
		int			tranche = LWLockNewTrancheId();

		memset(slots, 0, rsink_shared_size());
		LWLockInitialize(&slots->lock, tranche);
		pg_atomic_init_u32(&slots->adoptions_asked, 0);
		pg_atomic_init_u32(&slots->adoption_db, InvalidOid);
		for (int i = 0; i < rsink_max_sinks; i++)
			LWLockInitialize(&slots->slot[i].lock, tranche);
	}
	LWLockRegisterTranche(slots->lock.tranche, "revenue_sink");
}

/* Ask the workers to look soon for sinks that they can take in. */
void
rsink_ask_for_adoption(void)
{
	pg_atomic_write_u32(&slots->adoption_db, MyDatabaseId);
	(void) pg_atomic_fetch_add_u32(&slots->adoptions_asked, 1);
}

/* The database in which somebody has asked, once for each time; or InvalidOid. */
Oid
rsink_adoption_database(void)
{
	return pg_atomic_exchange_u32(&slots->adoption_db, InvalidOid);
}

/* A number that changes whenever somebody asks. */
uint32
rsink_adoptions_asked(void)
{
	return pg_atomic_read_u32(&slots->adoptions_asked);
}

/* Make a slot somebody's first, or nobody's. Caller holds both locks. */
static void
slot_reset(RsinkShared *shared, Oid db, Oid seen)
{
	rsink_index_destroy(&shared->index);
	shared->db = db;
	shared->seen = seen;
	shared->relfile = InvalidOid;
	shared->built = false;
	shared->short_of_memory = false;
	shared->spilling = false;
	shared->foreign_xid = InvalidTransactionId;
	shared->spilled = false;
	shared->small_rows = 0;
	shared->next_block = shared->known_blocks = 0;
	shared->horizon = shared->retained_from = DT_NOBEGIN;
	shared->low_claim = DT_NOEND;
	shared->last_merge = 0;
	shared->stats_since = GetCurrentTimestamp();
	pg_atomic_init_u64(&shared->last_sequence, 0);
	for (int i = 0; i < RSINK_NSTATS; i++)
		pg_atomic_init_u64(&shared->stat[i], 0);
}

/* Give back one slot of a database, or (InvalidOid) all of them. */
static void
slots_release(Oid db, Oid seen)
{
	LWLockAcquire(&slots->lock, LW_EXCLUSIVE);
	for (int i = 0; i < rsink_max_sinks; i++)
	{
		RsinkShared *shared = &slots->slot[i];

		if (shared->db == db && (!OidIsValid(seen) || shared->seen == seen))
		{
			LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
			slot_reset(shared, InvalidOid, InvalidOid);
			LWLockRelease(&shared->lock);
		}
	}
	LWLockRelease(&slots->lock);
}

/*
 * Give back the slots of this database's sinks that are gone. One that we don't
 * see may just be being made; its maker, and whoever uses it, has a lock on it.
 */
void
rsink_release_gone(void)
{
	for (int i = 0; i < rsink_max_sinks; i++)
	{
		Oid			seen = InvalidOid;

		LWLockAcquire(&slots->lock, LW_SHARED);
		if (slots->slot[i].db == MyDatabaseId)
			seen = slots->slot[i].seen;
		LWLockRelease(&slots->lock);
		if (!OidIsValid(seen) || SearchSysCacheExists1(RELOID, ObjectIdGetDatum(seen)) ||
			!ConditionalLockRelationOid(seen, AccessExclusiveLock))
			continue;
		if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(seen)))
			slots_release(MyDatabaseId, seen);
		UnlockRelationOid(seen, AccessExclusiveLock);
	}
}

/* Give back the slots of all databases that are gone. */
static void
release_gone_databases(void)
{
	for (int i = 0; i < rsink_max_sinks; i++)
	{
		Oid			db = rsink_shared_database(i);

		if (OidIsValid(db) && !SearchSysCacheExists1(DATABASEOID, ObjectIdGetDatum(db)))
			slots_release(db, InvalidOid);
	}
}

/* Find or take the slot of a sink; NULL when all are taken. */
static RsinkShared *
slot_find(const RsinkSink *sink)
{
	RsinkShared *found = NULL;
	RsinkShared *unused = NULL;
	Oid			state = rsink_catalog_relid("sink_state");
	TimestampTz horizon = rsink_state_time(state, sink->id, Anum_state_horizon, NULL);
	TimestampTz retained_from = rsink_state_time(state, sink->id, Anum_state_retained_from, NULL);

	LWLockAcquire(&slots->lock, LW_EXCLUSIVE);
	for (int i = 0; i < rsink_max_sinks && found == NULL; i++)
	{
		RsinkShared *shared = &slots->slot[i];

		if (shared->db == MyDatabaseId && shared->seen == sink->seen)
			found = shared;
		else if (!OidIsValid(shared->db) && unused == NULL)
			unused = shared;
	}
	if (found == NULL && unused != NULL)
	{
		LWLockAcquire(&unused->lock, LW_EXCLUSIVE);
		slot_reset(unused, MyDatabaseId, sink->seen);
		LWLockRelease(&unused->lock);
		found = unused;
	}
	LWLockRelease(&slots->lock);
	if (found != NULL)
	{
		LWLockAcquire(&found->lock, LW_EXCLUSIVE);
		if (found->seen == sink->seen)
		{
			found->horizon = Max(found->horizon, horizon);
			found->retained_from = Max(found->retained_from, retained_from);
		}
		LWLockRelease(&found->lock);
	}
	return found;
}

/* The highest sequence number in a column of a table, whoever wrote it. */
static int64
highest_sequence(Oid relid, int attnum, int32 sink_id)
{
	Relation	rel = table_open(relid, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, SnapshotAny, 0, NULL);
	TupleDesc	desc = RelationGetDescr(rel);
	int64		highest = 0;
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		if (sink_id == 0 ||
			DatumGetInt32(heap_getattr(tuple, Anum_offset_sink_id, desc, &isnull)) == sink_id)
			highest = Max(highest, DatumGetInt64(heap_getattr(tuple, attnum, desc, &isnull)));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return highest;
}

/*
 * See that rsink_next_sequence() goes on from the numbers in the tables: after
 * a restart, or on another machine, the clock may be behind them.
 */
static void
start_sequence(const RsinkSink *sink, RsinkShared *shared)
{
	int64		highest = highest_sequence(rsink_catalog_relid("committed_offset"),
										   Anum_offset_sequence, sink->id);
	uint64		old = 0;

	if (sink->totals)
	{
		highest = Max(highest, highest_sequence(sink->delta, Anum_version_sequence, 0));
		highest = Max(highest, highest_sequence(sink->total, Anum_version_sequence, 0));
	}
	(void) pg_atomic_compare_exchange_u64(&shared->last_sequence, &old, Max(highest, 1));
}

/*
 * The same, but the slots of sinks that are gone are given back first if need
 * be. Raises configuration_limit_exceeded when all are taken for good.
 */
RsinkShared *
rsink_shared_attach(const RsinkSink *sink)
{
	RsinkShared *found = slot_find(sink);

	if (found == NULL)
	{
		rsink_release_gone();
		release_gone_databases();
		found = slot_find(sink);
	}
	if (found == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("this server has no room for another sink"),
				 errdetail("All %d places are taken.", rsink_max_sinks),
				 errhint("Raise revenue_sink.max_sinks and restart the server.")));
	if (pg_atomic_read_u64(&found->last_sequence) == 0)
		start_sequence(sink, found);
	return found;
}

/* Do callers wait for the worker of this database, to build an index that takes it? */
bool
rsink_shared_is_waited_for(Oid db)
{
	bool		waited_for = false;

	for (int i = 0; i < rsink_max_sinks && !waited_for; i++)
	{
		RsinkShared *shared = &slots->slot[i];

		LWLockAcquire(&shared->lock, LW_SHARED);
		waited_for = shared->db == db && shared->short_of_memory;
		LWLockRelease(&shared->lock);
	}
	return waited_for;
}

/* A number that changes when the sinks of this database are used. */
uint64
rsink_shared_activity(Oid db)
{
	uint64		sum = 0;

	for (int i = 0; i < rsink_max_sinks; i++)
	{
		RsinkShared *shared = &slots->slot[i];

		/* a hint: whose slot it is may change while we read */
		if (shared->db != db)
			continue;
		for (int j = 0; j < RSINK_NSTATS; j++)
			sum += pg_atomic_read_u64(&shared->stat[j]);
	}
	return sum;
}

/* Give back all slots of a database that is gone. */
void
rsink_release_database(Oid db)
{
	slots_release(db, InvalidOid);
}

/* Whose is slot number i? InvalidOid past the last or if it's nobody's. */
Oid
rsink_shared_database(int slot)
{
	Oid			db;

	LWLockAcquire(&slots->lock, LW_SHARED);
	db = slot < rsink_max_sinks ? slots->slot[slot].db : InvalidOid;
	LWLockRelease(&slots->lock);
	return db;
}

/*
 * A number higher than any this sink gave before, roughly the time in
 * microseconds: a hybrid logical clock, so that it grows through restarts. If
 * previous isn't NULL it gets the number given before.
 */
int64
rsink_next_sequence(RsinkSink *sink, int64 *previous)
{
	pg_atomic_uint64 *last = &sink->shared->last_sequence;
	uint64		old = pg_atomic_read_u64(last);
	uint64		next;

	do
	{
		next = Max(old + 1, (uint64) GetCurrentTimestamp());
	} while (!pg_atomic_compare_exchange_u64(last, &old, next));
	if (previous)
		*previous = (int64) old;
	return (int64) next;
}
