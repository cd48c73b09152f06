/*-------------------------------------------------------------------------
 *
 * watch.c
 *	  Which events a sink watches for: the resolved ones, so that none counts again.
 *
 * An event that a person has resolved may come again at any time, with any event_time,
 * long after the seen events have forgotten it. So the fingerprints of all resolved
 * events are in a filter in shared memory, and only an event that the filter has is
 * looked up in resolved_event. Other events pay a look at one cache line for this, and
 * nothing in a sink that has no resolutions.
 *
 * The filter begins with a layer for a few hundred events in the sink's slot. When a
 * layer has no room left, a larger one is taken from the pool, and all layers are asked.
 * No layer is ever given back, as resolutions stay for good. Where the pool has no room,
 * each event is looked up, which is slow and right.
 *
 * After a restart the filter is loaded from the table. Whoever needs the filter loads it
 * if the table is small. If it is large, that is left to the worker, and until then each
 * event is looked up.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "apply/encoding.h"
#include "apply/fingerprint.h"
#include "apply/watch.h"
#include "core/catalog.h"
#include "core/compat.h"
#include "sink/choice.h"
#include "sink/sink.h"
#include "sink/slot.h"

/* Events per line: 32 bits each, so that hardly any other event is looked up. */
#define EVENTS_PER_LINE 16

/* The free part of the pool that a layer leaves to the seen events. */
#define POOL_RESERVE	0.25

/* A table of at most so many pages, which are read in some milliseconds, is small. */
#define SMALL_TABLE		256

/* The most fingerprints that are entered in one hold of the sink lock. */
#define HOLD_EVENTS		1000

/* The lines of the first layer. */
static inline uint64 *
first_line(const RsinkWatch *watch, const RsinkFingerprint *fp)
{
	return (uint64 *) watch->first + rsink_filter_line(fp, RSINK_WATCH_LINES) * RSINK_LINE_WORDS;
}

/* The line of a fingerprint in a layer after the first one. */
static inline uint64 *
layer_line(const RsinkExtent *layer, const RsinkFingerprint *fp)
{
	return rsink_extent_line(layer, rsink_filter_line(fp, layer->nlines));
}

/* Does a sink watch for this event? True if that isn't known. Needs no lock. */
bool
rsink_watch_has(const RsinkWatch *watch, const RsinkFingerprint *fp)
{
	int			nlayers = watch->nlayers;

	if (!watch->loaded || watch->full)
		return true;
	pg_read_barrier();			/* pairs with that of add_layer() */
	if (rsink_filter_has(first_line(watch, fp), fp))
		return true;
	for (int i = 0; i < nlayers; i++)
		if (rsink_filter_has(layer_line(&watch->layer[i], fp), fp))
			return true;
	return false;
}

/* Take memory for another layer. False: there is none. Caller holds the sink lock. */
static bool
add_layer(RsinkWatch *watch)
{
	uint32		nlines = RSINK_WATCH_LINES;

	for (int i = 0; i <= watch->nlayers; i++)
		nlines *= RSINK_WATCH_GROWTH;
	if (watch->nlayers == RSINK_WATCH_LAYERS ||
		!rsink_extent_allocate(&watch->layer[watch->nlayers], 0, nlines, POOL_RESERVE))
		return false;
	watch->room = (int64) nlines * EVENTS_PER_LINE;
	pg_write_barrier();
	watch->nlayers++;
	return true;
}

/* Watch for an event. Caller holds the sink lock exclusively. */
static void
add_event(RsinkWatch *watch, const RsinkFingerprint *fp)
{
	bool		known = rsink_filter_has(first_line(watch, fp), fp);

	for (int i = 0; i < watch->nlayers && !known; i++)
		known = rsink_filter_has(layer_line(&watch->layer[i], fp), fp);
	if (known || watch->full)
		return;
	if (!watch->any)
		watch->room = RSINK_WATCH_LINES * EVENTS_PER_LINE;
	watch->any = true;
	if (watch->room == 0 && !add_layer(watch))
	{
		watch->full = true;
		return;
	}
	watch->room--;
	rsink_filter_set(watch->nlayers == 0 ? first_line(watch, fp) : layer_line(&watch->layer[watch->nlayers - 1], fp), fp);
}

/* Forget all events. Caller holds the slots lock and the sink lock. */
void
rsink_watch_reset(RsinkWatch *watch)
{
	for (int i = 0; i < watch->nlayers; i++)
		rsink_extent_free(&watch->layer[i]);
	memset(watch, 0, sizeof(RsinkWatch));
}

/* The memory of the pool that the layers take, in bytes. */
Size
rsink_watch_bytes(const RsinkWatch *watch)
{
	Size		bytes = 0;

	for (int i = 0; i < watch->nlayers; i++)
		bytes += rsink_extent_bytes(&watch->layer[i]);
	return bytes;
}

/* Watch for n events. Takes the sink lock. */
static void
add_events(const RsinkSink *sink, const RsinkFingerprint *fps, int n)
{
	LWLockAcquire(&sink->shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < n; i++)
		add_event(&sink->shared->watch, &fps[i]);
	LWLockRelease(&sink->shared->lock);
}

/* Watch for all events of committed rows. Takes the sink lock, now and then. */
static void
load(const RsinkSink *sink, Relation rel)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleDesc	desc = RelationGetDescr(rel);
	RsinkFingerprint *fps = palloc(HOLD_EVENTS * sizeof(RsinkFingerprint));
	MemoryContext row = AllocSetContextCreate(CurrentMemoryContext, "revenue_sink watch", ALLOCSET_DEFAULT_SIZES);
	int			n = 0;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_resolved_sink_id, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(sink->id));
	scan = systable_beginscan(rel, rsink_table_index(rel, Anum_resolved_sink_id), true, snapshot, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		Datum		order_id = heap_getattr(tuple, Anum_resolved_order_id, desc, &isnull);
		MemoryContext old;

		CHECK_FOR_INTERRUPTS();
		if (isnull)
			continue;			/* no event can have the ids of that one */
		old = MemoryContextSwitchTo(row);
		if (rsink_event_identity(sink, DatumGetTextPP(order_id),
								 DatumGetTextPP(heap_getattr(tuple, Anum_resolved_event_id, desc, &isnull)), &fps[n]))
			n++;
		MemoryContextSwitchTo(old);
		MemoryContextReset(row);
		if (n == HOLD_EVENTS)
		{
			add_events(sink, fps, n);
			n = 0;
		}
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	add_events(sink, fps, n);
	pfree(fps);
	MemoryContextDelete(row);
	LWLockAcquire(&sink->shared->lock, LW_EXCLUSIVE);
	sink->shared->watch.loaded = true;
	LWLockRelease(&sink->shared->lock);
}

/* Load what a sink watches for, if that is not loaded and the table of it is small. */
void
rsink_watch_load(const RsinkSink *sink)
{
	Relation	rel;

	if (sink->shared->watch.loaded)
		return;
	rel = table_open(rsink_catalog_relid("resolved_event"), AccessShareLock);
	if (RelationGetNumberOfBlocks(rel) <= SMALL_TABLE)
		load(sink, rel);
	table_close(rel, NoLock);
}

/*
 * The worker's part: load what a sink watches for, however much that is, and look
 * whether there is memory by now for what there was none for.
 */
void
rsink_watch_tend(const RsinkSink *sink)
{
	RsinkWatch *watch = &sink->shared->watch;
	Relation	rel;

	if (watch->full)
	{
		LWLockAcquire(&sink->shared->lock, LW_EXCLUSIVE);
		if (add_layer(watch))
			watch->full = watch->loaded = false;
		LWLockRelease(&sink->shared->lock);
	}
	if (watch->loaded)
		return;
	rel = table_open(rsink_catalog_relid("resolved_event"), AccessShareLock);
	load(sink, rel);
	table_close(rel, NoLock);
}

/*
 * Watch for the event with these ids, which is being resolved. Takes the sink lock. A
 * rollback leaves the bits set, which costs look-ups.
 */
void
rsink_watch_event(const RsinkSink *sink, const text *order_id, const text *event_id)
{
	RsinkFingerprint fp;

	if (rsink_event_identity(sink, order_id, event_id, &fp))
		add_events(sink, &fp, 1);
}
