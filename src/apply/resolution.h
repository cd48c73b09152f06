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

#include "apply/dead_letter.h"
#include "apply/event.h"
#include "sink/sink.h"

/*
 * The condition, in SQL, that a row of resolved_event resolves a dead letter, a row
 * of dead_letter_event; both are given by their aliases.
 */
#define RSINK_RESOLUTION_OF(r, d) \
	r ".sink_id = " d ".sink_id AND " r ".event = substring(" d ".letter, 1, 16)"

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
	Relation	index;			/* the primary key */
	IndexScanDesc scan;
	SnapshotData dirty;			/* if it is the scan's snapshot */
	TupleTableSlot *slot;
	MemoryContext context;		/* of the scan */
} RsinkResolutions;

/* What has been decided on an event, and which of its dead letters that was. */
typedef struct RsinkResolution
{
	bool		unfinished;		/* does a transaction that is open resolve the event? */
	bool		resolved;		/* is it resolved? If so, */
	bool		counts;			/* was it counted? */
	bool		same;			/* had that dead letter the payload that was asked for? */
	unsigned char letter[RSINK_LETTER_BYTES];
	TimestampTz at;				/* when was it resolved, */
	NameData	by;				/* and by whom? */
} RsinkResolution;

/* What resolutions say of the keys of a call, before the sink lock is taken. */
typedef struct RsinkAsked
{
	uint8	   *status;			/* a key each: the RsinkStatus of its event, should the seen
								 * events not know it; or RSINK_NSTATUS. NULL: of all keys */
	bool		asked;
	uint64		generation;		/* of the resolutions that were asked */
} RsinkAsked;

extern void rsink_resolutions_open(RsinkResolutions *resolutions, const RsinkSink *sink, bool dirty);
extern void rsink_resolutions_close(RsinkResolutions *resolutions);
extern void rsink_resolution_find(RsinkResolutions *resolutions, const unsigned char *letter,
								  RsinkResolution *found);
extern RsinkStatus rsink_resolved_status(const RsinkResolution *found, RsinkStatus status);
extern bool rsink_asked_holds(const RsinkSink *sink, const RsinkAsked *asked);
extern void rsink_ask_resolutions(const RsinkSink *sink, const RsinkEvent *events,
								  const RsinkKey *keys, int n, RsinkAsked *asked);
extern void rsink_resolutions_changed(const RsinkSink *sink);
extern char *rsink_unresolved_letters(int32 sink_id);
extern void rsink_init_resolution(void);

#endif							/* RSINK_RESOLUTION_H */
