/*-------------------------------------------------------------------------
 *
 * seen_build.h
 *	  Building the index of seen events, and taking the sink lock with an index that is complete.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_SEEN_BUILD_H
#define RSINK_SEEN_BUILD_H

#include "utils/errcodes.h"

#include "seen/seen.h"

/*
 * The worker must build the index first, and spill the fingerprints for which
 * memory has no room.
 */
#define ERRCODE_RSINK_NOT_BUILT MAKE_SQLSTATE('R', 'S', '0', '0', '2')

extern bool rsink_seen_builder;

extern void rsink_init_seen_build(void);
extern void rsink_seen_lock(RsinkSeen *seen);
extern void rsink_seen_unlock(RsinkSeen *seen);
extern bool rsink_seen_build(RsinkSeen *seen, bool may_spill);

#endif							/* RSINK_SEEN_BUILD_H */
