/*-------------------------------------------------------------------------
 *
 * sweep.h
 *	  Rows of runs that are gone leave shared memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_SWEEP_H
#define RSINK_SWEEP_H

#include "sink/sink.h"

extern void rsink_sweep_runs(RsinkSink *sink);

#endif							/* RSINK_SWEEP_H */
