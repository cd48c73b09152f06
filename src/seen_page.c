/*-------------------------------------------------------------------------
 *
 * seen_page.c
 *	  Page rows: the fingerprints of one call, as rows that fill a page.
 *
 * A page row is an ordinary heap row, so visibility, WAL, two-phase commit,
 * replication and vacuum are PostgreSQL's own. The fingerprints stand in it
 * sorted, as three arrays: the upper halves, which a search reads, the lower
 * halves, and the payload hashes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "seen_page.h"

/* Make a row of n sorted keys. */
HeapTuple
rsink_page_form(TupleDesc desc, const RsinkKey *keys, int n,
				TimestampTz oldest, TimestampTz newest)
{
	Size		size = VARHDRSZ + n * RSINK_FINGERPRINT_BYTES;
	bytea	   *bytes = palloc(size);
	char	   *hi = VARDATA(bytes);
	char	   *lo = hi + n * sizeof(uint64);
	char	   *payload = lo + n * sizeof(uint64);
	Datum		values[Natts_seen];
	bool		nulls[Natts_seen] = {false};
	HeapTuple	tuple;

	Assert(n > 0 && n <= RSINK_PAGE_MAX);
	SET_VARSIZE(bytes, size);
	for (int i = 0; i < n; i++)
	{
		memcpy(hi + i * sizeof(uint64), &keys[i].fp.hi, sizeof(uint64));
		memcpy(lo + i * sizeof(uint64), &keys[i].fp.lo, sizeof(uint64));
		memcpy(payload + i * sizeof(uint32), &keys[i].fp.payload, sizeof(uint32));
	}
	values[Anum_seen_oldest - 1] = TimestampTzGetDatum(oldest);
	values[Anum_seen_newest - 1] = TimestampTzGetDatum(newest);
	values[Anum_seen_events - 1] = Int32GetDatum(n);
	values[Anum_seen_fingerprints - 1] = PointerGetDatum(bytes);
	tuple = heap_form_tuple(desc, values, nulls);
	pfree(bytes);
	return tuple;
}

/* Take a row apart. Raises data_corrupted for what can't be a page row. */
void
rsink_page_deform(TupleDesc desc, HeapTuple tuple, RsinkPage *page)
{
	Datum		values[Natts_seen];
	bool		nulls[Natts_seen];
	const struct varlena *bytes;

	heap_deform_tuple(tuple, desc, values, nulls);
	bytes = (const struct varlena *) DatumGetPointer(values[Anum_seen_fingerprints - 1]);
	page->oldest = DatumGetTimestampTz(values[Anum_seen_oldest - 1]);
	page->newest = DatumGetTimestampTz(values[Anum_seen_newest - 1]);
	page->n = DatumGetInt32(values[Anum_seen_events - 1]);
	if (nulls[Anum_seen_fingerprints - 1] ||
		VARATT_IS_EXTERNAL(bytes) || VARATT_IS_COMPRESSED(bytes) || page->n > RSINK_PAGE_MAX ||
		VARSIZE_ANY_EXHDR(bytes) != page->n * RSINK_FINGERPRINT_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("row (%u,%u) is not a row of fingerprints",
						ItemPointerGetBlockNumberNoCheck(&tuple->t_self),
						ItemPointerGetOffsetNumberNoCheck(&tuple->t_self))));
	page->hi = VARDATA_ANY(bytes);
	page->lo = page->hi + page->n * sizeof(uint64);
	page->payload = page->lo + page->n * sizeof(uint64);
}

static inline uint64
load64(const char *array, int i)
{
	uint64		value;

	memcpy(&value, array + i * sizeof(uint64), sizeof(uint64));
	return value;
}

/* The i-th fingerprint of a row. */
void
rsink_page_key(const RsinkPage *page, int i, RsinkFingerprint *fp)
{
	fp->hi = load64(page->hi, i);
	fp->lo = load64(page->lo, i);
	memcpy(&fp->payload, page->payload + i * sizeof(uint32), sizeof(uint32));
}

/* Where in the row is this event? -1: nowhere. */
int
rsink_page_find(const RsinkPage *page, const RsinkFingerprint *fp)
{
	int			low = 0;
	int			high = page->n;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (load64(page->hi, middle) < fp->hi)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < page->n && load64(page->hi, low) == fp->hi; low++)
	{
		if (load64(page->lo, low) == fp->lo)
			return low;
	}
	return -1;
}

void
rsink_page_reader_begin(RsinkPageReader *reader, Relation rel)
{
	memset(reader, 0, sizeof(RsinkPageReader));
	reader->rel = rel;
	reader->buffer = InvalidBuffer;
	ItemPointerSetInvalid(&reader->tid);
}

/* Let go of the pinned row, which also forgets its state. */
void
rsink_page_reader_end(RsinkPageReader *reader)
{
	if (BufferIsValid(reader->buffer))
		ReleaseBuffer(reader->buffer);
	reader->buffer = InvalidBuffer;
	ItemPointerSetInvalid(&reader->tid);
}

/*
 * Is this event counted by the row at this address? "again" reads the row's
 * state anew; else it may be as old as the caller's last reader_end().
 *
 * SnapshotDirty is what a unique index asks with: it sees what is committed at
 * this instant whatever the caller's own snapshot, follows own and
 * subtransactions, and says who is still at it. Addresses come from hints: a
 * line pointer may be unused, redirected, or another row's by now.
 */
RsinkRowState
rsink_page_state(RsinkPageReader *reader, const ItemPointerData *tid,
				 const RsinkFingerprint *fp, bool again, uint32 *payload)
{
	int			i;

	if (again || !ItemPointerIsValid(&reader->tid) ||
		!ItemPointerEquals(&reader->tid, (ItemPointer) tid))
	{
		SnapshotData dirty;

		rsink_page_reader_end(reader);
		if (ItemPointerGetBlockNumberNoCheck(tid) >= reader->nblocks)
			reader->nblocks = RelationGetNumberOfBlocks(reader->rel);
		if (ItemPointerGetBlockNumberNoCheck(tid) >= reader->nblocks)
			return RSINK_ROW_GONE;
		InitDirtySnapshot(dirty);
		reader->tuple.t_self = *tid;
		if (!heap_fetch(reader->rel, &dirty, &reader->tuple, &reader->buffer, false))
		{
			reader->buffer = InvalidBuffer;
			return RSINK_ROW_GONE;
		}
		reader->tid = *tid;
		reader->state = TransactionIdIsValid(dirty.xmin) ? RSINK_ROW_OPEN : RSINK_ROW_COUNTED;
		rsink_page_deform(RelationGetDescr(reader->rel), &reader->tuple, &reader->page);
	}
	if ((i = rsink_page_find(&reader->page, fp)) < 0)
		return RSINK_ROW_GONE;
	memcpy(payload, reader->page.payload + i * sizeof(uint32), sizeof(uint32));
	return reader->state;
}
