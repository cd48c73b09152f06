/*-------------------------------------------------------------------------
 *
 * seal.c
 *	  Sealing: events that are no longer hot go from the index into a sealed slice.
 *
 * Each event that is hot takes an entry of the index in shared memory, which is what
 * makes the index big, and slow for the caches of the CPU. So the oldest page rows are
 * merged into a slice: rows that are sorted by fingerprint. What leads to these rows
 * (slice.c) takes much less memory.
 *
 * The slice is made in one transaction, which also deletes the page rows; shared
 * memory learns of the slice just before that transaction commits, and the entries of
 * the page rows leave the index right after. So at every instant an event is found in
 * a page row, in a row of the slice, or in both:
 *
 *	- Before the commit the page rows still count, and whoever meets a row of
 *	  the slice sees that it is unfinished.
 *	- Whoever asked the slices before shared memory learned of this one, and
 *	  takes the sink lock afterwards, notices by the generation of the slices
 *	  that one has come, and asks again.
 *	- If the transaction fails after all, shared memory knows of a slice that has
 *	  no rows, which does no harm and is put right by the next refresh.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "apply/event.h"
#include "apply/fingerprint.h"
#include "core/catalog.h"
#include "core/compat.h"
#include "core/memory.h"
#include "core/spi_util.h"
#include "seen/expire.h"
#include "seen/filter.h"
#include "seen/piece.h"
#include "seen/pool.h"
#include "seen/seal.h"
#include "seen/sealed.h"
#include "seen/seen.h"
#include "seen/seen_index.h"
#include "seen/seen_lookup.h"
#include "seen/seen_page.h"
#include "seen/slice.h"
#include "seen/slice_load.h"
#include "seen/slice_write.h"
#include "sink/choice.h"
#include "sink/sink.h"
#include "sink/slot.h"

/* The most events that one slice gets, and so one transaction moves. */
#define SEAL_EVENTS		INT64CONST(1000000)

/*
 * Sealing begins when the index has so many events that a slice of SEAL_EVENTS can be
 * made of them, but within these parts of the pool; and it leaves a part of these events.
 */
#define SEAL_ABOVE_LEAST	(1.0 / 20)
#define SEAL_ABOVE_MOST		(1.0 / 4)
#define SEAL_LEAVE			(1.0 / 4)
#define ENTRY_BYTES			13	/* of the index, with what is free */

/* The parts of the pool between which slices leave one to the index. */
#define RESERVE_LEAST		(1.0 / 16)
#define RESERVE_MOST		(1.0 / 4)

/* A slice has this part at least of the events that it could get. */
#define SEAL_LEAST		(1.0 / 4)

/* What goes into a slice. */
typedef struct Harvest
{
	RsinkKey   *keys;			/* position is that of the page row below */
	int			nkeys;
	ItemPointerData *tids;		/* page rows */
	int			nrows;
	int			nsmall;			/* how many of these are small */
	TimestampTz newest;
	TimestampTz own_newest;		/* without imported events; DT_NOBEGIN if all are imported */
} Harvest;

/*
 * Collect the oldest page rows that are committed, with "most" events at most.
 */
static void
harvest(RsinkSeen *seen, int64 most, Harvest *h)
{
	Relation	rel = seen->pages.rel;
	Relation	index = rsink_table_open_index(&seen->pages, Anum_seen_newest);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	int			room = 1024;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	/* the next slice needs as much */
	rsink_keep_memory(rsink_seal_most() * sizeof(RsinkKey));
	memset(h, 0, sizeof(Harvest));
	h->newest = h->own_newest = DT_NOBEGIN;
	h->keys = palloc_extended(most * sizeof(RsinkKey), MCXT_ALLOC_HUGE);
	h->tids = palloc(room * sizeof(ItemPointerData));

	/* the arrival row, whose time is before all times, stays */
	ScanKeyInit(&key, Anum_seen_newest, BTGreaterStrategyNumber, F_TIMESTAMPTZ_GT,
				TimestampTzGetDatum(DT_NOBEGIN));
	scan = systable_beginscan_ordered(rel, index, snapshot, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext_ordered(scan, ForwardScanDirection)))
	{
		RsinkPage	page;

		CHECK_FOR_INTERRUPTS();
		rsink_page_deform(RelationGetDescr(rel), tuple, &page);
		if (h->nkeys + page.n > most)
			break;
		if (h->nrows == room)
			h->tids = repalloc_huge(h->tids, (room *= 2) * sizeof(ItemPointerData));
		for (int i = 0; i < page.n; i++)
		{
			rsink_page_key(&page, i, &h->keys[h->nkeys].fp);
			h->keys[h->nkeys++].position = h->nrows;
		}
		h->nsmall += page.n < RSINK_SMALL_ROW;
		h->newest = Max(h->newest, page.newest);
		if (page.oldest != RSINK_IMPORTED_OLDEST)
			h->own_newest = Max(h->own_newest, page.newest);
		h->tids[h->nrows++] = tuple->t_self;
	}
	systable_endscan_ordered(scan);
	UnregisterSnapshot(snapshot);
}

/* Delete the page rows, whose entries leave the index after the commit. */
static void
delete_rows(RsinkSeen *seen, const Harvest *h)
{
	rsink_forget_entries(seen->sink, h->keys, h->nkeys, h->tids);
	rsink_seen_deleting = true;
	for (int i = 0; i < h->nrows; i++)
	{
		CHECK_FOR_INTERRUPTS();
		CatalogTupleDelete(seen->pages.rel, &h->tids[i]);
	}
	pg_atomic_fetch_sub_u32(&seen->shared->small_rows,
							Min(pg_atomic_read_u32(&seen->shared->small_rows), (uint32) h->nsmall));
}

/*
 * The number of events in the index at which sealing begins. While there is little
 * memory left, every sink makes do with little.
 */
double
rsink_hot_limit(void)
{
	double		slice = SEAL_EVENTS / (1 - SEAL_LEAVE) * ENTRY_BYTES;
	double		least = rsink_pool_bytes() * SEAL_ABOVE_LEAST;
	double		most = rsink_pool_bytes() * SEAL_ABOVE_MOST;

	if (rsink_pool_free() < rsink_slice_reserve() / 2)
		most = least;
	return Max(least, Min(slice, most)) / ENTRY_BYTES;
}

/* The most events that a slice has, in a pool of this size. */
int64
rsink_seal_most(void)
{
	double		most = rsink_pool_bytes() * SEAL_ABOVE_MOST / ENTRY_BYTES * (1 - SEAL_LEAVE);

	return Min(SEAL_EVENTS, (int64) most);
}

/* The part of the pool that slices leave to the index, for what comes while others are sealed. */
double
rsink_slice_reserve(void)
{
	double		part = SEAL_EVENTS * (double) ENTRY_BYTES / rsink_pool_bytes();

	return Max(RESERVE_LEAST, Min(RESERVE_MOST, part));
}

/* How many events are to be sealed now, at most; 0 if none. */
static int64
to_be_sealed(const RsinkShared *shared)
{
	double		entries = (double) shared->index.nentries + (double) shared->runs.events;

	if (shared->slices.n >= RSINK_MAX_SLICES - 1)
		return 0;
	if (shared->overflows)
		return rsink_seal_most();	/* which makes room for a build */
	if (!shared->built || entries <= rsink_hot_limit())
		return 0;
	return Min(rsink_seal_most(), (int64) (entries - rsink_hot_limit() * SEAL_LEAVE));
}

/*
 * Seal the oldest events that are committed, if the index takes too much memory.
 * Returns how many were sealed; 0 also if most of them are unfinished. The current
 * transaction must do nothing else, and commit right after. Caller holds the
 * maintenance lock.
 */
int64
rsink_seal(RsinkSink *sink)
{
	int64		most = sink->mode == RSINK_TOTALS ? 0 : to_be_sealed(sink->shared);
	MemoryContext context;
	MemoryContext old;
	RsinkSeen	seen;
	Harvest		h;
	int64		sealed = 0;

	if (most == 0)
		return 0;
	/* the rows' entries leave the index when the transaction has committed */
	context = AllocSetContextCreate(TopTransactionContext, "revenue_sink seal", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	rsink_seen_begin(&seen, sink, false);
	harvest(&seen, most, &h);
	if (h.nkeys >= most * SEAL_LEAST)
	{
		RsinkSliceWriter writer;

		rsink_sort_many_keys(h.keys, h.nkeys);
		rsink_slice_begin(&writer, sink, h.nkeys);
		rsink_slice_add(&writer, h.keys, h.nkeys);
		rsink_slice_end(&writer, h.newest, h.own_newest);
		delete_rows(&seen, &h);
		rsink_slice_publish(&writer, h.keys);
		sealed = h.nkeys;
	}
	rsink_seen_end(&seen);
	MemoryContextSwitchTo(old);
	return sealed;
}

/*
 * Delete one slice all of whose events are behind the horizon. Returns how many rows
 * that were, and adds the number of their events to *events. Shared memory forgets the
 * slice at the next refresh; until then it leads to rows that are gone. Caller is
 * connected by rsink_spi_begin() and holds the maintenance lock.
 */
int64
rsink_expire_slice(RsinkSink *sink, TimestampTz horizon, int64 *events)
{
	int32		number;

	rsink_spi(SPI_OK_SELECT, "SELECT slice, events FROM revenue_sink.%s WHERE slice > 0 AND newest <= '%s' "
			  "ORDER BY newest, slice LIMIT 1", get_rel_name(sink->slice), timestamptz_to_str(horizon));
	if (SPI_processed == 0)
		return 0;
	number = (int32) rsink_spi_int64(0, 1, 0);
	*events += rsink_spi_int64(0, 2, 0);
	return rsink_slice_delete(sink, number);
}
