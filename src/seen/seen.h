/*-------------------------------------------------------------------------
 *
 * seen.h
 *	  Check and claim: which events of a call are new?
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_SEEN_H
#define RSINK_SEEN_H

#include "apply/event.h"
#include "apply/fingerprint.h"
#include "core/catalog.h"
#include "seen/hint.h"
#include "seen/seen_page.h"
#include "seen/sealed.h"
#include "sink/sink.h"
#include "sink/slot.h"

/*
 * Page rows with fewer fingerprints than this are small, and get packed into
 * fuller ones.
 */
#define RSINK_SMALL_ROW 64

/* A sink's seen events, open for use in the current transaction. */
typedef struct RsinkSeen
{
	RsinkSink  *sink;
	RsinkShared *shared;
	RsinkTable	pages;
	RsinkSealedReader sealed;	/* rows of sealed slices */
	RsinkHintReader pieces;		/* of their filters */
	RsinkTable	deferred;		/* deferred_event; rel is NULL until it is needed */
	MemoryContext context;		/* in which the tables are opened */
	bool		settling;		/* do the events come from deferred_event? */
	bool		importing;		/* are the events imported? See own.c */
	bool		resolving;		/* does a person count them, late or not? */
	bool		must_defer;		/* is "deferred" needed? */
	bool		has_own;		/* has the import met events of the sink's own? */
} RsinkSeen;

extern void rsink_seen_begin(RsinkSeen *seen, RsinkSink *sink, bool settling);
extern void rsink_seen_end(RsinkSeen *seen);
extern void rsink_seen_claim(RsinkSeen *seen, RsinkEvent *events,
							 const RsinkKey *keys, int n);
extern void rsink_seen_insert_row(RsinkSeen *seen, const RsinkKey *keys, int n,
								  TimestampTz oldest, TimestampTz newest);
extern RsinkRowState rsink_seen_state(RsinkSeen *seen, const RsinkFingerprint *fp,
									  uint32 *payload);

#endif							/* RSINK_SEEN_H */
