/*-------------------------------------------------------------------------
 *
 * seen_lookup.h
 *	  Is this event counted? The answer is in memory, in page rows or in the spill table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_SEEN_LOOKUP_H
#define RSINK_SEEN_LOOKUP_H

#include "apply/event.h"
#include "apply/fingerprint.h"
#include "seen/seen.h"
#include "seen/seen_page.h"
#include "seen/seen_spill.h"
#include "seen/slice.h"
#include "sink/slot.h"

/* What the sealed slices said of a key. */
typedef struct RsinkSealedAnswer
{
	RsinkRowState state;
	uint32		payload;
	RsinkCandidate row;			/* the row that said so */
} RsinkSealedAnswer;

/* What the sealed slices said of several keys. */
typedef struct RsinkSealedAnswers
{
	RsinkSealedAnswer *answer;	/* a key each; NULL: all are "gone" */
	uint64		generation;		/* of the slices that were asked; 0: none were */
} RsinkSealedAnswers;

/* What the spill table said of a key that was looked up ahead. */
typedef struct RsinkSpilled
{
	RsinkRowState state;
	uint32		payload;
} RsinkSpilled;

/* Look-ups in one sink: the readers of its tables, and what was found ahead. */
typedef struct RsinkLookup
{
	RsinkShared *shared;
	RsinkSealedReader *sealed;
	RsinkPageReader pages;
	RsinkSpillReader spill;
	bool		from_disk;		/* has a look-up read from disk? */

	const RsinkSealedAnswer *answers;	/* of the sealed slices, a key each, or NULL */
	uint64		slices;			/* generation of the slices that gave them */

	int			nahead;			/* keys that were looked up ahead */
	RsinkSpilled *ahead;		/* what the spill table said of each */
	uint64		generation;		/* the spill table's at that time */
	bool		is_current;		/* had it this generation still in the hold? */
	Buffer	   *pinned;			/* blocks of page rows, pinned ahead */
	int			npinned;
} RsinkLookup;

extern bool rsink_seen_deleting;

extern void rsink_lookup_begin(RsinkLookup *lookup, RsinkSeen *seen,
							   const RsinkSealedAnswers *answers, int from);
extern void rsink_lookup_end(RsinkLookup *lookup);
extern void rsink_lookup_candidates(RsinkSeen *seen, const RsinkKey *keys, int n, RsinkSliceAnswer *answer);
extern void rsink_lookup_sealed(RsinkSeen *seen, const RsinkKey *keys, int n,
								RsinkSealedAnswers *answers);
extern int	rsink_lookup_ahead(RsinkLookup *lookup, const RsinkKey *keys, int n);
extern bool rsink_lookup_enter(RsinkLookup *lookup);
extern RsinkRowState rsink_lookup_state(RsinkLookup *lookup, int i, const RsinkFingerprint *fp,
										uint32 *payload);

#endif							/* RSINK_SEEN_LOOKUP_H */
