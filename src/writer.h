/*-------------------------------------------------------------------------
 *
 * writer.h
 *	  Epochs, the ledger of batches, offsets.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_WRITER_H
#define RSINK_WRITER_H

#include "sink.h"
#include "utils/errcodes.h"

/* The caller has been fenced off by a newer epoch: stop, don't retry. */
#define ERRCODE_RSINK_FENCED MAKE_SQLSTATE('R', 'S', '0', '0', '1')

/* The batch of the current transaction. */
typedef struct RsinkBatch
{
	RsinkSink  *sink;
	int32		sink_id;
	char	   *job;
	char	   *writer;
	int64		epoch;
	int64		number;
	int64		events;			/* applied, once it ends */
	TimestampTz newest;			/* event time among them */
	ItemPointerData ledger;		/* row of the ledger */
	SubTransactionId subid;		/* that it has begun in, or whose part that is */
} RsinkBatch;

extern const RsinkBatch *rsink_current_batch(const RsinkSink *sink);
extern void rsink_writer_count(RsinkSink *sink, const RsinkCounts *counts,
							   TimestampTz newest);
extern void rsink_forbid_prepare(const char *call);
extern void rsink_refuse_unpreparable(void);
extern void rsink_init_writer(void);

/* epoch.c */
extern void rsink_job_lock(const char *job);
extern int64 rsink_epoch_current(int32 sink_id, const char *job, const char *writer);
extern void rsink_epoch_require(const RsinkSink *sink, const char *job, const char *writer,
								int64 epoch);
extern void rsink_epoch_not_fenced(const RsinkSink *sink, const char *job, const char *writer,
								   int64 epoch);
extern int64 rsink_epoch_open(const RsinkSink *sink, const char *job, const char *writer,
							  bool token_isnull, int64 token, bool *is_new);

#endif							/* RSINK_WRITER_H */
