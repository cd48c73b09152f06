/*-------------------------------------------------------------------------
 *
 * dead_letter.h
 *	  Dead letters: events that are kept aside for a person.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_DEAD_LETTER_H
#define RSINK_DEAD_LETTER_H

#include "access/htup.h"
#include "lib/stringinfo.h"
#include "utils/relcache.h"

#include "apply/event.h"
#include "sink/sink.h"

/*
 * A letter has three hashes. The first names an event by its ids, the first two name
 * a copy of it, with all of its columns, and all three a copy and a reason. Ids that are
 * bad name no event, and determine the first bytes alone.
 */
#define RSINK_IDS_BYTES			8
#define RSINK_IDENTITY_BYTES	16
#define RSINK_COPY_BYTES		24
#define RSINK_LETTER_BYTES		32

extern void rsink_letter(const RsinkSink *sink, const RsinkEvent *event, const char *reason,
						 StringInfo buf, unsigned char *letter);
extern bytea *rsink_letter_bytea(const unsigned char *letter, int n);
extern char *rsink_letter_literal(const unsigned char *letter, int n);
extern HeapTuple rsink_find_dead_letter(Relation rel, Oid index, int32 sink_id,
										const unsigned char *letter);
extern int64 rsink_dead_letters_of(Relation rel, Oid index, int32 sink_id, const unsigned char *letter,
								   const char *reason, bool *has_reason);
extern void rsink_note_letter_count(const RsinkSink *sink, int64 n, TimestampTz oldest);
extern void rsink_keep_dead_letters(const RsinkSink *sink, RsinkEvent *const *events,
									const char *const *reasons, int n);

#endif							/* RSINK_DEAD_LETTER_H */
