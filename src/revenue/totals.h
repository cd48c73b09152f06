/*-------------------------------------------------------------------------
 *
 * totals.h
 *	  Mode 'totals': the processor adds up, the sink keeps the last sum.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_TOTALS_H
#define RSINK_TOTALS_H

#include "utils/numeric.h"

#include "core/catalog.h"
#include "sink/sink.h"

/* A version of the total of a bucket and group. */
typedef struct RsinkTotal
{
	TimestampTz bucket_start;
	bool		bucket_start_isnull;
	text	   *group_key;		/* a null pointer stands for the empty one */
	Numeric		revenue;
	bool		version_isnull;
	int64		version;
} RsinkTotal;

extern bool rsink_total_insert(RsinkSink *sink, RsinkTable *versions,
							   const RsinkTotal *total, int64 position);
extern void rsink_check_total(const RsinkSink *sink, const RsinkTotal *total, int64 position);
extern bool rsink_totals_pending(const RsinkSink *sink);
extern void rsink_init_totals(void);

#endif							/* RSINK_TOTALS_H */
