/*-------------------------------------------------------------------------
 *
 * expire.h
 *	  The rounds that keep a sink small: merge, expire, pack, fold.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_EXPIRE_H
#define RSINK_EXPIRE_H

#include "seen.h"

extern int	rsink_writer_idle;
extern int	rsink_dead_letter_retention;
extern int	rsink_rejected_retention;

/* maintain.c */
extern bool rsink_maintenance_lock(const RsinkSink *sink, bool wait);
extern int64 rsink_settle(RsinkSink *sink, bool *pending);
extern int64 rsink_merge_deltas(RsinkSink *sink, int64 most, BlockNumber *from);
extern void rsink_fold(RsinkSink *sink);
extern void rsink_refresh_statistics(Oid relid);

/* expire.c */
extern TimestampTz rsink_raise(const RsinkSink *sink, TimestampTz *place, TimestampTz candidate, bool includes);
extern int64 rsink_expire(RsinkSink *sink);
extern void rsink_forget_entry(RsinkSink *sink, const RsinkFingerprint *fp,
							   const ItemPointerData *tid);
extern void rsink_init_expire(void);

/* pack.c */
extern int64 rsink_pack(RsinkSink *sink);

#endif							/* RSINK_EXPIRE_H */
