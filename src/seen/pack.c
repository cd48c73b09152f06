/*-------------------------------------------------------------------------
 *
 * pack.c
 *	  Packing: replaces the small page rows that small calls insert with full ones.
 *
 * A packed row is inserted, and entered into the index, before the rows that it
 * replaces are deleted, all in one transaction. The entries of the deleted rows
 * leave the index when that transaction has committed. So at every instant an
 * event that was seen is found under the old address, the new one, or both.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "apply/event.h"
#include "apply/fingerprint.h"
#include "core/compat.h"
#include "seen/expire.h"
#include "seen/pack.h"
#include "seen/seen.h"
#include "seen/seen_build.h"
#include "seen/seen_lookup.h"
#include "seen/seen_page.h"
#include "sink/choice.h"
#include "sink/sink.h"

/* The most small rows that are packed in one transaction. */
#define PACK_ROWS		20000

/*
 * The page table is read as a whole, so packing waits for this many new small
 * rows, and for one per this many blocks of the table.
 */
#define PACK_MIN_ROWS	1000
#define PACK_FRACTION	4

/*
 * The dedup window has this many parts. Rows are packed with others of their part, so
 * that they expire together.
 */
#define PACK_PARTS		32

typedef struct SmallRow
{
	ItemPointerData tid;
	TimestampTz oldest;
	TimestampTz newest;
	int			n;
	RsinkKey   *keys;			/* all with position 0 */
} SmallRow;

/* Are the row's events imported? Such rows are not packed with others. */
static bool
is_imported(const SmallRow *row)
{
	return row->oldest == RSINK_IMPORTED_OLDEST;
}

static int
compare_rows(const void *a, const void *b)
{
	const SmallRow *x = a;
	const SmallRow *y = b;

	if (is_imported(x) != is_imported(y))
		return is_imported(x) ? -1 : 1;
	return x->newest < y->newest ? -1 : x->newest > y->newest;
}

/*
 * Collect committed small rows, at most PACK_ROWS: imported ones first, and each kind
 * in the order of their newest events.
 */
static SmallRow *
collect(RsinkSeen *seen, int *nrows)
{
	Relation	rel = seen->pages.rel;
	SmallRow   *rows = palloc(PACK_ROWS * sizeof(SmallRow));
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	HeapTuple	tuple;

	*nrows = 0;
	while (*nrows < PACK_ROWS && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		RsinkPage	page;
		SmallRow   *row = &rows[*nrows];

		CHECK_FOR_INTERRUPTS();
		rsink_page_deform(RelationGetDescr(rel), tuple, &page);
		if (page.n >= RSINK_SMALL_ROW || page.n == 0)
			continue;
		row->tid = tuple->t_self;
		row->oldest = page.oldest;
		row->newest = page.newest;
		row->n = page.n;
		row->keys = palloc0(page.n * sizeof(RsinkKey));
		for (int i = 0; i < page.n; i++)
			rsink_page_key(&page, i, &row->keys[i].fp);
		(*nrows)++;
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	qsort(rows, *nrows, sizeof(SmallRow), compare_rows);
	return rows;
}

/*
 * Replace these rows, which have at most RSINK_PAGE_MAX fingerprints together, by
 * one. "keys" and "scratch" have room for so many. Takes the sink lock.
 */
static void
pack_rows(RsinkSeen *seen, const SmallRow *rows, int nrows, RsinkKey *keys, RsinkKey *scratch)
{
	TimestampTz oldest = DT_NOEND;
	TimestampTz newest = DT_NOBEGIN;
	int			n = 0;

	for (int r = 0; r < nrows; r++)
	{
		oldest = Min(oldest, rows[r].oldest);
		newest = Max(newest, rows[r].newest);
		for (int i = 0; i < rows[r].n; i++)
		{
			keys[n].fp = rows[r].keys[i].fp;
			keys[n].position = n;
			n++;
		}
	}
	rsink_sort_keys(keys, scratch, n);
	rsink_seen_lock(seen);
	rsink_seen_insert_row(seen, keys, n, oldest, newest);
	rsink_seen_unlock(seen);
	for (int r = 0; r < nrows; r++)
	{
		rsink_forget_entries(seen->sink, rows[r].keys, rows[r].n, &rows[r].tid);
		rsink_seen_deleting = true;
		CatalogTupleDelete(seen->pages.rel, (ItemPointer) &rows[r].tid);
	}
}

/*
 * Pack small rows, if there are enough of them, in the current transaction, which
 * must do nothing else. Returns the number of rows removed; none in mode
 * 'totals'. Caller holds the maintenance lock.
 */
int64
rsink_pack(RsinkSink *sink)
{
	MemoryContext context;
	MemoryContext old;
	RsinkSeen	seen;
	SmallRow   *rows;
	RsinkKey   *keys;
	RsinkKey   *scratch;
	int			nrows;
	int64		removed = 0;
	int64		part = Max(sink->dedup_window / PACK_PARTS, 1);
	uint32		small_rows = pg_atomic_read_u32(&sink->shared->small_rows);

	if (sink->mode == RSINK_TOTALS || small_rows < PACK_MIN_ROWS ||
		small_rows < sink->shared->known_blocks / PACK_FRACTION)
		return 0;
	/* the rows' entries leave the index when the transaction has committed */
	context = AllocSetContextCreate(TopTransactionContext, "revenue_sink pack", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	keys = palloc(RSINK_PAGE_MAX * sizeof(RsinkKey));
	scratch = palloc(RSINK_PAGE_MAX * sizeof(RsinkKey));
	rsink_seen_begin(&seen, sink, false);
	rows = collect(&seen, &nrows);
	for (int from = 0, to = 0; from < nrows; from = to)
	{
		int			n = 0;

		while (to < nrows && n + rows[to].n <= RSINK_PAGE_MAX &&
			   rows[to].newest / part == rows[from].newest / part &&
			   is_imported(&rows[to]) == is_imported(&rows[from]))
			n += rows[to++].n;
		if (n < RSINK_SMALL_ROW)
			continue;
		pack_rows(&seen, rows + from, to - from, keys, scratch);
		removed += to - from;
	}
	if (nrows < PACK_ROWS)
		pg_atomic_fetch_sub_u32(&sink->shared->small_rows, small_rows);
	rsink_seen_end(&seen);
	MemoryContextSwitchTo(old);
	return removed;
}
