/*-------------------------------------------------------------------------
 *
 * watch.h
 *	  Which events a sink watches for: discarded ones that may come again in time.
 *
 * It is a Bloom filter in shared memory over the fingerprints of these events. Each
 * of them has a row in resolved_event; the filter spares all others that look-up.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_WATCH_H
#define RSINK_WATCH_H

#include "apply/fingerprint.h"

#define RSINK_WATCH_BITS 8192

/* The sink lock, exclusively; also a hint, whose bits are set before they matter. */
typedef struct RsinkWatch
{
	bool		loaded;			/* are the events of committed rows in it? */
	bool		any;			/* is any bit set? */
	uint64		bits[RSINK_WATCH_BITS / 64];
} RsinkWatch;

/* The two bits of a fingerprint, whose own bits are uniform. */
#define RSINK_WATCH_FIRST(fp)	((uint32) ((fp)->lo % RSINK_WATCH_BITS))
#define RSINK_WATCH_SECOND(fp)	((uint32) ((fp)->lo / RSINK_WATCH_BITS % RSINK_WATCH_BITS))

/* Watch for an event. */
static inline void
rsink_watch_add(RsinkWatch *watch, const RsinkFingerprint *fp)
{
	watch->bits[RSINK_WATCH_FIRST(fp) / 64] |= UINT64CONST(1) << (RSINK_WATCH_FIRST(fp) % 64);
	watch->bits[RSINK_WATCH_SECOND(fp) / 64] |= UINT64CONST(1) << (RSINK_WATCH_SECOND(fp) % 64);
	watch->any = true;
}

/* May the event be one that is watched for? */
static inline bool
rsink_watch_has(const RsinkWatch *watch, const RsinkFingerprint *fp)
{
	return (watch->bits[RSINK_WATCH_FIRST(fp) / 64] >> (RSINK_WATCH_FIRST(fp) % 64) & 1) != 0 &&
		(watch->bits[RSINK_WATCH_SECOND(fp) / 64] >> (RSINK_WATCH_SECOND(fp) % 64) & 1) != 0;
}

#endif							/* RSINK_WATCH_H */
