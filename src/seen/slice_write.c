/*-------------------------------------------------------------------------
 *
 * slice_write.c
 *	  Writing a slice into the tables, and deleting one.
 *
 * A slice consists of rows, of the pieces of its filter, and of a row that describes
 * the slice. All three follow from the slice's events in the order of their
 * fingerprints, so they are written while the events come, and no more than one row
 * and one piece is kept in memory.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "core/spi_util.h"
#include "seen/filter.h"
#include "seen/piece.h"
#include "seen/sealed.h"
#include "seen/seen_page.h"
#include "seen/slice_write.h"
#include "sink/slot.h"

/* The number of a new slice. */
static int32
new_number(const RsinkSink *sink)
{
	RsinkSpi	spi;
	int32		number;

	rsink_spi_begin(&spi);
	rsink_spi(SPI_OK_SELECT, "SELECT max(slice) + 1 FROM revenue_sink.%s", get_rel_name(sink->slice));
	number = (int32) rsink_spi_int64(0, 1, 1);
	rsink_spi_end(&spi);
	return number;
}

/*
 * Start writing a slice with so many events. Takes RowExclusiveLock on the tables of
 * slices. Caller holds the maintenance lock.
 */
void
rsink_slice_begin(RsinkSliceWriter *writer, RsinkSink *sink, int64 events)
{
	RsinkSliceRow *slice = &writer->slice;

	memset(writer, 0, sizeof(RsinkSliceWriter));
	writer->sink = sink;
	slice->number = new_number(sink);
	slice->nlines = rsink_filter_lines(events);
	rsink_table_open(&writer->sealed, sink->sealed);
	rsink_table_open(&writer->filter, sink->filter);
	writer->keys = palloc((RSINK_PAGE_MAX + 1) * sizeof(RsinkKey));
	writer->lines = palloc0(RSINK_PIECE_LINES * RSINK_LINE_BYTES);

	/* a row may have only half of what fits, and then the next one has more */
	writer->row_fences = palloc_extended((2 * (events / RSINK_PAGE_MAX) + 2) * sizeof(RsinkFence), MCXT_ALLOC_HUGE);
	writer->piece_fences = palloc_extended(RSINK_FILTER_PIECES(slice->nlines) * sizeof(RsinkFence), MCXT_ALLOC_HUGE);
}

/*
 * How many of n sorted keys make the next row. Keys whose upper halves are equal are not
 * parted, so that one fence leads to all of them.
 */
static int
row_length(const RsinkKey *keys, int n)
{
	int			length = Min(RSINK_PAGE_MAX, n);

	while (length < n && length > 1 && keys[length].fp.hi == keys[length - 1].fp.hi)
		length--;
	return length;
}

/* Insert the next row, of the first keys that wait. */
static void
write_row(RsinkSliceWriter *writer)
{
	int			n = row_length(writer->keys, writer->nkeys);
	HeapTuple	tuple = rsink_sealed_form(RelationGetDescr(writer->sealed.rel), writer->slice.number, writer->keys, n);

	CHECK_FOR_INTERRUPTS();
	rsink_table_insert(&writer->sealed, tuple);
	rsink_fence_set(&writer->row_fences[writer->slice.nrows++], writer->keys[0].fp.hi, &tuple->t_self);
	heap_freetuple(tuple);
	writer->nkeys -= n;
	memmove(writer->keys, writer->keys + n, writer->nkeys * sizeof(RsinkKey));
}

/* Insert the next piece of the filter. */
static void
write_piece(RsinkSliceWriter *writer)
{
	uint32		piece = writer->npieces++;
	Size		size = Min(RSINK_PIECE_LINES, writer->slice.nlines - piece * RSINK_PIECE_LINES) * RSINK_LINE_BYTES;
	bytea	   *bytes = palloc(VARHDRSZ + size);
	Datum		values[Natts_filter];
	bool		nulls[Natts_filter] = {false};
	HeapTuple	tuple;

	CHECK_FOR_INTERRUPTS();
	SET_VARSIZE(bytes, VARHDRSZ + size);
	memcpy(VARDATA(bytes), writer->lines, size);
	values[Anum_filter_slice - 1] = Int32GetDatum(writer->slice.number);
	values[Anum_filter_piece - 1] = Int32GetDatum((int32) piece);
	values[Anum_filter_lines - 1] = PointerGetDatum(bytes);
	tuple = heap_form_tuple(RelationGetDescr(writer->filter.rel), values, nulls);
	rsink_table_insert(&writer->filter, tuple);
	rsink_fence_set(&writer->piece_fences[piece], (uint64) InvalidBuffer, &tuple->t_self);
	heap_freetuple(tuple);
	pfree(bytes);
	memset(writer->lines, 0, size);
}

/* Add n keys, which follow the ones added before in the order of fingerprints. */
void
rsink_slice_add(RsinkSliceWriter *writer, const RsinkKey *keys, int n)
{
	writer->slice.events += n;
	for (int i = 0; i < n; i++)
	{
		uint32		line = rsink_filter_line(&keys[i].fp, writer->slice.nlines);

		while (line / RSINK_PIECE_LINES > writer->npieces)
			write_piece(writer);
		rsink_filter_set(writer->lines + (Size) (line % RSINK_PIECE_LINES) * RSINK_LINE_WORDS, &keys[i].fp);
		writer->keys[writer->nkeys++] = keys[i];
		if (writer->nkeys > RSINK_PAGE_MAX)
			write_row(writer);
	}
}

/*
 * Write what is left of the slice, and the row that describes it: the newest event time
 * of all its events, and of its events that aren't imported, or DT_NOBEGIN.
 */
void
rsink_slice_end(RsinkSliceWriter *writer, TimestampTz newest, TimestampTz own_newest)
{
	RsinkSliceRow *slice = &writer->slice;
	Datum		values[Natts_slice];
	bool		nulls[Natts_slice] = {false};
	RsinkTable	table;

	while (writer->nkeys > 0)
		write_row(writer);
	while (writer->npieces < RSINK_FILTER_PIECES(slice->nlines))
		write_piece(writer);
	rsink_table_close(&writer->sealed);
	rsink_table_close(&writer->filter);
	slice->newest = newest;
	slice->own_newest = own_newest;
	values[Anum_slice_slice - 1] = Int32GetDatum(slice->number);
	values[Anum_slice_events - 1] = Int64GetDatum(slice->events);
	values[Anum_slice_newest - 1] = TimestampTzGetDatum(newest);
	values[Anum_slice_rows - 1] = Int32GetDatum((int32) slice->nrows);
	values[Anum_slice_lines - 1] = Int32GetDatum((int32) slice->nlines);
	values[Anum_slice_own_newest - 1] = TimestampTzGetDatum(own_newest);
	nulls[Anum_slice_own_newest - 1] = own_newest == DT_NOBEGIN;
	rsink_table_open(&table, writer->sink->slice);
	rsink_table_insert_values(&table, values, nulls);
	rsink_table_close(&table);
}

/*
 * Tell shared memory of a slice that is written, with its fences, as far as there is room
 * for them. If its keys are given, the slice gets into a group that has room; else it is
 * cold. The transaction must commit right after. Takes the sink lock and the slices lock.
 */
void
rsink_slice_publish(RsinkSliceWriter *writer, const RsinkKey *keys)
{
	RsinkShared *shared = writer->sink->shared;
	RsinkSlices *slices = &shared->slices;
	RsinkSlice	slice = {.number = writer->slice.number,.nlines = writer->slice.nlines,.group = -1,
	.extent.head = RSINK_NO_CHUNK};

	/* the index needs all memory if it has too little */
	if (!shared->overflows)
		rsink_slice_allocate(slices, &slice, writer->slice.nrows);
	if (keys != NULL && slice.extent.head != RSINK_NO_CHUNK)
		rsink_slice_choose_group(slices, &slice, writer->slice.events);
	if (slice.group >= 0 && !rsink_group_enter(slices, &slice, keys, (int) writer->slice.events))
		slice.group = -1;		/* the group is full before it should be */
	for (uint32 i = 0; i < slice.extent.nfences; i++)
		*rsink_extent_fence(&slice.extent, i) = i < slice.nrows ? writer->row_fences[i] :
			writer->piece_fences[i - slice.nrows];
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	if (shared->seen == writer->sink->seen && slices->loaded)
	{
		rsink_slices_put(slices, &slice);
		LWLockRelease(&shared->lock);
		return;
	}
	LWLockRelease(&shared->lock);
	rsink_extent_free(&slice.extent);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("sink \"%s\" has been adopted while its events were sealed", writer->sink->name)));
}

/*
 * Delete the slice with this number. Returns how many rows it had. Shared memory forgets
 * the slice at the next refresh; until then it leads to rows that are gone. Caller is
 * connected by rsink_spi_begin() and holds the maintenance lock.
 */
int64
rsink_slice_delete(const RsinkSink *sink, int32 number)
{
	rsink_spi(SPI_OK_DELETE, "DELETE FROM revenue_sink.%s WHERE slice = %d", get_rel_name(sink->slice), number);
	rsink_spi(SPI_OK_DELETE, "DELETE FROM revenue_sink.%s WHERE slice = %d", get_rel_name(sink->filter), number);
	return rsink_spi(SPI_OK_DELETE, "DELETE FROM revenue_sink.%s WHERE slice = %d",
					 get_rel_name(sink->sealed), number);
}
