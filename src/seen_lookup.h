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

/* What look-ups in one sink need: open tables, and the last row of each. */
typedef struct RsinkLookup
{
	RsinkShared *shared;
	RsinkPageReader pages;
	RsinkSpillReader spill;
	bool		from_disk;		/* has one of them read from disk? */
} RsinkLookup;

extern bool rsink_seen_deleting;

extern void rsink_lookup_begin(RsinkLookup *lookup, RsinkShared *shared,
							   const RsinkTable *pages, const RsinkTable *spill);
extern void rsink_lookup_end(RsinkLookup *lookup);
extern RsinkRowState rsink_lookup_state(RsinkLookup *lookup, const RsinkFingerprint *fp,
										uint32 *payload);
extern bool rsink_lookup_ahead(RsinkLookup *lookup, const RsinkKey *keys, int n);

#endif							/* RSINK_SEEN_LOOKUP_H */
