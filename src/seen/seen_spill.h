/*-------------------------------------------------------------------------
 *
 * seen_spill.h
 *	  Fingerprints for which shared memory has no room.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_SEEN_SPILL_H
#define RSINK_SEEN_SPILL_H

#include "access/genam.h"
#include "executor/tuptable.h"
#include "utils/snapshot.h"

#include "apply/fingerprint.h"
#include "core/catalog.h"
#include "seen/seen_page.h"

/* Reads rows of the spill table by fingerprint. */
typedef struct RsinkSpillReader
{
	const RsinkTable *spill;
	IndexScanDesc scan;			/* NULL until the first look-up */
	TupleTableSlot *slot;
	SnapshotData dirty;
} RsinkSpillReader;

extern void rsink_spill_reader_begin(RsinkSpillReader *reader, const RsinkTable *spill);
extern void rsink_spill_reader_end(RsinkSpillReader *reader);
extern RsinkRowState rsink_spill_state(RsinkSpillReader *reader, const RsinkFingerprint *fp,
									   uint32 *payload);
extern void rsink_spill_add(RsinkTable *spill, const RsinkFingerprint *fp,
							TimestampTz event_time);

#endif							/* RSINK_SEEN_SPILL_H */
