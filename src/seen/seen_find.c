/*-------------------------------------------------------------------------
 *
 * seen_find.c
 *	  Which row counts an event, and which transaction has inserted that row?
 *
 * Where a sink has an index in shared memory, the answer comes from the index, as it
 * does for a writer. Elsewhere (on a standby, in a copy, without the library preloaded)
 * all page rows are read, and one row of each sealed slice.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "apply/event.h"
#include "core/catalog.h"
#include "core/compat.h"
#include "seen/run.h"
#include "seen/sealed.h"
#include "seen/seen.h"
#include "seen/seen_build.h"
#include "seen/seen_find.h"
#include "seen/seen_index.h"
#include "seen/slice_load.h"

/*
 * How often the row of an unfinished transaction is looked for. It isn't found only if the
 * transaction has ended meanwhile.
 */
#define MAX_TRIES		10

/* Note what a page row says of its events. */
static void
note_row(RsinkFound *found, HeapTuple tuple, const RsinkPage *page)
{
	found->xid = HeapTupleHeaderGetXmin(tuple->t_data);
	found->oldest = page->oldest;
	found->newest = page->newest;
}

/* Look for an event in all page rows that a snapshot sees. */
static void
scan_pages(const RsinkSink *sink, const RsinkFingerprint *fp, Snapshot snapshot, RsinkFound *found)
{
	Relation	rel = table_open(sink->seen, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	HeapTuple	tuple;

	while (found->state != RSINK_ROW_COUNTED && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		unfinished = snapshot->snapshot_type == SNAPSHOT_DIRTY && TransactionIdIsValid(snapshot->xmin);
		RsinkPage	page;

		CHECK_FOR_INTERRUPTS();
		rsink_page_deform(RelationGetDescr(rel), tuple, &page);
		if (rsink_page_find(&page, fp) < 0)
			continue;
		found->state = unfinished ? RSINK_ROW_UNFINISHED : RSINK_ROW_COUNTED;
		note_row(found, tuple, &page);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/* Has one of the sealed slices that a snapshot sees this event? */
static bool
scan_slices(const RsinkSink *sink, const RsinkFingerprint *fp, Snapshot snapshot)
{
	Relation	rel = table_open(sink->sealed, AccessShareLock);
	Relation	index = index_open(rsink_table_index(rel, Anum_sealed_slice), AccessShareLock);
	bool		has = false;
	RsinkSliceRow *slices;
	int			n;

	slices = rsink_slices_read(sink, snapshot, &n);
	for (int i = 0; i < n && !has; i++)
	{
		ScanKeyData keys[2];
		SysScanDesc scan;
		HeapTuple	tuple;

		CHECK_FOR_INTERRUPTS();
		ScanKeyInit(&keys[0], Anum_sealed_slice, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(slices[i].number));
		ScanKeyInit(&keys[1], Anum_sealed_first, BTLessEqualStrategyNumber, F_INT8LE,
					Int64GetDatum(rsink_sealed_first(fp->hi)));
		scan = systable_beginscan_ordered(rel, index, snapshot, 2, keys);
		if (HeapTupleIsValid(tuple = systable_getnext_ordered(scan, BackwardScanDirection)))
		{
			RsinkSealedRow row;

			rsink_sealed_deform(RelationGetDescr(rel), tuple, &row);
			has = rsink_page_find(&row.page, fp) >= 0;
		}
		systable_endscan_ordered(scan);
	}
	pfree(slices);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return has;
}

/*
 * Is an event counted, as far as an MVCC snapshot sees? Needs no shared memory, and reads
 * all page rows. Takes AccessShareLock on the tables for a moment.
 */
bool
rsink_seen_scan(const RsinkSink *sink, const RsinkFingerprint *fp, Snapshot snapshot)
{
	RsinkFound	found = {.state = RSINK_ROW_GONE};

	scan_pages(sink, fp, snapshot, &found);
	return found.state == RSINK_ROW_COUNTED || scan_slices(sink, fp, snapshot);
}

/*
 * Find the row without the index. A scan with SnapshotDirty may miss a row that moves,
 * for example when it is packed. So the first scan has the active snapshot, and the
 * second one is only for what isn't finished in that snapshot.
 */
static void
find_by_scan(const RsinkSink *sink, const RsinkFingerprint *fp, RsinkFound *found)
{
	SnapshotData dirty;

	scan_pages(sink, fp, GetActiveSnapshot(), found);
	if (found->state == RSINK_ROW_COUNTED)
		return;
	if (scan_slices(sink, fp, GetActiveSnapshot()))
	{
		found->state = RSINK_ROW_COUNTED;
		return;
	}
	InitDirtySnapshot(dirty);
	scan_pages(sink, fp, &dirty, found);
}

/* Does the page row at this address give the answer that was found? Then note what it says. */
static bool
is_page_row(RsinkPageReader *reader, const ItemPointerData *tid, const RsinkFingerprint *fp, RsinkFound *found)
{
	uint32		payload;

	if (rsink_page_state(reader, tid, fp, true, &payload) != found->state)
		return false;
	note_row(found, &reader->tuple, &reader->page);
	return true;
}

/*
 * Find the page row to which the index or a run leads and which gives the answer that was
 * found. Events of sealed slices have none. Takes the sink lock for short moments.
 */
static bool
find_page_row(RsinkSeen *seen, const RsinkFingerprint *fp, RsinkFound *found)
{
	const RsinkKey key = {.fp = *fp};
	ItemPointerData tids[RSINK_INDEX_CANDIDATES];
	RsinkRunAnswer maybe = {0};
	uint64		before = PG_UINT64_MAX;
	bool		has = false;
	bool		more = true;
	RsinkPageReader reader;
	int			n;

	rsink_seen_lock(seen);
	n = rsink_index_lookup(&seen->shared->index, fp, tids);
	rsink_seen_unlock(seen);
	while (more)
	{
		CHECK_FOR_INTERRUPTS();
		LWLockAcquire(&seen->shared->lock, LW_SHARED);
		more = rsink_runs_ask(&seen->shared->runs, 0, &before, &key, 1, &maybe);
		LWLockRelease(&seen->shared->lock);
	}
	rsink_page_reader_begin(&reader, seen->pages.rel);
	for (int i = 0; i < n && !has; i++)
		has = is_page_row(&reader, &tids[i], fp, found);
	for (int i = 0; i < maybe.n && !has; i++)
	{
		CHECK_FOR_INTERRUPTS();
		has = is_page_row(&reader, &maybe.candidates[i].tid, fp, found);
	}
	rsink_page_reader_end(&reader);
	if (maybe.candidates != NULL)
		pfree(maybe.candidates);
	return has;
}

/*
 * Find the row that counts an event at this instant, or that an unfinished transaction
 * has inserted to count it. Takes RowExclusiveLock on the page table, and the sink lock for
 * short moments; where there is no index, AccessShareLock on the tables for a moment.
 */
void
rsink_seen_find(RsinkSink *sink, const RsinkFingerprint *fp, RsinkFound *found)
{
	RsinkSeen	seen;
	bool		has = false;

	found->state = RSINK_ROW_GONE;
	found->xid = InvalidTransactionId;
	found->oldest = found->newest = DT_NOBEGIN;
	if (sink->shared == NULL || sink->problem != RSINK_READY)
	{
		find_by_scan(sink, fp, found);
		return;
	}
	rsink_seen_begin(&seen, sink, false);
	for (int i = 0; i < MAX_TRIES && !has; i++)
	{
		uint32		payload;

		CHECK_FOR_INTERRUPTS();
		found->state = rsink_seen_state(&seen, fp, &payload);
		if (found->state == RSINK_ROW_GONE)
			break;
		has = find_page_row(&seen, fp, found);
		if (found->state == RSINK_ROW_COUNTED)
			break;
	}
	rsink_seen_end(&seen);
}
