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
#include "core/catalog.h"
#include "seen/seen_page.h"
#include "seen/seen_spill.h"
#include "sink/slot.h"

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
	RsinkPageReader pages;
	RsinkSpillReader spill;
	bool		from_disk;		/* has a look-up read from disk? */

	int			nahead;			/* keys that were looked up ahead */
	RsinkSpilled *ahead;		/* what the spill table said of each */
	uint64		generation;		/* the spill table's at that time */
	bool		is_current;		/* had it this generation still in the hold? */
	Buffer	   *pinned;			/* blocks of page rows, pinned ahead */
	int			npinned;
} RsinkLookup;

extern bool rsink_seen_deleting;

extern void rsink_lookup_begin(RsinkLookup *lookup, RsinkShared *shared,
							   const RsinkTable *pages, const RsinkTable *spill);
extern void rsink_lookup_end(RsinkLookup *lookup);
extern int	rsink_lookup_ahead(RsinkLookup *lookup, const RsinkKey *keys, int n);
extern void rsink_lookup_enter(RsinkLookup *lookup);
extern RsinkRowState rsink_lookup_state(RsinkLookup *lookup, int i, const RsinkFingerprint *fp,
										uint32 *payload);

#endif							/* RSINK_SEEN_LOOKUP_H */
