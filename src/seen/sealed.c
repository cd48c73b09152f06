/*-------------------------------------------------------------------------
 *
 * sealed.c
 *	  The rows of sealed slices, and finding one of them.
 *
 * A row of a slice fills a page, as a page row does, and has the fingerprints between
 * its first one and the first one of the next row of the slice. A fence leads to the
 * row. After VACUUM FULL, for example, fences lead elsewhere; then the index of the
 * table leads to the row.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "apply/event.h"
#include "apply/fingerprint.h"
#include "core/catalog.h"
#include "core/compat.h"
#include "seen/sealed.h"
#include "seen/seen_page.h"
#include "seen/slice.h"

/*
 * The upper half of a fingerprint, as a column of the table has it: a signed number
 * with the same order.
 */
int64
rsink_sealed_first(uint64 hi)
{
	return (int64) (hi ^ (UINT64CONST(1) << 63));
}

/* Make a row of a slice of n sorted keys, RSINK_PAGE_MAX at most. */
HeapTuple
rsink_sealed_form(TupleDesc desc, int32 slice, const RsinkKey *keys, int n)
{
	Datum		values[Natts_sealed];
	bool		nulls[Natts_sealed] = {false};
	bytea	   *bytes = rsink_page_bytes(keys, n);
	HeapTuple	tuple;

	values[Anum_sealed_first - 1] = Int64GetDatum(rsink_sealed_first(keys[0].fp.hi));
	values[Anum_sealed_slice - 1] = Int32GetDatum(slice);
	values[Anum_sealed_events - 1] = Int32GetDatum(n);
	values[Anum_sealed_fingerprints - 1] = PointerGetDatum(bytes);
	tuple = heap_form_tuple(desc, values, nulls);
	pfree(bytes);
	return tuple;
}

/*
 * Take a row of a slice apart. The result points into the tuple. Raises
 * data_corrupted if the tuple can't be such a row.
 */
void
rsink_sealed_deform(TupleDesc desc, HeapTuple tuple, RsinkSealedRow *row)
{
	Datum		values[Natts_sealed];
	bool		nulls[Natts_sealed];

	heap_deform_tuple(tuple, desc, values, nulls);
	row->slice = DatumGetInt32(values[Anum_sealed_slice - 1]);
	row->first = (uint64) DatumGetInt64(values[Anum_sealed_first - 1]) ^ (UINT64CONST(1) << 63);
	row->page.oldest = row->page.newest = 0;
	row->page.n = DatumGetInt32(values[Anum_sealed_events - 1]);
	rsink_page_point(&row->page, values[Anum_sealed_fingerprints - 1],
					 nulls[Anum_sealed_fingerprints - 1], &tuple->t_self);
}

/* Start reading rows of this table. Nothing is done before the first look-up. */
void
rsink_sealed_begin(RsinkSealedReader *reader, Oid relid)
{
	memset(reader, 0, sizeof(RsinkSealedReader));
	reader->relid = relid;
	reader->context = CurrentMemoryContext;
	reader->buffer = InvalidBuffer;
}

/* Unpin the last row that was read. The reader may go on to read. */
void
rsink_sealed_rest(RsinkSealedReader *reader)
{
	if (BufferIsValid(reader->buffer))
		ReleaseBuffer(reader->buffer);
	reader->buffer = InvalidBuffer;
}

/* Close the table, whose lock is held until the end of the transaction. */
void
rsink_sealed_end(RsinkSealedReader *reader)
{
	rsink_sealed_rest(reader);
	if (reader->scan != NULL)
	{
		index_endscan(reader->scan);
		ExecDropSingleTupleTableSlot(reader->slot);
	}
	if (reader->rel != NULL)
	{
		index_close(reader->index, NoLock);
		table_close(reader->rel, NoLock);
	}
	reader->rel = reader->index = NULL;
	reader->scan = NULL;
}

/* Open the table and its index. Takes AccessShareLock on both. */
static void
open_table(RsinkSealedReader *reader)
{
	MemoryContext old = MemoryContextSwitchTo(reader->context);

	reader->rel = table_open(reader->relid, AccessShareLock);
	rsink_require_heap(reader->rel);
	reader->index = index_open(rsink_table_index(reader->rel, Anum_sealed_slice), AccessShareLock);
	MemoryContextSwitchTo(old);
}

/*
 * Read the row at this address, if SnapshotDirty sees one and it can be the row of
 * this slice for this fingerprint.
 */
static bool
read_row(RsinkSealedReader *reader, const ItemPointerData *tid, int32 slice, uint64 hi)
{
	SnapshotData dirty;

	rsink_sealed_rest(reader);
	if (ItemPointerGetBlockNumberNoCheck(tid) >= RelationGetNumberOfBlocks(reader->rel))
		return false;
	InitDirtySnapshot(dirty);
	reader->tuple.t_self = *tid;
	if (!heap_fetch(reader->rel, &dirty, &reader->tuple, &reader->buffer, false))
	{
		reader->buffer = InvalidBuffer;
		return false;
	}
	rsink_sealed_deform(RelationGetDescr(reader->rel), &reader->tuple, &reader->row);
	if (reader->row.slice != slice || reader->row.first > hi)
	{
		rsink_sealed_rest(reader);
		return false;
	}
	reader->tid = *tid;
	reader->state = TransactionIdIsValid(dirty.xmin) ? RSINK_ROW_UNFINISHED : RSINK_ROW_COUNTED;
	return true;
}

/* Find the row of a slice that may have a fingerprint in the table's index. */
static bool
search_row(RsinkSealedReader *reader, int32 slice, uint64 hi)
{
	MemoryContext old = MemoryContextSwitchTo(reader->context);
	ScanKeyData keys[2];
	ItemPointerData tid;
	bool		found;

	if (reader->scan == NULL)
	{
		InitDirtySnapshot(reader->dirty);
		reader->slot = table_slot_create(reader->rel, NULL);
		reader->scan = rsink_index_beginscan(reader->rel, reader->index, &reader->dirty, 2);
	}
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(slice));
	ScanKeyInit(&keys[1], 2, BTLessEqualStrategyNumber, F_INT8LE, Int64GetDatum(rsink_sealed_first(hi)));
	index_rescan(reader->scan, keys, 2, NULL, 0);
	found = index_getnext_slot(reader->scan, BackwardScanDirection, reader->slot);
	if (found)
		tid = reader->slot->tts_tid;
	ExecClearTuple(reader->slot);
	MemoryContextSwitchTo(old);
	return found && read_row(reader, &tid, slice, hi);
}

/*
 * Is the event with this fingerprint counted by the row of a slice to which the
 * candidate leads? Sets *payload to the payload hash in the row, unless the answer is
 * RSINK_ROW_GONE. The answer is RSINK_ROW_UNFINISHED while the transaction that seals
 * the slice goes on. The reader remembers the last row; "again" says to read its state
 * anew.
 *
 * The first call opens the table, with AccessShareLock.
 */
RsinkRowState
rsink_sealed_state(RsinkSealedReader *reader, const RsinkCandidate *candidate,
				   const RsinkFingerprint *fp, bool again, uint32 *payload)
{
	ItemPointerData tid;
	int			i;

	if (reader->rel == NULL)
		open_table(reader);
	ItemPointerSetInvalid(&tid);
	if (candidate->fence.block != InvalidBlockNumber)
		ItemPointerSet(&tid, candidate->fence.block, candidate->fence.offset);
	if (again || !BufferIsValid(reader->buffer) || reader->row.slice != candidate->slice ||
		!ItemPointerEquals(&reader->tid, &tid))
	{
		if (!(ItemPointerIsValid(&tid) && read_row(reader, &tid, candidate->slice, fp->hi) &&
			  reader->row.first == candidate->fence.first) &&
			!search_row(reader, candidate->slice, fp->hi))
			return RSINK_ROW_GONE;
	}
	if ((i = rsink_page_find(&reader->row.page, fp)) < 0)
		return RSINK_ROW_GONE;
	memcpy(payload, reader->row.page.payload + i * sizeof(uint32), sizeof(uint32));
	return reader->state;
}
