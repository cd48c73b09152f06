/*-------------------------------------------------------------------------
 *
 * tally.h
 *	  What a transaction has done: counted per sink, and published at its end.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_TALLY_H
#define RSINK_TALLY_H

#include "apply/event.h"
#include "sink/sink.h"

extern void rsink_tally_count(RsinkSink *sink, const RsinkCounts *counts, TimestampTz newest);
extern void rsink_tally_batch(RsinkSink *sink);
extern bool rsink_tally_has(int32 sink_id);
extern void rsink_tally_applied(int32 sink_id, int64 *events, TimestampTz *newest);
extern void rsink_init_tally(void);

#endif							/* RSINK_TALLY_H */
