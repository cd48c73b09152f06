/*-------------------------------------------------------------------------
 *
 * seen_lookup.h
 *	  Is this event counted? The answer is in page rows and in rows of sealed slices.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_SEEN_LOOKUP_H
#define RSINK_SEEN_LOOKUP_H

#include "apply/event.h"
#include "apply/fingerprint.h"
#include "seen/run.h"
#include "seen/seen.h"
#include "seen/seen_page.h"
#include "seen/slice.h"
#include "sink/slot.h"

/* What the sealed slices said of a key. */
typedef struct RsinkSealedAnswer
{
	RsinkRowState state;
	uint32		payload;
	RsinkCandidate row;			/* the row that said so */
} RsinkSealedAnswer;

/* What page rows said of a key that have no entries in the index. */
typedef struct RsinkRowAnswer
{
	RsinkRowState state;
	uint32		payload;
	ItemPointerData tid;		/* of the row that said so */
} RsinkRowAnswer;

/* What was found of several keys before the sink lock was taken. */
typedef struct RsinkFindings
{
	RsinkSealedAnswer *sealed;	/* a key each; NULL: all are "gone" */
	uint64		generation;		/* of the slices that were asked; 0: none were */
	RsinkRowAnswer *rows;		/* a key each; NULL: all are "gone" */
	uint64		upto;			/* the rows of runs before this one were asked */
} RsinkFindings;

/* Look-ups in one sink: the readers of its tables, and what was found ahead. */
typedef struct RsinkLookup
{
	RsinkShared *shared;
	RsinkSealedReader *sealed;
	RsinkPageReader pages;
	bool		from_disk;		/* has a look-up read from disk? */

	const RsinkFindings *found;
	int			from;			/* the first of the keys' answers there */
	RsinkRunAnswer newer;		/* rows of runs that came after the answers */

	Buffer	   *pinned;			/* blocks of page rows, pinned ahead */
	int			npinned;
} RsinkLookup;

extern bool rsink_seen_deleting;

extern void rsink_lookup_begin(RsinkLookup *lookup, RsinkSeen *seen, const RsinkFindings *found, int from);
extern void rsink_lookup_end(RsinkLookup *lookup);
extern void rsink_lookup_candidates(RsinkSeen *seen, const RsinkKey *keys, int n, RsinkSliceAnswer *answer);
extern bool rsink_findings_hold(const RsinkShared *shared, const RsinkFindings *found);
extern void rsink_find_ahead(RsinkSeen *seen, const RsinkKey *keys, int n, RsinkFindings *found);
extern void rsink_findings_free(RsinkFindings *found);
extern int	rsink_lookup_ahead(RsinkLookup *lookup, const RsinkKey *keys, int n);
extern bool rsink_lookup_enter(RsinkLookup *lookup);
extern RsinkRowState rsink_lookup_state(RsinkLookup *lookup, int i, const RsinkKey *key, uint32 *payload);

#endif							/* RSINK_SEEN_LOOKUP_H */
