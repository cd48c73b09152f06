/*-------------------------------------------------------------------------
 *
 * sealed.h
 *	  The rows of sealed slices, and finding one of them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_SEALED_H
#define RSINK_SEALED_H

#include "access/htup.h"
#include "storage/itemptr.h"

#include "apply/event.h"
#include "apply/fingerprint.h"
#include "seen/hint.h"
#include "seen/seen_page.h"
#include "seen/slice.h"

/* A row of a slice, taken apart; the arrays belong to the tuple. */
typedef struct RsinkSealedRow
{
	int32		slice;
	uint64		first;			/* upper half of the least fingerprint */
	RsinkPage	page;			/* without times */
} RsinkSealedRow;

/* Reads rows of sealed slices, and keeps the last one pinned. */
typedef struct RsinkSealedReader
{
	RsinkHintReader hint;
	ItemPointerData tid;		/* the fence by which the row below was asked for */
	RsinkSealedRow row;
} RsinkSealedReader;

extern int64 rsink_sealed_first(uint64 hi);
extern HeapTuple rsink_sealed_form(TupleDesc desc, int32 slice, const RsinkKey *keys, int n);
extern void rsink_sealed_deform(TupleDesc desc, HeapTuple tuple, RsinkSealedRow *row);
extern void rsink_sealed_begin(RsinkSealedReader *reader, Oid relid);
extern void rsink_sealed_rest(RsinkSealedReader *reader);
extern void rsink_sealed_end(RsinkSealedReader *reader);
extern RsinkRowState rsink_sealed_state(RsinkSealedReader *reader, const RsinkCandidate *candidate,
										const RsinkFingerprint *fp, bool again, uint32 *payload);

#endif							/* RSINK_SEALED_H */
