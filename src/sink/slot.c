/*-------------------------------------------------------------------------
 *
 * slot.c
 *	  The sinks' slots in shared memory.
 *
 * A sink takes a slot when a backend first uses the sink. The slot is released when
 * the sink, or its database, has been dropped. Everything in a slot is a hint or can
 * be read again from the sink's tables.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/shmem.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "seen/seen_index.h"
#include "seen/slice.h"
#include "sink/choice.h"
#include "sink/sink.h"
#include "sink/slot.h"

/* All slots, in shared memory. */
typedef struct Slots
{
	LWLock		lock;			/* the slots lock: protects which sink has which slot */
	pg_atomic_uint32 adoptions_asked;	/* calls of rsink_ask_for_adoption() */
	pg_atomic_uint32 adoption_db;	/* database of the last such call */
	RsinkShared slot[FLEXIBLE_ARRAY_MEMBER];
} Slots;

int			rsink_max_sinks = 64;	/* the setting revenue_sink.max_sinks */

static Slots *slots;

/* Has the server loaded the library with shared_preload_libraries? */
bool
rsink_is_preloaded(void)
{
	return slots != NULL;
}

/* Raise object_not_in_prerequisite_state unless the library is preloaded. */
void
rsink_require_preload(void)
{
	if (slots == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("revenue_sink must be loaded via shared_preload_libraries"),
				 errhint("Add shared_preload_libraries = 'revenue_sink' to postgresql.conf and restart the server.")));
}

/* The size in bytes of the shared memory for the slots. */
Size
rsink_shared_size(void)
{
	return add_size(offsetof(Slots, slot), mul_size(rsink_max_sinks, sizeof(RsinkShared)));
}

/* Attach to the shared memory for the slots; the first process initializes it. */
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
		{
			LWLockInitialize(&slots->slot[i].lock, tranche);
			rsink_slices_init(&slots->slot[i].slices, tranche);
		}
	}
	LWLockRegisterTranche(slots->lock.tranche, "revenue_sink");
}

/* Ask the worker of the current database to look soon for sinks to adopt. */
void
rsink_ask_for_adoption(void)
{
	pg_atomic_write_u32(&slots->adoption_db, MyDatabaseId);
	(void) pg_atomic_fetch_add_u32(&slots->adoptions_asked, 1);
}

/*
 * The database in which rsink_ask_for_adoption() has been called last; InvalidOid if
 * nobody has called that function since the last call of this one.
 */
Oid
rsink_adoption_database(void)
{
	return pg_atomic_exchange_u32(&slots->adoption_db, InvalidOid);
}

/* A number that changes with each call of rsink_ask_for_adoption(). */
uint32
rsink_adoptions_asked(void)
{
	return pg_atomic_read_u32(&slots->adoptions_asked);
}

/*
 * Give a slot to the sink whose page table is "seen", or to nobody (InvalidOid), and
 * forget what is in the slot. Caller holds the slots lock and the sink lock.
 */
static void
slot_reset(RsinkShared *shared, Oid db, Oid seen)
{
	rsink_index_destroy(&shared->index);
	rsink_runs_reset(&shared->runs);
	rsink_slices_reset(&shared->slices);
	shared->db = db;
	shared->seen = seen;
	shared->relfile = InvalidOid;
	shared->built = shared->overflows = false;
	shared->foreign_xid = InvalidTransactionId;
	pg_atomic_init_u32(&shared->small_rows, 0);
	shared->next_block = shared->known_blocks = 0;
	shared->horizon = shared->retained_from = DT_NOBEGIN;
	shared->low_claim = DT_NOEND;
	shared->resolutions++;
	rsink_watch_reset(&shared->watch);
	shared->last_round = shared->last_error = 0;
	pg_atomic_init_u64(&shared->last_merge, 0);
	shared->stats_since = GetCurrentTimestamp();
	pg_atomic_init_u64(&shared->last_sequence, 0);
	for (int i = 0; i < RSINK_NSTATS; i++)
		pg_atomic_init_u64(&shared->stat[i], 0);
}

/*
 * Release the slot of a database's sink, which is given by its page table, or all
 * slots of the database if "seen" is InvalidOid.
 */
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
 * Have the slices of a sink listed anew that a restore may have brought, and the
 * resolved events that it watches for. The sink is given by its page table. Nobody
 * uses it yet.
 */
void
rsink_shared_unload(Oid seen)
{
	if (slots == NULL)
		return;
	LWLockAcquire(&slots->lock, LW_SHARED);
	for (int i = 0; i < rsink_max_sinks; i++)
	{
		RsinkShared *shared = &slots->slot[i];

		if (shared->db != MyDatabaseId || shared->seen != seen)
			continue;
		LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
		rsink_slices_reset(&shared->slices);
		shared->watch.loaded = false;
		LWLockRelease(&shared->lock);
	}
	LWLockRelease(&slots->lock);
}

/*
 * Note that the worker has ended a round for the sink with this page table, or, if
 * "error" isn't NULL, that the round has failed with it. Does nothing if the sink has
 * no slot.
 */
void
rsink_shared_note_round(Oid seen, const ErrorData *error)
{
	TimestampTz now = GetCurrentTimestamp();

	LWLockAcquire(&slots->lock, LW_SHARED);
	for (int i = 0; i < rsink_max_sinks; i++)
	{
		RsinkShared *shared = &slots->slot[i];

		if (shared->db != MyDatabaseId || shared->seen != seen)
			continue;
		LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
		if (error == NULL)
			shared->last_round = now;
		else
		{
			const char *message = error->message ? error->message : "";
			int			len = pg_mbcliplen(message, strlen(message), RSINK_ERROR_MESSAGE_SIZE - 1);

			shared->last_error = now;
			shared->error_sqlstate = error->sqlerrcode;
			memcpy(shared->error_message, message, len);
			shared->error_message[len] = '\0';
		}
		LWLockRelease(&shared->lock);
	}
	LWLockRelease(&slots->lock);
}

/*
 * Release the slots of those sinks of this database that have been dropped. A page
 * table that we don't see may also belong to a sink that is just being created. But
 * then its creator has a lock on the table, so we only release the slot of a table
 * that we can lock. Takes, and releases, AccessExclusiveLock without waiting.
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

/* Release the slots of all databases that have been dropped. */
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

/*
 * Find the slot of a sink, or take a free one for the sink; returns NULL if none is
 * free. The horizon and the limit in the slot become at least those of sink_state.
 */
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

/*
 * The highest sequence number in a column of a table, in rows of any transaction,
 * aborted ones included. Reads only rows of the sink with this number, or all rows
 * if the number is 0.
 */
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
 * Let rsink_next_sequence() start above the numbers in the tables: after a restart,
 * or on another machine, the clock may be behind these numbers.
 */
static void
start_sequence(const RsinkSink *sink, RsinkShared *shared)
{
	int64		highest = highest_sequence(rsink_catalog_relid("committed_offset"),
										   Anum_offset_sequence, sink->id);
	uint64		old = 0;

	if (sink->mode == RSINK_TOTALS)
	{
		highest = Max(highest, highest_sequence(sink->delta, Anum_version_sequence, 0));
		highest = Max(highest, highest_sequence(sink->total, Anum_version_sequence, 0));
	}
	(void) pg_atomic_compare_exchange_u64(&shared->last_sequence, &old, Max(highest, 1));
}

/*
 * Find the slot of a sink, or take one for the sink. If no slot is free, those of
 * dropped sinks and databases are released first. Raises
 * configuration_limit_exceeded if that doesn't help.
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
				 errmsg("this server has no free slot for another sink"),
				 errdetail("All %d slots are taken.", rsink_max_sinks),
				 errhint("Raise revenue_sink.max_sinks and restart the server.")));
	if (pg_atomic_read_u64(&found->last_sequence) == 0)
		start_sequence(sink, found);
	return found;
}

/* A number that changes whenever a sink of this database is used. */
uint64
rsink_shared_activity(Oid db)
{
	uint64		sum = 0;

	for (int i = 0; i < rsink_max_sinks; i++)
	{
		RsinkShared *shared = &slots->slot[i];

		/* read without a lock: the slot may change hands, but this is only a hint */
		if (shared->db != db)
			continue;
		for (int j = 0; j < RSINK_NSTATS; j++)
			sum += pg_atomic_read_u64(&shared->stat[j]);
	}
	return sum;
}

/*
 * Add the memory that the sink of a slot takes to what it is for. Caller holds the sink
 * lock, in share mode at least. Takes the slices lock in share mode.
 */
void
rsink_shared_bytes(RsinkShared *shared, RsinkBytes *bytes)
{
	bytes->hot += rsink_index_bytes(&shared->index) + rsink_runs_bytes(&shared->runs);
	rsink_slices_bytes(&shared->slices, &bytes->filters, &bytes->fences);
	bytes->filters += rsink_watch_bytes(&shared->watch);
}

/*
 * Add the memory that the sinks of all databases take to what it is for. Returns how
 * many sinks have a slot. Takes the sink locks in share mode, one after another.
 */
int
rsink_shared_bytes_of_all(RsinkBytes *bytes)
{
	int			taken = 0;

	for (int i = 0; i < rsink_max_sinks; i++)
	{
		RsinkShared *shared = &slots->slot[i];

		LWLockAcquire(&shared->lock, LW_SHARED);
		if (OidIsValid(shared->db))
		{
			taken++;
			rsink_shared_bytes(shared, bytes);
		}
		LWLockRelease(&shared->lock);
	}
	return taken;
}

/* Release all slots of a database that has been dropped. */
void
rsink_release_database(Oid db)
{
	slots_release(db, InvalidOid);
}

/*
 * The database of the sink that has this slot; InvalidOid if the slot is free or the
 * number is past the last slot. Takes the slots lock in shared mode.
 */
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
 * A number higher than any that this function has given for the sink before. It is a
 * hybrid logical clock: the time in microseconds, or one more than the number before
 * if that is higher, so that numbers grow across restarts. Unless previous is NULL,
 * *previous becomes the number that was given before this one. Takes no lock.
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
