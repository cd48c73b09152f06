/*-------------------------------------------------------------------------
 *
 * slice_merge.h
 *	  Merging: several small slices become one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_SLICE_MERGE_H
#define RSINK_SLICE_MERGE_H

#include "sink/sink.h"

/* So many slices are merged into one. */
#define RSINK_MERGE_SLICES 8

extern int64 rsink_merge_slices(RsinkSink *sink);

#endif							/* RSINK_SLICE_MERGE_H */
