/*-------------------------------------------------------------------------
 *
 * seen_lookup.h
 *	  Is this event counted? In memory, in page rows, in the spill table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_SEEN_LOOKUP_H
#define RSINK_SEEN_LOOKUP_H

#include "catalog.h"
#include "seen_page.h"
#include "seen_spill.h"
#include "sink.h"

/* What the spill table was found to say of a key, ahead of the section. */
typedef struct RsinkSpilled
{
	RsinkRowState state;
	uint32		payload;
} RsinkSpilled;

/* Look-ups in one sink: readers of its tables, and what was learnt ahead. */
typedef struct RsinkLookup
{
	RsinkShared *shared;
	RsinkPageReader pages;
	RsinkSpillReader spill;
	bool		from_disk;		/* has one of them read from disk? */

	int			nahead;			/* keys that were looked up ahead, */
	RsinkSpilled *ahead;		/* what was found of each, */
	uint64		generation;		/* as of this generation of the spill table, */
	bool		is_current;		/* which it still had when we came in */
	Buffer	   *pinned;			/* blocks of page rows */
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
