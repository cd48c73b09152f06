/*-------------------------------------------------------------------------
 *
 * seen_spill.c
 *	  Fingerprints for which shared memory has no room.
 *
 * Past revenue_sink.dedup_memory a fingerprint gets, besides its page row, a row
 * of its own in the sink's spill table, with a b-tree. That is slower, but as
 * transactional as the page row, and has no bound. A row of the spill table
 * speaks for itself, so nothing has to be rebuilt from it after a restart or a
 * VACUUM FULL.
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

#include "apply/fingerprint.h"
#include "core/catalog.h"
#include "core/compat.h"
#include "seen/seen_page.h"
#include "seen/seen_spill.h"

/*
 * Start reading the spill table, which the caller has open. Nothing is done
 * before the first look-up.
 */
void
rsink_spill_reader_begin(RsinkSpillReader *reader, const RsinkTable *spill)
{
	reader->spill = spill;
	reader->scan = NULL;
}

/* End the scan, and unpin what it has pinned. The reader may go on to read. */
void
rsink_spill_reader_end(RsinkSpillReader *reader)
{
	if (reader->scan == NULL)
		return;
	index_endscan(reader->scan);
	ExecDropSingleTupleTableSlot(reader->slot);
	reader->scan = NULL;
}

/*
 * Is the event with this fingerprint counted by a row of the spill table, at this
 * instant? Sets *payload to the payload hash in that row, unless the answer is
 * RSINK_ROW_GONE. Takes no lock on a table or index, since the open table has
 * them.
 */
RsinkRowState
rsink_spill_state(RsinkSpillReader *reader, const RsinkFingerprint *fp, uint32 *payload)
{
	RsinkRowState state = RSINK_ROW_GONE;
	ScanKeyData keys[2];

	if (reader->scan == NULL)
	{
		InitDirtySnapshot(reader->dirty);
		reader->slot = table_slot_create(reader->spill->rel, NULL);
		reader->scan = rsink_index_beginscan(reader->spill->rel,
											 rsink_table_open_index(reader->spill, Anum_spill_hi),
											 &reader->dirty, 2);
	}
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum((int64) fp->hi));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum((int64) fp->lo));
	index_rescan(reader->scan, keys, 2, NULL, 0);
	while (state != RSINK_ROW_COUNTED &&
		   index_getnext_slot(reader->scan, ForwardScanDirection, reader->slot))
	{
		bool		isnull;

		*payload = (uint32) DatumGetInt32(slot_getattr(reader->slot, Anum_spill_payload, &isnull));
		state = TransactionIdIsValid(reader->dirty.xmin) ? RSINK_ROW_UNFINISHED : RSINK_ROW_COUNTED;
	}
	return state;
}

/*
 * Insert a fingerprint into the spill table, in the current transaction. The row
 * expires with event_time, which is the newest one of the fingerprint's page row.
 */
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
