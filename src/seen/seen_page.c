/*-------------------------------------------------------------------------
 *
 * seen_page.c
 *	  Page rows: heap rows with as many fingerprints as fit in a page.
 *
 * A page row is an ordinary heap row, so visibility, WAL, two-phase commit,
 * replication and vacuum are PostgreSQL's own. A page row has its fingerprints
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

#include "apply/event.h"
#include "apply/fingerprint.h"
#include "core/catalog.h"
#include "core/compat.h"
#include "seen/seen_page.h"

/* The fingerprints of n sorted keys, RSINK_PAGE_MAX at most, as a row has them. */
bytea *
rsink_page_bytes(const RsinkKey *keys, int n)
{
	Size		size = VARHDRSZ + n * RSINK_FINGERPRINT_BYTES;
	bytea	   *bytes = palloc(size);
	char	   *hi = VARDATA(bytes);
	char	   *lo = hi + n * sizeof(uint64);
	char	   *payload = lo + n * sizeof(uint64);

	Assert(n > 0 && n <= RSINK_PAGE_MAX);
	SET_VARSIZE(bytes, size);
	for (int i = 0; i < n; i++)
	{
		memcpy(hi + i * sizeof(uint64), &keys[i].fp.hi, sizeof(uint64));
		memcpy(lo + i * sizeof(uint64), &keys[i].fp.lo, sizeof(uint64));
		memcpy(payload + i * sizeof(uint32), &keys[i].fp.payload, sizeof(uint32));
	}
	return bytes;
}

/*
 * Let a page, whose number of fingerprints is set, point to the fingerprints in a
 * column of the row at this address. Raises data_corrupted if they can't be as many.
 */
void
rsink_page_point(RsinkPage *page, Datum fingerprints, bool isnull, const ItemPointerData *tid)
{
	const struct varlena *bytes = (const struct varlena *) DatumGetPointer(fingerprints);

	if (isnull || VARATT_IS_EXTERNAL(bytes) || VARATT_IS_COMPRESSED(bytes) || page->n > RSINK_PAGE_MAX ||
		VARSIZE_ANY_EXHDR(bytes) != page->n * RSINK_FINGERPRINT_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("page row (%u,%u) has damaged fingerprints",
						ItemPointerGetBlockNumberNoCheck(tid), ItemPointerGetOffsetNumberNoCheck(tid))));
	page->hi = VARDATA_ANY(bytes);
	page->lo = page->hi + page->n * sizeof(uint64);
	page->payload = page->lo + page->n * sizeof(uint64);
}

/*
 * Make a page row of n sorted keys, RSINK_PAGE_MAX at most, of events between
 * oldest and newest.
 */
HeapTuple
rsink_page_form(TupleDesc desc, const RsinkKey *keys, int n,
				TimestampTz oldest, TimestampTz newest)
{
	Datum		values[Natts_seen];
	bool		nulls[Natts_seen] = {false};
	bytea	   *bytes = rsink_page_bytes(keys, n);
	HeapTuple	tuple;

	values[Anum_seen_oldest - 1] = TimestampTzGetDatum(oldest);
	values[Anum_seen_newest - 1] = TimestampTzGetDatum(newest);
	values[Anum_seen_events - 1] = Int32GetDatum(n);
	values[Anum_seen_fingerprints - 1] = PointerGetDatum(bytes);
	tuple = heap_form_tuple(desc, values, nulls);
	pfree(bytes);
	return tuple;
}

/*
 * Take a page row apart. The result points into the tuple, so it is valid as long
 * as the tuple is. Raises data_corrupted if the tuple can't be a page row.
 */
void
rsink_page_deform(TupleDesc desc, HeapTuple tuple, RsinkPage *page)
{
	Datum		values[Natts_seen];
	bool		nulls[Natts_seen];

	heap_deform_tuple(tuple, desc, values, nulls);
	page->oldest = DatumGetTimestampTz(values[Anum_seen_oldest - 1]);
	page->newest = DatumGetTimestampTz(values[Anum_seen_newest - 1]);
	page->n = DatumGetInt32(values[Anum_seen_events - 1]);
	rsink_page_point(page, values[Anum_seen_fingerprints - 1], nulls[Anum_seen_fingerprints - 1],
					 &tuple->t_self);
}

static inline uint64
load64(const char *array, int i)
{
	uint64		value;

	memcpy(&value, array + i * sizeof(uint64), sizeof(uint64));
	return value;
}

/* The i-th fingerprint of a page row, with its payload hash. */
void
rsink_page_key(const RsinkPage *page, int i, RsinkFingerprint *fp)
{
	fp->hi = load64(page->hi, i);
	fp->lo = load64(page->lo, i);
	memcpy(&fp->payload, page->payload + i * sizeof(uint32), sizeof(uint32));
}

/*
 * The position of a fingerprint in a page row, or -1 if the row does not have it.
 */
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

/* Start reading page rows of this table, which the caller has open. */
void
rsink_page_reader_begin(RsinkPageReader *reader, Relation rel)
{
	memset(reader, 0, sizeof(RsinkPageReader));
	reader->rel = rel;
	reader->buffer = InvalidBuffer;
	ItemPointerSetInvalid(&reader->tid);
}

/*
 * Unpin the last row that was read, and forget its state. The reader may go on to
 * read.
 */
void
rsink_page_reader_end(RsinkPageReader *reader)
{
	if (BufferIsValid(reader->buffer))
		ReleaseBuffer(reader->buffer);
	reader->buffer = InvalidBuffer;
	ItemPointerSetInvalid(&reader->tid);
}

/* Read the row at this address as it is at this instant. False: there is none. */
static bool
read_row(RsinkPageReader *reader, const ItemPointerData *tid)
{
	SnapshotData dirty;

	rsink_page_reader_end(reader);
	if (ItemPointerGetBlockNumberNoCheck(tid) >= reader->nblocks)
		reader->nblocks = RelationGetNumberOfBlocks(reader->rel);
	if (ItemPointerGetBlockNumberNoCheck(tid) >= reader->nblocks)
		return false;
	InitDirtySnapshot(dirty);
	reader->tuple.t_self = *tid;
	if (!heap_fetch(reader->rel, &dirty, &reader->tuple, &reader->buffer, false))
	{
		reader->buffer = InvalidBuffer;
		return false;
	}
	reader->tid = *tid;
	reader->state = TransactionIdIsValid(dirty.xmin) ? RSINK_ROW_UNFINISHED : RSINK_ROW_COUNTED;
	rsink_page_deform(RelationGetDescr(reader->rel), &reader->tuple, &reader->page);
	return true;
}

/*
 * Is there a row at this address, as it is at this instant, whose least fingerprint has
 * this upper half?
 */
bool
rsink_page_begins(RsinkPageReader *reader, const ItemPointerData *tid, uint64 first)
{
	return read_row(reader, tid) && reader->page.n > 0 && load64(reader->page.hi, 0) == first;
}

/*
 * Is the event with this fingerprint counted by the row at this address? Sets
 * *payload to the payload hash in the row, unless the answer is RSINK_ROW_GONE.
 * The reader keeps the last row pinned and remembers its state; "again" says to
 * read that state anew, as it is at this instant.
 *
 * SnapshotDirty is what a unique index asks with: it sees what is committed at
 * this instant, whatever the caller's own snapshot; it takes rows of the current
 * transaction and its subtransactions as they are; and it says which unfinished
 * transaction has inserted a row. Addresses come from hints: a line pointer may
 * by now be unused, redirected, or another row's.
 */
RsinkRowState
rsink_page_state(RsinkPageReader *reader, const ItemPointerData *tid,
				 const RsinkFingerprint *fp, bool again, uint32 *payload)
{
	int			i;

	if ((again || !ItemPointerIsValid(&reader->tid) ||
		 !ItemPointerEquals(&reader->tid, (ItemPointer) tid)) && !read_row(reader, tid))
		return RSINK_ROW_GONE;
	if ((i = rsink_page_find(&reader->page, fp)) < 0)
		return RSINK_ROW_GONE;
	memcpy(payload, reader->page.payload + i * sizeof(uint32), sizeof(uint32));
	return reader->state;
}
