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

extern void rsink_job_lock(const char *job);
extern int64 rsink_epoch_current(int32 sink_id, const char *job, const char *writer);
extern void rsink_epoch_require(const RsinkSink *sink, const char *job, const char *writer,
								int64 epoch);
extern void rsink_epoch_not_fenced(const RsinkSink *sink, const char *job, const char *writer,
								   int64 epoch);
extern int64 rsink_epoch_open(const RsinkSink *sink, const char *job, const char *writer,
							  bool epoch_isnull, int64 epoch, bool *is_new);

#endif							/* RSINK_EPOCH_H */
