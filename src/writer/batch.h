/*-------------------------------------------------------------------------
 *
 * batch.h
 *	  The batch of the current transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_BATCH_H
#define RSINK_BATCH_H

#include "storage/itemptr.h"

#include "sink/sink.h"

/* The batch of a transaction: what it was begun with, and what it has done. */
typedef struct RsinkBatch
{
	RsinkSink  *sink;
	int32		sink_id;
	char	   *job;
	char	   *writer;
	int64		epoch;
	int64		number;
	int64		events;			/* events applied; set when the batch ends */
	TimestampTz newest;			/* event time of these, or DT_NOBEGIN */
	ItemPointerData ledger;		/* address of its row in the ledger */
	SubTransactionId subid;		/* in which it has begun, or the ancestor that
								 * this has become a part of */
} RsinkBatch;

extern const RsinkBatch *rsink_current_batch(const RsinkSink *sink);
extern void rsink_init_batch(void);

#endif							/* RSINK_BATCH_H */
