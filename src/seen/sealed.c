/*-------------------------------------------------------------------------
 *
 * sealed.c
 *	  The rows of sealed slices, and finding one of them.
 *
 * A row of a slice fills a page, as a page row does, and has the fingerprints between
 * its first one and the first one of the next row of the slice. A fence leads to the
 * row, or else the primary key of the table does (hint.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "apply/event.h"
#include "apply/fingerprint.h"
#include "core/catalog.h"
#include "seen/hint.h"
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
	rsink_hint_begin(&reader->hint, relid, Anum_sealed_slice);
}

/* Unpin the last row that was read. The reader may go on to read. */
void
rsink_sealed_rest(RsinkSealedReader *reader)
{
	rsink_hint_rest(&reader->hint);
}

/* Close the table, whose lock is held until the end of the transaction. */
void
rsink_sealed_end(RsinkSealedReader *reader)
{
	rsink_hint_end(&reader->hint);
}

/* Take the row just read apart, if it can be the row of this slice for this fingerprint. */
static bool
take_row(RsinkSealedReader *reader, const ItemPointerData *tid, int32 slice, uint64 hi)
{
	rsink_sealed_deform(RelationGetDescr(reader->hint.rel), &reader->hint.tuple, &reader->row);
	if (reader->row.slice != slice || reader->row.first > hi)
	{
		rsink_hint_rest(&reader->hint);
		return false;
	}
	reader->tid = *tid;
	return true;
}

/* Find the row of a slice that may have a fingerprint, by its fence or else by the primary key. */
static bool
find_row(RsinkSealedReader *reader, const RsinkCandidate *candidate, const ItemPointerData *tid, uint64 hi)
{
	return (rsink_hint_follow(&reader->hint, tid, InvalidBuffer) && take_row(reader, tid, candidate->slice, hi) &&
			reader->row.first == candidate->fence.first) ||
		(rsink_hint_search(&reader->hint, candidate->slice, Int64GetDatum(rsink_sealed_first(hi)), F_INT8LE) &&
		 take_row(reader, tid, candidate->slice, hi));
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

	rsink_hint_open(&reader->hint);
	ItemPointerSetInvalid(&tid);
	if (candidate->fence.block != InvalidBlockNumber)
		ItemPointerSet(&tid, candidate->fence.block, candidate->fence.offset);
	if ((again || !BufferIsValid(reader->hint.buffer) || reader->row.slice != candidate->slice ||
		 !ItemPointerIsValid(&tid) || !ItemPointerEquals(&reader->tid, &tid)) &&
		!find_row(reader, candidate, &tid, fp->hi))
		return RSINK_ROW_GONE;
	if ((i = rsink_page_find(&reader->row.page, fp)) < 0)
		return RSINK_ROW_GONE;
	memcpy(payload, reader->row.page.payload + i * sizeof(uint32), sizeof(uint32));
	return reader->hint.unfinished ? RSINK_ROW_UNFINISHED : RSINK_ROW_COUNTED;
}
