/*-------------------------------------------------------------------------
 *
 * seen_build.h
 *	  Building the index of seen events, and taking the sink lock with an index that is complete.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_SEEN_BUILD_H
#define RSINK_SEEN_BUILD_H

#include "storage/itemptr.h"

#include "apply/event.h"
#include "seen/seen.h"

extern void rsink_seen_enter(RsinkSeen *seen, const RsinkKey *keys, int n, const ItemPointerData *tid);
extern void rsink_seen_lock(RsinkSeen *seen);
extern void rsink_seen_unlock(RsinkSeen *seen);
extern bool rsink_seen_build(RsinkSeen *seen);

#endif							/* RSINK_SEEN_BUILD_H */
