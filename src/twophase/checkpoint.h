/*-------------------------------------------------------------------------
 *
 * checkpoint.h
 *	  Two-phase commit: pre_commit, and the calls that finish batches.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_CHECKPOINT_H
#define RSINK_CHECKPOINT_H

#include "sink/sink.h"

extern void rsink_finish_all(const RsinkSink *sink, const char *job, const char *writer,
							 int64 below);

#endif							/* RSINK_CHECKPOINT_H */
