/*-------------------------------------------------------------------------
 *
 * sink.h
 *	  The sinks: what the catalog says of them, and their shared memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_SINK_H
#define RSINK_SINK_H

#include "access/tupdesc.h"
#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/block.h"
#include "storage/lwlock.h"
#include "utils/relcache.h"

#include "batch.h"
#include "seen_index.h"

/* Counters of stat_sink: the six statuses, then batches. */
#define RSINK_STAT_BATCHES RSINK_NSTATUS
#define RSINK_NSTATS (RSINK_NSTATUS + 1)

/*
 * What a sink keeps in shared memory. All of it is a hint or can be had again
 * from the tables. Fields below "lock" are protected by it, the atomics aside.
 */
typedef struct RsinkShared
{
	Oid			db;				/* with seen: whose; protected by slots lock */
	Oid			seen;			/* the page table: no two sinks ever share it */
	LWLock		lock;			/* the section: check and claim */

	RsinkIndex	index;
	Oid			relfile;		/* file of the page table this describes */
	bool		built;			/* are all rows of that file in the index? */
	bool		short_of_memory;	/* the build waits for the worker */
	bool		spilling;		/* the worker's spilled rows aren't committed yet */
	TransactionId foreign_xid;	/* inserts rows past us, as a restore does, */
	BlockNumber foreign_block;	/* from this block on */
	bool		spilled;		/* does the spill table have rows? */
	uint64		spill_generation;	/* grows with each row that comes into it */
	BlockNumber total_blocks;	/* of the build under way */
	BlockNumber next_block;		/* the build has done the blocks before */
	uint32		small_rows;		/* inserted since the last packing */
	BlockNumber known_blocks;	/* length of the file when last looked at */

	TimestampTz horizon;		/* event times up to it are late */
	TimestampTz retained_from;	/* buckets before it are removed */
	TimestampTz low_claim;		/* least event time, or minute in mode 'totals',
								 * claimed since reset */

	pg_atomic_uint64 last_sequence; /* for rsink_next_sequence() */
	pg_atomic_uint64 stat[RSINK_NSTATS];
	TimestampTz stats_since;
	TimestampTz last_merge;
} RsinkShared;

/*
 * Why a sink takes no events, and why the worker leaves it alone. It may be
 * read in some of these states; see rsink_sink_lookup().
 */
typedef enum RsinkProblem
{
	RSINK_READY,				/* no problem */
	RSINK_OLD,					/* the tables are of an older version */
	RSINK_BROKEN,				/* a relation is gone, or somebody else's */
	RSINK_FOREIGN,				/* this server would hash its events otherwise */
	RSINK_COPY,					/* a subscription writes to it */
	RSINK_ASLEEP				/* its rows came by a restore: see home.c */
} RsinkProblem;

/*
 * A row of the sink catalog, cached in the backend. Relations that are gone, or
 * aren't the sink's own, are InvalidOid.
 */
typedef struct RsinkSink
{
	char		name[NAMEDATALEN];	/* key of the cache */
	int32		id;
	bool		valid;			/* false: read the catalog again */
	bool		totals;			/* mode 'totals' */
	bool		apply_late;		/* late_policy 'apply' */
	bool		reject_bad;		/* on_bad_event 'reject' */
	RsinkProblem problem;
	Oid			subscription;	/* that writes to it, or InvalidOid */
	int			encoding;		/* in which text is hashed; -1: not known */
	Oid			conversion;		/* the function that converts text to that, or
								 * InvalidOid where text is hashed as it is */
	Oid			fact;
	Oid			ingest;
	Oid			seen;
	Oid			spill;
	Oid			delta;
	Oid			total;
	int64		bucket;			/* microseconds */
	int64		dedup_window;	/* microseconds */
	int64		max_future;		/* microseconds */
	int64		retain;			/* microseconds; 0: for ever */
	unsigned char key[RSINK_HASH_KEY_BYTES];
	RsinkShared *shared;
} RsinkSink;

/* What the caller must be allowed to do with a sink. */
typedef enum RsinkRight
{
	RSINK_MAY_ANYTHING,			/* no check: internal use */
	RSINK_MAY_APPLY,			/* INSERT on the ingest view */
	RSINK_MAY_READ,				/* SELECT on the fact view, or one of the others */
	RSINK_MAY_LOOK,				/* the same, whatever state the sink is in */
	RSINK_IS_OWNER				/* owns the ingest view */
} RsinkRight;

extern int	rsink_max_sinks;

/* sink_shared.c */
extern bool rsink_is_preloaded(void);
extern void rsink_require_preload(void);
extern void rsink_ask_for_adoption(void);
extern Oid	rsink_adoption_database(void);
extern uint32 rsink_adoptions_asked(void);
extern Size rsink_shared_size(void);
extern void rsink_shared_init(void);
extern RsinkShared *rsink_shared_attach(const RsinkSink *sink);
extern void rsink_release_gone(void);
extern void rsink_release_database(Oid db);
extern Oid	rsink_shared_database(int slot);
extern bool rsink_shared_is_waited_for(Oid db);
extern uint64 rsink_shared_activity(Oid db);
extern int64 rsink_next_sequence(RsinkSink *sink, int64 *previous);

/* sink.c */
extern RsinkSink *rsink_sink_lookup(const char *name, RsinkRight right);
extern RsinkSink *rsink_sink_lookup_finishing(const char *name, RsinkRight right);
extern RsinkSink *rsink_sink_lookup_owned(const char *name);
extern RsinkSink *rsink_sink_find(const char *name);
extern bool rsink_owns_extension(void);
extern bool rsink_may_dispose(const RsinkSink *sink);
extern bool rsink_tables_are_old(void);
extern RsinkSink *rsink_sink_by_id(int32 id);
extern RsinkSink *rsink_sink_by_ingest(Oid relid, int32 id);
extern bool rsink_sink_allows(const RsinkSink *sink, RsinkRight right);
extern void rsink_sink_require_mode(const RsinkSink *sink, bool totals);
extern void rsink_sink_changed(void);
extern int64 rsink_interval_usecs(const Interval *interval, const char *what);
extern void rsink_init_sink(void);

#endif							/* RSINK_SINK_H */
