/*-------------------------------------------------------------------------
 *
 * seen_spill.c
 *	  The fingerprints that have no place in shared memory.
 *
 * Past revenue_sink.dedup_memory a fingerprint gets, besides its page row, a
 * row of its own in the sink's spill table, with a b-tree: slower, but as
 * transactional as the page row and without a bound. Such a row speaks for
 * itself, so nothing of it has to be rebuilt after a restart or a VACUUM FULL.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "seen_spill.h"

/*
 * Is this event counted by a row of the spill table, as of now? Takes no lock
 * but those that came with the open table.
 */
RsinkRowState
rsink_spill_state(RsinkTable *spill, const RsinkFingerprint *fp, uint32 *payload)
{
	RsinkRowState state = RSINK_ROW_GONE;
	TupleTableSlot *slot = table_slot_create(spill->rel, NULL);
	Relation	btree = rsink_table_open_index(spill, Anum_spill_hi);
	SnapshotData dirty;
	IndexScanDesc scan;
	ScanKeyData keys[2];

	InitDirtySnapshot(dirty);
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum((int64) fp->hi));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum((int64) fp->lo));
	scan = rsink_index_beginscan(spill->rel, btree, &dirty, 2);
	index_rescan(scan, keys, 2, NULL, 0);
	while (state != RSINK_ROW_COUNTED &&
		   index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;

		*payload = (uint32) DatumGetInt32(slot_getattr(slot, Anum_spill_payload, &isnull));
		state = TransactionIdIsValid(dirty.xmin) ? RSINK_ROW_OPEN : RSINK_ROW_COUNTED;
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	return state;
}

/* Add a fingerprint, in the current transaction. */
void
rsink_spill_add(RsinkTable *spill, const RsinkFingerprint *fp, TimestampTz event_time)
{
	Datum		values[Natts_spill];
	bool		nulls[Natts_spill] = {false};

	values[Anum_spill_hi - 1] = Int64GetDatum((int64) fp->hi);
	values[Anum_spill_lo - 1] = Int64GetDatum((int64) fp->lo);
	values[Anum_spill_payload - 1] = Int32GetDatum((int32) fp->payload);
	values[Anum_spill_event_time - 1] = TimestampTzGetDatum(event_time);
	rsink_table_insert_values(spill, values, nulls);
}
