/*-------------------------------------------------------------------------
 *
 * slice_load.c
 *	  Bringing the slices in shared memory in line with the tables.
 *
 * After a restart whoever comes first lists the slices, which is quick. From then on
 * answers are right, if slow, as each look-up of a fingerprint searches the index of
 * each slice's rows. The worker then loads what leads to the rows, one slice after
 * another, which makes answers faster and changes none.
 *
 * The worker seals, expires and refreshes under the maintenance lock, so the three
 * don't meet.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "seen/piece.h"
#include "seen/pool.h"
#include "seen/seal.h"
#include "seen/sealed.h"
#include "seen/slice.h"
#include "seen/slice_load.h"
#include "sink/sink.h"
#include "sink/slot.h"

/*
 * Read the rows of the sink's slices, as a snapshot sees them, into an array in the
 * current memory context. Takes AccessShareLock on their table for a moment. Raises
 * data_corrupted if they are more than a sink can have.
 */
RsinkSliceRow *
rsink_slices_read(const RsinkSink *sink, Snapshot snapshot, int *n)
{
	Relation	rel = table_open(sink->slice, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	RsinkSliceRow *slices = palloc(RSINK_MAX_SLICES * sizeof(RsinkSliceRow));
	HeapTuple	tuple;

	*n = 0;
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Datum		values[Natts_slice];
		bool		nulls[Natts_slice];

		heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
		if (DatumGetInt32(values[Anum_slice_slice - 1]) <= 0)
			continue;			/* the arrival row */
		if (*n == RSINK_MAX_SLICES)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("sink \"%s\" has more than %d slices", sink->name, RSINK_MAX_SLICES)));
		slices[*n].number = DatumGetInt32(values[Anum_slice_slice - 1]);
		slices[*n].events = DatumGetInt64(values[Anum_slice_events - 1]);
		slices[*n].newest = DatumGetTimestampTz(values[Anum_slice_newest - 1]);
		slices[*n].own_newest = nulls[Anum_slice_own_newest - 1] ? DT_NOBEGIN :
			DatumGetTimestampTz(values[Anum_slice_own_newest - 1]);
		slices[*n].nrows = (uint32) DatumGetInt32(values[Anum_slice_rows - 1]);
		slices[(*n)++].nlines = (uint32) DatumGetInt32(values[Anum_slice_lines - 1]);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return slices;
}

/* A slice that is cold and without fences. */
static RsinkSlice
bare_slice(const RsinkSliceRow *row)
{
	RsinkSlice	slice = {
		.number = row->number,.nlines = row->nlines,.group = -1,.extent = {.head = RSINK_NO_CHUNK}
	};

	return slice;
}

/* The slices as the latest snapshot sees them. */
static RsinkSliceRow *
read_latest(const RsinkSink *sink, int *n)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	RsinkSliceRow *slices = rsink_slices_read(sink, snapshot, n);

	UnregisterSnapshot(snapshot);
	return slices;
}

/*
 * List the sink's slices in shared memory, without fences and filters, unless they are
 * listed already. Takes AccessShareLock on the table of slices, and the sink lock.
 */
void
rsink_slices_load(RsinkSink *sink)
{
	RsinkSlices *slices = &sink->shared->slices;
	RsinkSliceRow *described;
	int			n;

	if (slices->loaded)
		return;
	described = read_latest(sink, &n);
	LWLockAcquire(&sink->shared->lock, LW_EXCLUSIVE);
	if (!slices->loaded && sink->shared->seen == sink->seen)
	{
		for (int i = 0; i < n; i++)
		{
			RsinkSlice	slice = bare_slice(&described[i]);

			rsink_slices_put(slices, &slice);
		}
		slices->loaded = true;
	}
	LWLockRelease(&sink->shared->lock);
	pfree(described);
}

/*
 * Read the rows of a slice: where they are, into its fences, and their fingerprints into
 * the slice's group, if it has one. Returns whether there are as many rows as fences.
 */
static bool
read_rows(RsinkSlices *slices, Relation rel, RsinkSlice *slice)
{
	RsinkKey	keys[RSINK_PAGE_MAX];
	Relation	index = index_open(rsink_table_index(rel, Anum_sealed_slice), AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	uint32		n = 0;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_sealed_slice, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(slice->number));
	scan = systable_beginscan_ordered(rel, index, snapshot, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext_ordered(scan, ForwardScanDirection)))
	{
		RsinkSealedRow row;

		CHECK_FOR_INTERRUPTS();
		rsink_sealed_deform(RelationGetDescr(rel), tuple, &row);
		if (n < slice->nrows)
			rsink_fence_set(rsink_extent_fence(&slice->extent, n), row.first, &tuple->t_self);
		for (int i = 0; i < row.page.n; i++)
			rsink_page_key(&row.page, i, &keys[i].fp);
		if (slice->group >= 0 && !rsink_group_enter(slices, slice, keys, row.page.n))
			slice->group = -1;
		n++;
	}
	systable_endscan_ordered(scan);
	UnregisterSnapshot(snapshot);
	index_close(index, AccessShareLock);
	return n == slice->nrows;
}

/*
 * Read the filter of the slice with this number, as a snapshot sees it, and pass each of
 * its pieces to a function, with the piece's lines; NULL if they are damaged. Takes
 * AccessShareLock on the table of filters for a moment.
 */
void
rsink_filter_read(const RsinkSink *sink, Snapshot snapshot, int32 number, RsinkTakePiece take, void *arg)
{
	Relation	rel = table_open(sink->filter, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_filter_slice, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(number));
	scan = systable_beginscan(rel, rsink_table_index(rel, Anum_filter_slice), true, snapshot, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		uint32		piece;
		uint32		nlines = 0;
		const char *lines;
		int32		slice;

		CHECK_FOR_INTERRUPTS();
		lines = rsink_piece_lines(tuple, RelationGetDescr(rel), &slice, &piece, &nlines);
		take(arg, piece, &tuple->t_self, lines, nlines);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/* Note where a piece of a slice's filter is. */
static void
take_piece(void *arg, uint32 piece, const ItemPointerData *tid, const char *lines, uint32 nlines)
{
	const RsinkSlice *slice = arg;

	if (piece < slice->extent.nfences - slice->nrows)
		rsink_fence_set(rsink_extent_fence(&slice->extent, slice->nrows + piece), (uint64) InvalidBuffer, tid);
}

/* Note where the pieces of a slice's filter are. */
static void
read_filter(const RsinkSink *sink, RsinkSlice *slice)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

	for (uint32 i = slice->nrows; i < slice->extent.nfences; i++)
		rsink_extent_fence(&slice->extent, i)->block = InvalidBlockNumber;
	rsink_filter_read(sink, snapshot, slice->number, take_piece, slice);
	UnregisterSnapshot(snapshot);
}

/*
 * Take memory for the fences of so many rows of a slice that isn't in the set yet, and of
 * the pieces of its filter. If there is no room for them, the slice is bare.
 */
void
rsink_slice_allocate(RsinkSlices *slices, RsinkSlice *slice, uint32 nrows)
{
	uint32		npieces = RSINK_FILTER_PIECES(slice->nlines);

	slice->group = -1;
	slice->nrows = 0;
	if (rsink_extent_allocate(&slice->extent, nrows + npieces, 0, 0))
		slice->nrows = nrows;
}

/*
 * Choose a group for a slice of so many events that isn't in the set yet, if there is room
 * in one; else the slice is cold. Only the holder of the maintenance lock may call this.
 */
void
rsink_slice_choose_group(RsinkSlices *slices, RsinkSlice *slice, int64 events)
{
	(void) rsink_group_open(slices, slice, events, rsink_seal_most(), rsink_slice_reserve());
}

/*
 * Load the fences of a slice into shared memory, as far as there is room, and put the
 * slice into a group. Returns whether there was any room.
 */
static bool
load_slice(RsinkSink *sink, Relation sealed, const RsinkSliceRow *row)
{
	RsinkSlices *slices = &sink->shared->slices;
	RsinkSlice	slice = bare_slice(row);

	rsink_slice_allocate(slices, &slice, row->nrows);
	if (slice.extent.head == RSINK_NO_CHUNK)
		return false;
	rsink_slice_choose_group(slices, &slice, row->events);
	PG_TRY();
	{
		if (read_rows(slices, sealed, &slice))
			read_filter(sink, &slice);
		else
		{
			rsink_extent_free(&slice.extent);
			slice = bare_slice(row);
		}
	}
	PG_CATCH();
	{
		rsink_extent_free(&slice.extent);
		PG_RE_THROW();
	}
	PG_END_TRY();
	LWLockAcquire(&sink->shared->lock, LW_EXCLUSIVE);
	if (sink->shared->seen == sink->seen)
		rsink_slices_put(slices, &slice);
	else
		rsink_extent_free(&slice.extent);
	LWLockRelease(&sink->shared->lock);
	return true;
}

/*
 * Bring the sink's slices in shared memory in line with the tables: remove slices that
 * are gone, add slices that a restore has brought, and load the fences of one slice that
 * lacks fences, whose rows have moved to another file, or that a group, or a larger
 * group, has room for. Returns whether there is more to do.
 *
 * Takes RowExclusiveLock on the page table before AccessShareLock on the tables of
 * slices, as everybody does. Caller holds the maintenance lock.
 */
bool
rsink_slices_refresh(RsinkSink *sink)
{
	RsinkSlices *slices = &sink->shared->slices;
	Relation	seen = try_table_open(sink->seen, RowExclusiveLock);
	Relation	sealed;
	bool		moved;
	const RsinkSliceRow *unloaded = NULL;
	RsinkSliceRow *described;
	bool		more = false;
	int			n;

	if (seen == NULL)
		return false;			/* the sink has just been dropped */
	sealed = table_open(sink->sealed, AccessShareLock);
	moved = slices->relfile != rsink_relfile(sealed);
	rsink_slices_load(sink);
	described = read_latest(sink, &n);
	LWLockAcquire(&sink->shared->lock, LW_EXCLUSIVE);
	for (uint32 i = slices->n; i-- > 0;)
	{
		int			j = 0;

		while (j < n && described[j].number != slices->slice[i].number)
			j++;
		if (j == n)
			rsink_slices_remove(slices, slices->slice[i].number);
		else if (moved && slices->slice[i].extent.head != RSINK_NO_CHUNK)
		{
			/* fences into another file are hints still, but useless ones */
			RsinkSlice	slice = bare_slice(&described[j]);

			rsink_slices_put(slices, &slice);
		}
	}
	slices->relfile = rsink_relfile(sealed);
	for (int j = 0; j < n; j++)
	{
		uint32		i = 0;

		while (i < slices->n && slices->slice[i].number != described[j].number)
			i++;
		if (i < slices->n && slices->slice[i].extent.head != RSINK_NO_CHUNK &&
			!rsink_group_grows(slices, &slices->slice[i], described[j].events, rsink_seal_most(),
							   rsink_slice_reserve()))
			continue;
		if (i == slices->n)
		{
			RsinkSlice	slice = bare_slice(&described[j]);

			rsink_slices_put(slices, &slice);
		}
		more = unloaded != NULL;
		unloaded = &described[j];
	}
	LWLockRelease(&sink->shared->lock);
	if (unloaded != NULL)
		more = load_slice(sink, sealed, unloaded) && more;
	table_close(sealed, AccessShareLock);
	table_close(seen, NoLock);
	pfree(described);
	return more;
}

/*
 * Give all memory of the sink's slices back to the pool. False: they have none. Whoever asks
 * the slices next knows them again, as cold ones, and the next refresh loads them. Caller
 * holds the maintenance lock.
 */
bool
rsink_slices_shed(RsinkSink *sink)
{
	RsinkSlices *slices = &sink->shared->slices;
	bool		any = false;

	LWLockAcquire(&sink->shared->lock, LW_EXCLUSIVE);
	for (uint32 i = 0; i < slices->n && !any; i++)
		any = slices->slice[i].extent.head != RSINK_NO_CHUNK;
	if (any && sink->shared->seen == sink->seen)
		rsink_slices_reset(slices);
	LWLockRelease(&sink->shared->lock);
	return any;
}
