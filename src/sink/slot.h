/*-------------------------------------------------------------------------
 *
 * slot.h
 *	  The sinks' slots in shared memory, and the locks of this extension.
 *
 * Locks, in the order in which one process may take them:
 *
 * 1. The maintenance lock of a sink, a heavyweight lock to the end of the
 *	  transaction (lock.c). The worker, merge(), expire(), adopt_sink() and imports
 *	  take it before anything else of the sink. No writer ever does.
 * 2. The lock of a job's name, likewise (epoch.c), by open_writer() and recover().
 * 3. The lock under which one prepared batch is finished, likewise (prepared.c).
 * 4. Locks on tables: RowExclusiveLock by writers and the worker, AccessShareLock by
 *	  readers, AccessExclusiveLock by drop_sink() and updates (lock.c). All tables
 *	  that a hold of the sink lock needs are open before it begins.
 * 5. The slots lock, an LWLock: who has which slot. It is held for a few fields.
 * 6. The sink lock, an LWLock per slot: events are checked and claimed under it,
 *	  exclusively, for a bounded number of events per hold (seen.c, totals.c); the
 *	  horizon and the limit of what is kept are raised under it (expire.c). Whoever
 *	  holds it takes buffer locks and writes WAL, and waits for no transaction.
 * 7. The slices lock, an LWLock per slot: which slices are asked, and their memory
 *	  (slice.c). Writers hold it in share mode, without the sink lock, and read
 *	  nothing from disk meanwhile.
 * 8. Spinlocks, for a few instructions: of the pool that all sinks share (pool.c),
 *	  and of the launcher's list of databases (launcher.c).
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_SLOT_H
#define RSINK_SLOT_H

#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/block.h"
#include "storage/lwlock.h"

#include "apply/event.h"
#include "apply/watch.h"
#include "seen/run.h"
#include "seen/seen_index.h"
#include "seen/slice.h"

/* Counters of stat_sink: the six statuses, then batches. */
#define RSINK_STAT_BATCHES RSINK_NSTATUS
#define RSINK_NSTATS (RSINK_NSTATUS + 1)

/* Bytes of the message of the worker's last error that are kept, with the 0 at their end. */
#define RSINK_ERROR_MESSAGE_SIZE 256

/*
 * What a sink keeps in shared memory. All of it is a hint or can be had again
 * from the tables. What protects a field stands at the field or its group; "a hint"
 * may also be read without the lock, by a reader whom an old value does no harm.
 */
typedef struct RsinkShared
{
	/* Whose slot: written under the slots lock and the sink lock, read under either. */
	Oid			db;				/* also a hint */
	Oid			seen;			/* the page table: no two sinks ever share it */

	LWLock		lock;			/* the sink lock */

	/* The index and its build: the sink lock, exclusively. */
	RsinkIndex	index;
	Oid			relfile;		/* file of the page table that the index describes */
	bool		built;			/* are all rows of that file in the index? Also a hint */
	bool		overflows;		/* there was no memory for all of them: rows are sealed before the
								 * worker builds again; also a hint */
	RsinkRuns	runs;			/* page rows without entries; read also with the lock in share
								 * mode */
	TransactionId foreign_xid;	/* inserts rows past us, as a restore does, */
	BlockNumber foreign_block;	/* from this block on */
	BlockNumber total_blocks;	/* of the build under way */
	BlockNumber next_block;		/* the build has done the blocks before */
	BlockNumber known_blocks;	/* length of the file when last looked at; also a hint */

	RsinkSlices slices;			/* sealed slices, which say themselves what protects them */

	/* What is too old: the sink lock, exclusively; only the holder of the
	 * maintenance lock raises the first two. */
	TimestampTz horizon;		/* event times up to it are late */
	TimestampTz retained_from;	/* buckets before it are removed */
	TimestampTz low_claim;		/* least event time, or minute in mode 'totals',
								 * claimed since it was reset */

	/* What people have resolved: the sink lock, exclusively; also a hint. */
	uint64		resolutions;	/* grows with each commit of a transaction that resolves */
	RsinkWatch	watch;			/* resolved events, which may come again */

	/* What the worker did last: the sink lock. */
	TimestampTz last_round;		/* when it ended a round without an error; 0: not since the start */
	TimestampTz last_error;		/* when a round failed; 0: none has since the start */
	int			error_sqlstate; /* of that error, */
	char		error_message[RSINK_ERROR_MESSAGE_SIZE];	/* cut between two characters */

	/* Atomic. */
	pg_atomic_uint32 small_rows;	/* page rows inserted since the last packing, roughly */
	pg_atomic_uint64 last_sequence; /* for rsink_next_sequence() */
	pg_atomic_uint64 stat[RSINK_NSTATS];
	pg_atomic_uint64 last_merge;	/* a TimestampTz; 0: none since the start */

	/* Written once, before the slot is anybody's. */
	TimestampTz stats_since;
} RsinkShared;

/* Bytes of the pool, by what they are for. */
typedef struct RsinkBytes
{
	Size		hot;			/* the index and runs */
	Size		filters;		/* tables of tags, which filter the slices, and of resolved events */
	Size		fences;
} RsinkBytes;

struct RsinkSink;

extern int	rsink_max_sinks;

extern bool rsink_is_preloaded(void);
extern void rsink_require_preload(void);
extern void rsink_ask_for_adoption(void);
extern Oid	rsink_adoption_database(void);
extern uint32 rsink_adoptions_asked(void);
extern Size rsink_shared_size(void);
extern void rsink_shared_init(void);
extern RsinkShared *rsink_shared_attach(const struct RsinkSink *sink);
extern void rsink_shared_unload(Oid seen);
extern void rsink_shared_note_round(Oid seen, const ErrorData *error);
extern void rsink_release_gone(void);
extern void rsink_release_database(Oid db);
extern Oid	rsink_shared_database(int slot);
extern uint64 rsink_shared_activity(Oid db);
extern void rsink_shared_bytes(RsinkShared *shared, RsinkBytes *bytes);
extern int	rsink_shared_bytes_of_all(RsinkBytes *bytes);
extern int64 rsink_next_sequence(struct RsinkSink *sink, int64 *previous);

#endif							/* RSINK_SLOT_H */
