/*-------------------------------------------------------------------------
 *
 * totals.h
 *	  Mode 'totals': the processor keeps the sums, the sink keeps the last.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_TOTALS_H
#define RSINK_TOTALS_H

#include "utils/numeric.h"

#include "catalog.h"
#include "sink.h"

/* Total of one minute and group. */
typedef struct RsinkTotal
{
	TimestampTz minute;
	bool		minute_isnull;
	text	   *group_key;		/* NULL is the empty one */
	Numeric		revenue;
	bool		version_isnull;
	int64		version;
} RsinkTotal;

extern bool rsink_total_insert(RsinkSink *sink, RsinkTable *versions,
							   const RsinkTotal *total, int64 position);
extern bool rsink_totals_pending(const RsinkSink *sink);
extern void rsink_init_totals(void);

#endif							/* RSINK_TOTALS_H */
