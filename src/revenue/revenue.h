/*-------------------------------------------------------------------------
 *
 * revenue.h
 *	  Revenue: one delta row per call, bucket and group; merged into totals later.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_REVENUE_H
#define RSINK_REVENUE_H

#include "apply/event.h"
#include "sink/sink.h"

/* The sums of one call. */
typedef struct RsinkRevenue RsinkRevenue;

extern TimestampTz rsink_bucket_start(TimestampTz time, int64 bucket);
extern RsinkRevenue *rsink_revenue_begin(const RsinkSink *sink);
extern void rsink_revenue_add(RsinkRevenue *revenue, const RsinkEvent *event);
extern void rsink_revenue_end(RsinkRevenue *revenue);
extern int64 rsink_merge_deltas(RsinkSink *sink, int64 most, BlockNumber *from);
extern int64 rsink_revenue_merge(RsinkSink *sink, TimestampTz before, int64 most, BlockNumber *from);

#endif							/* RSINK_REVENUE_H */
