/*-------------------------------------------------------------------------
 *
 * slice_write.h
 *	  Writing a slice into the tables, and deleting one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_SLICE_WRITE_H
#define RSINK_SLICE_WRITE_H

#include "apply/event.h"
#include "core/catalog.h"
#include "seen/slice.h"
#include "seen/slice_load.h"
#include "sink/sink.h"

/* A slice that is being written. */
typedef struct RsinkSliceWriter
{
	RsinkSink  *sink;
	RsinkSliceRow slice;		/* as far as it is written */
	RsinkTable	sealed;
	RsinkTable	filter;
	RsinkKey   *keys;			/* of the row that comes next */
	int			nkeys;
	uint64	   *lines;			/* of the piece that comes next */
	uint32		npieces;		/* so many have been written */
	RsinkFence *row_fences;
	RsinkFence *piece_fences;
} RsinkSliceWriter;

extern void rsink_slice_begin(RsinkSliceWriter *writer, RsinkSink *sink, int64 events);
extern void rsink_slice_add(RsinkSliceWriter *writer, const RsinkKey *keys, int n);
extern void rsink_slice_end(RsinkSliceWriter *writer, TimestampTz newest, TimestampTz own_newest);
extern void rsink_slice_publish(RsinkSliceWriter *writer, const RsinkKey *keys);
extern int64 rsink_slice_delete(const RsinkSink *sink, int32 number);

#endif							/* RSINK_SLICE_WRITE_H */
