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

/* How far a build of the index is. */
typedef enum RsinkBuild
{
	RSINK_BUILD_DONE,			/* all page rows are in it */
	RSINK_BUILD_GOES_ON,
	RSINK_BUILD_OVERFLOWS		/* there is no memory for them, and the build begins anew */
} RsinkBuild;

extern bool rsink_seen_enter(RsinkSeen *seen, const RsinkKey *keys, int n, const ItemPointerData *tid);
extern void rsink_seen_overflows(const RsinkSink *sink);
extern void rsink_seen_lock(RsinkSeen *seen);
extern void rsink_seen_unlock(RsinkSeen *seen);
extern RsinkBuild rsink_seen_build(RsinkSeen *seen);
extern void rsink_seen_build_again(const RsinkSink *sink);

#endif							/* RSINK_SEEN_BUILD_H */
