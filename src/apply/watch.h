/*-------------------------------------------------------------------------
 *
 * watch.h
 *	  Which events a sink watches for: the resolved ones, so that none counts again.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_WATCH_H
#define RSINK_WATCH_H

#include "apply/fingerprint.h"
#include "seen/extent.h"
#include "seen/filter.h"

/*
 * The first layer has so many lines, and each further one so many times more. A session
 * that begins maps each page of the layers that it asks, so layers shouldn't be far
 * larger than what they hold.
 */
#define RSINK_WATCH_LINES	16
#define RSINK_WATCH_GROWTH	8

/* The layers after the first one. The last of them has room for 500 million events. */
#define RSINK_WATCH_LAYERS	7

/*
 * The sink lock, exclusively; also a hint, whose bits are set before they matter. A
 * layer that is there stays as it is, but for its bits, until the slot is reset.
 */
typedef struct RsinkWatch
{
	bool		loaded;			/* are the events of all committed rows in it? If not, it
								 * may have any event */
	bool		full;			/* was there no memory for a layer? */
	bool		any;			/* is any bit set? */
	int			nlayers;		/* after the first one */
	int64		room;			/* for so many more events in the last layer */
	uint64		first[RSINK_WATCH_LINES * RSINK_LINE_WORDS];
	RsinkExtent layer[RSINK_WATCH_LAYERS];
} RsinkWatch;

struct RsinkSink;

extern bool rsink_watch_has(const RsinkWatch *watch, const RsinkFingerprint *fp);
extern void rsink_watch_reset(RsinkWatch *watch);
extern Size rsink_watch_bytes(const RsinkWatch *watch);
extern void rsink_watch_load(const struct RsinkSink *sink);
extern void rsink_watch_tend(const struct RsinkSink *sink);
extern void rsink_watch_event(const struct RsinkSink *sink, const text *order_id, const text *event_id);

#endif							/* RSINK_WATCH_H */
