/*-------------------------------------------------------------------------
 *
 * resolution.h
 *	  Resolutions: what a person has decided on an event that was a dead letter.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_RESOLUTION_H
#define RSINK_RESOLUTION_H

#include "access/genam.h"
#include "datatype/timestamp.h"
#include "executor/tuptable.h"
#include "lib/stringinfo.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#include "apply/event.h"
#include "sink/sink.h"

/*
 * The condition, in SQL, that a row of resolved_event resolves a dead letter, a row
 * of dead_letter_event; both are given by their aliases.
 */
#define RSINK_RESOLUTION_OF(r, d) \
	r ".sink_id = " d ".sink_id AND " r ".copy = substring(" d ".letter, 1, 24)"

/* What a person may do with a dead letter: the two resolutions. */
typedef enum RsinkResolutionKind
{
	RSINK_COUNT,				/* the event counts */
	RSINK_DISCARD				/* it doesn't */
} RsinkResolutionKind;

extern const char *const rsink_resolution_names[];

/* A sink's resolutions, open for looking up. */
typedef struct RsinkResolutions
{
	const RsinkSink *sink;
	Relation	rel;
	Relation	index;
	IndexScanDesc scan;
	SnapshotData dirty;			/* if it is the scan's snapshot */
	TupleTableSlot *slot;
	MemoryContext context;		/* of the scan */
} RsinkResolutions;

/* What resolutions say of a copy of an event, and of the others. */
typedef struct RsinkResolution
{
	bool		unfinished;		/* does a transaction that is open resolve this very copy? */
	bool		resolved;		/* is it resolved? If so, */
	bool		counts;			/* was it counted? */
	TimestampTz at;				/* when was it resolved, */
	NameData	by;				/* and by whom? */
	bool		counted_otherwise;	/* has resolve() counted another copy of the event? */
	bool		contradicts;	/* has another copy, a conflict, been discarded? Then
								 * the event was counted before that came */
} RsinkResolution;

/* What resolutions say of the keys of a call, before the sink lock is taken. */
typedef struct RsinkAsked
{
	uint8	   *status;			/* a key each: the RsinkStatus that its event must get,
								 * or RSINK_NSTATUS; NULL: none must */
	bool		asked;
	uint64		generation;		/* of the resolutions that were asked */
	TimestampTz horizon;		/* up to which events were late then */
} RsinkAsked;

extern void rsink_resolutions_open(RsinkResolutions *resolutions, const RsinkSink *sink, bool dirty);
extern void rsink_resolutions_close(RsinkResolutions *resolutions);
extern void rsink_resolution_find(RsinkResolutions *resolutions, const unsigned char *letter,
								  RsinkResolution *found);
extern bool rsink_asked_holds(const RsinkSink *sink, const RsinkAsked *asked);
extern void rsink_ask_resolutions(const RsinkSink *sink, const RsinkEvent *events,
								  const RsinkKey *keys, int n, RsinkAsked *asked);
extern void rsink_resolutions_changed(const RsinkSink *sink);
extern void rsink_watch_event(const RsinkSink *sink, const RsinkEvent *event);
extern void rsink_watch_renew(const RsinkSink *sink);
extern void rsink_init_resolution(void);

#endif							/* RSINK_RESOLUTION_H */
