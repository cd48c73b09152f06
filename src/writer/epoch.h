/*-------------------------------------------------------------------------
 *
 * epoch.h
 *	  Epochs: which incarnation of a job is the living one?
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_EPOCH_H
#define RSINK_EPOCH_H

#include "sink/sink.h"

/* A newer epoch has fenced off the caller, which must stop and not retry. */
#define ERRCODE_RSINK_FENCED MAKE_SQLSTATE('R', 'S', '0', '0', '1')

/*
 * The current epoch of the writer of a row with sink_id, job and writer, in SQL; what
 * rsink_epoch_current() returns, but for NULL where there is none.
 */
#define RSINK_CURRENT_EPOCH(row) \
	"(SELECT max(e.epoch) FROM revenue_sink.epoch e WHERE e.sink_id = " row ".sink_id " \
	"  AND e.job = " row ".job AND (e.writer IS NULL OR e.writer = " row ".writer))"

extern void rsink_job_lock(const char *job);
extern int64 rsink_epoch_current(int32 sink_id, const char *job, const char *writer);
extern void rsink_epoch_require(const RsinkSink *sink, const char *job, const char *writer,
								int64 epoch);
extern void rsink_epoch_not_fenced(const RsinkSink *sink, const char *job, const char *writer,
								   int64 epoch);
extern int64 rsink_epoch_open(const RsinkSink *sink, const char *job, const char *writer,
							  bool epoch_isnull, int64 epoch, bool *is_new);

#endif							/* RSINK_EPOCH_H */
