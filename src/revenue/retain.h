/*-------------------------------------------------------------------------
 *
 * retain.h
 *	  The setting retain: removing the buckets that a sink no longer keeps.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_RETAIN_H
#define RSINK_RETAIN_H

#include "sink/sink.h"

/* How many totals one call of rsink_retain() removes at most. */
#define RSINK_RETAIN_ROWS 20000

extern int64 rsink_retain(RsinkSink *sink, TimestampTz *oldest);
extern void rsink_note_discarded(const RsinkSink *sink, int64 rows, int64 events, const char *revenue,
								 TimestampTz oldest);

#endif							/* RSINK_RETAIN_H */
