/*-------------------------------------------------------------------------
 *
 * slice_load.h
 *	  Bringing the slices in shared memory in line with the tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_SLICE_LOAD_H
#define RSINK_SLICE_LOAD_H

#include "storage/itemptr.h"
#include "utils/snapshot.h"

#include "seen/slice.h"
#include "sink/sink.h"

/* A slice as its row describes it. */
typedef struct RsinkSliceRow
{
	int32		number;
	int64		events;
	TimestampTz newest;
	TimestampTz own_newest;		/* without imported events; DT_NOBEGIN if all are imported */
	uint32		nrows;
	uint32		nlines;
} RsinkSliceRow;

extern RsinkSliceRow *rsink_slices_read(const RsinkSink *sink, Snapshot snapshot, int *n);
/* Takes a piece of a filter, which is at this address. */
typedef void (*RsinkTakePiece) (void *arg, uint32 piece, const ItemPointerData *tid,
								const char *lines, uint32 nlines);

extern void rsink_filter_read(const RsinkSink *sink, Snapshot snapshot, int32 number, RsinkTakePiece take,
							  void *arg);
extern void rsink_slice_allocate(RsinkSlices *slices, RsinkSlice *slice, uint32 nrows);
extern void rsink_slice_choose_group(RsinkSlices *slices, RsinkSlice *slice, int64 events);
extern void rsink_slices_load(RsinkSink *sink);
extern bool rsink_slices_refresh(RsinkSink *sink);
extern bool rsink_slices_shed(RsinkSink *sink);

#endif							/* RSINK_SLICE_LOAD_H */
