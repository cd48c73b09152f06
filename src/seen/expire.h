/*-------------------------------------------------------------------------
 *
 * expire.h
 *	  The horizon, and forgetting what lies behind it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_EXPIRE_H
#define RSINK_EXPIRE_H

#include "apply/event.h"
#include "sink/sink.h"

extern int	rsink_writer_idle;

extern TimestampTz rsink_raise(const RsinkSink *sink, TimestampTz *field, TimestampTz candidate,
							   bool includes);
extern int64 rsink_expire(RsinkSink *sink);
extern void rsink_forget_entries(RsinkSink *sink, const RsinkKey *keys, int n, const ItemPointerData *tids);
extern void rsink_init_expire(void);

#endif							/* RSINK_EXPIRE_H */
