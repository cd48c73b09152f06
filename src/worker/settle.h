/*-------------------------------------------------------------------------
 *
 * settle.h
 *	  Settling deferred events, once the transactions that they wait for have ended.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_SETTLE_H
#define RSINK_SETTLE_H

#include "sink/sink.h"

extern int64 rsink_settle(RsinkSink *sink, bool *pending);

#endif							/* RSINK_SETTLE_H */
