/*-------------------------------------------------------------------------
 *
 * seen.h
 *	  Check and claim: which events of a batch are new?
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_SEEN_H
#define RSINK_SEEN_H

#include "catalog.h"
#include "seen_page.h"
#include "sink.h"

/* Rows with fewer fingerprints are packed into fuller ones. */
#define RSINK_SMALL_ROW 64

/* A sink's seen events, open for use in the current transaction. */
typedef struct RsinkSeen
{
	RsinkSink  *sink;
	RsinkShared *shared;
	RsinkTable	pages;
	RsinkTable	spill;
	RsinkTable	deferred;		/* its rel is NULL until something is deferred */
	MemoryContext context;		/* of the open tables */
	bool		settling;		/* events come from the deferred ones */
	bool		must_defer;		/* then it is needed */
} RsinkSeen;

/* The worker must build the index, spilling what has no place in memory. */
#define ERRCODE_RSINK_NOT_BUILT MAKE_SQLSTATE('R', 'S', '0', '0', '2')

extern bool rsink_seen_builder;

extern void rsink_init_seen(void);
extern void rsink_seen_begin(RsinkSeen *seen, RsinkSink *sink, bool settling);
extern void rsink_seen_end(RsinkSeen *seen);
extern void rsink_seen_claim(RsinkSeen *seen, RsinkEvent *events,
							 const RsinkKey *keys, int n);
extern void rsink_seen_insert_row(RsinkSeen *seen, const RsinkKey *keys, int n,
								  TimestampTz oldest, TimestampTz newest);
extern RsinkRowState rsink_seen_state(RsinkSeen *seen, const RsinkFingerprint *fp,
									  uint32 *payload);
extern void rsink_seen_lock(RsinkSeen *seen);
extern void rsink_seen_unlock(RsinkSeen *seen);
extern bool rsink_seen_build(RsinkSeen *seen, bool may_spill);

extern void rsink_durable_answer(void);

#endif							/* RSINK_SEEN_H */
