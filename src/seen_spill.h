/*-------------------------------------------------------------------------
 *
 * seen_spill.h
 *	  The fingerprints that have no place in shared memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_SEEN_SPILL_H
#define RSINK_SEEN_SPILL_H

#include "access/genam.h"
#include "executor/tuptable.h"
#include "utils/snapshot.h"

#include "catalog.h"
#include "seen_page.h"

/* Reads rows by fingerprint. */
typedef struct RsinkSpillReader
{
	const RsinkTable *spill;
	IndexScanDesc scan;			/* NULL until the first one is asked for */
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
