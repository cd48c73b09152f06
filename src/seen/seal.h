/*-------------------------------------------------------------------------
 *
 * seal.h
 *	  Sealing: events that are no longer hot go from the index into a sealed slice.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_SEAL_H
#define RSINK_SEAL_H

#include "sink/sink.h"

extern double rsink_hot_limit(void);
extern int64 rsink_seal_most(void);
extern double rsink_slice_reserve(void);
extern int64 rsink_seal(RsinkSink *sink);
extern int64 rsink_expire_slice(RsinkSink *sink, TimestampTz horizon, int64 *events);

#endif							/* RSINK_SEAL_H */
