/*-------------------------------------------------------------------------
 *
 * expire.c
 *	  The horizon, and forgetting what lies behind it.
 *
 * An event at or before the horizon is late: it can't be told from a duplicate
 * any more. So the horizon must have been raised, for everybody, before the first
 * row behind it is deleted. An entry may leave the index only when the deletion
 * of its row has committed, because until then the row may come back.
 *
 * The horizon is the watermark less the dedup window, held back by events that
 * aren't decided yet: deferred events, and those in unfinished transactions. If
 * such a transaction rolls back, its events will be delivered again, and must not
 * be late then. Imported events neither move the watermark nor hold back the horizon;
 * see own.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "common/int.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "apply/fingerprint.h"
#include "core/catalog.h"
#include "core/compat.h"
#include "core/spi_util.h"
#include "seen/expire.h"
#include "seen/own.h"
#include "seen/seal.h"
#include "seen/seen.h"
#include "seen/seen_index.h"
#include "seen/seen_lookup.h"
#include "seen/seen_page.h"
#include "sink/choice.h"
#include "sink/sink.h"
#include "sink/slot.h"

/* The most rows that one call deletes. The next round deletes more. */
#define EXPIRE_ROWS 4000

/* Entries that leave the index in one hold of the sink lock. */
#define FORGET_HOLD 4096

/* The CPU is asked for the places of entries this far ahead. */
#define FORGET_AHEAD	8

/* How many times rsink_forget_entries() may be called before its list must grow. */
#define FORGET_LEAST	64

/* Entries that are to leave the index: that of keys[i] leads to tids[keys[i].position]. */
typedef struct Entries
{
	const RsinkKey *keys;
	const ItemPointerData *tids;
	int			n;
} Entries;

int			rsink_writer_idle = 300;	/* seconds without a commit */

/*
 * Entries that leave the index of one sink if the current transaction commits;
 * forget_shared is the slot of that sink, forget_seen its page table.
 */
static RsinkShared *forget_shared;
static Oid	forget_seen;
static Entries *forget;			/* in TopTransactionContext */
static int	nforget;
static int	maxforget;

/*
 * A time in shared memory, the horizon or retained_from, that a part of the
 * current transaction has raised.
 */
typedef struct Raised
{
	SubTransactionId subid;		/* the subtransaction that has raised it */
	RsinkShared *shared;
	Oid			seen;			/* the sink's page table */
	TimestampTz *field;			/* of *shared */
	TimestampTz from;			/* its value before */
	struct Raised *next;
} Raised;

static Raised *raised;			/* in TopTransactionContext, the latest first */

/*
 * Have entries leave the index once the current transaction has committed: that of
 * keys[i] leads to the row tids[keys[i].position]. Both arrays must stay as they are until
 * the end of the transaction, and so belong into TopTransactionContext. This works for one
 * sink per transaction; entries of other sinks stay, which does no harm.
 */
void
rsink_forget_entries(RsinkSink *sink, const RsinkKey *keys, int n, const ItemPointerData *tids)
{
	if (nforget > 0 && forget_seen != sink->seen)
		return;					/* an entry that stays does no harm */
	forget_shared = sink->shared;
	forget_seen = sink->seen;
	if (nforget == maxforget)
	{
		maxforget = Max(maxforget * 2, FORGET_LEAST);
		if (forget == NULL)
			forget = MemoryContextAlloc(TopTransactionContext, maxforget * sizeof(Entries));
		else
			forget = repalloc(forget, maxforget * sizeof(Entries));
	}
	forget[nforget].keys = keys;
	forget[nforget].tids = tids;
	forget[nforget++].n = n;
}

/* Remove entries from the index. Takes the sink lock. */
static void
remove_entries(const Entries *entries)
{
	for (int from = 0; from < entries->n; from += FORGET_HOLD)
	{
		LWLockAcquire(&forget_shared->lock, LW_EXCLUSIVE);
		if (forget_shared->seen == forget_seen)
			for (int i = from; i < Min(from + FORGET_HOLD, entries->n); i++)
			{
				const RsinkKey *key = &entries->keys[i];

				if (i + FORGET_AHEAD < entries->n)
					rsink_index_prefetch(&forget_shared->index, &entries->keys[i + FORGET_AHEAD].fp);
				rsink_index_remove(&forget_shared->index, &key->fp, &entries->tids[key->position]);
			}
		LWLockRelease(&forget_shared->lock);
	}
}

/*
 * Put back the times that a subtransaction, or (InvalidSubTransactionId) the
 * whole transaction, has raised.
 */
static void
lower_raised(SubTransactionId subid)
{
	Raised	  **link = &raised;

	while (*link != NULL)
	{
		Raised	   *r = *link;

		if (subid != InvalidSubTransactionId && r->subid != subid)
		{
			link = &r->next;
			continue;
		}
		LWLockAcquire(&r->shared->lock, LW_EXCLUSIVE);
		if (r->shared->seen == r->seen)
			*r->field = r->from;
		LWLockRelease(&r->shared->lock);
		*link = r->next;
	}
}

static void
drop_plans(void)
{
	forget = NULL;
	nforget = maxforget = 0;
	raised = NULL;
	rsink_seen_deleting = false;
}

static void
xact_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT)
	{
		for (int i = 0; i < nforget; i++)
			remove_entries(&forget[i]);
	}
	else if (event == XACT_EVENT_ABORT)
		lower_raised(InvalidSubTransactionId);
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		drop_plans();
}

/*
 * The rollback of a savepoint may bring deleted rows back. It is not worth
 * knowing which ones: all entries stay, since an entry that stays does no harm.
 */
static void
subxact_callback(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		lower_raised(mine);
		nforget = 0;
	}
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		for (Raised *r = raised; r != NULL; r = r->next)
			if (r->subid == mine)
				r->subid = parent;
	}
}

/* Called once per process, from _PG_init. */
void
rsink_init_expire(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}

/*
 * The watermark, as of the current snapshot: each live writer has a newest event
 * time, and the least of these is the watermark. Without live writers it is the
 * newest event time of all page rows and slices, but for imported events.
 */
static TimestampTz
read_watermark(const RsinkSeen *seen)
{
	const RsinkSink *sink = seen->sink;

	rsink_spi(SPI_OK_SELECT,
			  "SELECT min(newest) FROM (SELECT max(newest) AS newest FROM revenue_sink.ledger "
			  "  WHERE sink_id = %d GROUP BY job, writer "
			  "  HAVING max(ended_at) > now() - make_interval(secs => %d)) AS live",
			  sink->id, rsink_writer_idle);
	if (rsink_spi_int64(0, 1, DT_NOBEGIN) != DT_NOBEGIN)
		return rsink_spi_int64(0, 1, DT_NOBEGIN);

	/* with imported rows only, the query would read all of them */
	rsink_spi(SPI_OK_SELECT, "SELECT greatest((SELECT max(newest) FROM revenue_sink.%s WHERE %s), "
			  "(SELECT max(own_newest) FROM revenue_sink.%s))", get_rel_name(sink->seen),
			  rsink_own_row_exists(seen) ? "oldest > '-infinity'" : "false", get_rel_name(sink->slice));
	return rsink_spi_int64(0, 1, DT_NOBEGIN);
}

/*
 * Lower a candidate for the horizon below all events that aren't decided:
 * deferred events, and those in unfinished transactions, the current one
 * included. Events that are late already, at or before the horizon as it is,
 * don't count.
 */
static TimestampTz
hold_back(RsinkSeen *seen, TimestampTz horizon, TimestampTz candidate)
{
	Relation	deferred = table_open(rsink_catalog_relid("deferred_event"), AccessShareLock);
	Relation	pages = seen->pages.rel;
	SnapshotData dirty;
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		isnull;

	InitDirtySnapshot(dirty);
	ScanKeyInit(&keys[0], Anum_deferred_sink_id, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(seen->sink->id));
	scan = systable_beginscan(deferred, rsink_table_index(deferred, Anum_deferred_sink_id), true,
							  &dirty, 1, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		TimestampTz time = DatumGetTimestampTz(heap_getattr(tuple, Anum_deferred_event_time,
															RelationGetDescr(deferred), &isnull));

		if (time > horizon)
			candidate = Min(candidate, time - 1);
	}
	systable_endscan(scan);
	table_close(deferred, AccessShareLock);

	ScanKeyInit(&keys[0], Anum_seen_oldest, BTGreaterStrategyNumber, F_TIMESTAMPTZ_GT,
				TimestampTzGetDatum(horizon));
	ScanKeyInit(&keys[1], Anum_seen_oldest, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE,
				TimestampTzGetDatum(candidate));
	scan = systable_beginscan(pages, rsink_table_index(pages, Anum_seen_oldest), true,
							  &dirty, 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		TransactionId xmin = HeapTupleHeaderGetXmin(tuple->t_data);

		if (TransactionIdIsValid(dirty.xmin) || TransactionIdIsCurrentTransactionId(xmin))
		{
			TimestampTz time = DatumGetTimestampTz(heap_getattr(tuple, Anum_seen_oldest,
																RelationGetDescr(pages), &isnull));

			candidate = Min(candidate, time - 1);
		}
	}
	systable_endscan(scan);
	return candidate;
}

/*
 * Raise a time in the sink's shared memory, *field, to the candidate, but not
 * past what has been claimed since low_claim was reset. "includes" says that an
 * event at just this time counts as behind it. Returns the time that *field has
 * then. The time falls back if the current transaction, or subtransaction, is
 * rolled back. Takes the sink lock.
 */
TimestampTz
rsink_raise(const RsinkSink *sink, TimestampTz *field, TimestampTz candidate, bool includes)
{
	RsinkShared *shared = sink->shared;
	Raised	   *r = MemoryContextAlloc(TopTransactionContext, sizeof(Raised));
	TimestampTz result;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	if (shared->low_claim != DT_NOEND)
		candidate = Min(candidate, includes ? shared->low_claim - 1 : shared->low_claim);
	if (candidate > *field)
	{
		r->subid = GetCurrentSubTransactionId();
		r->shared = shared;
		r->seen = sink->seen;
		r->field = field;
		r->from = *field;
		r->next = raised;
		raised = r;
		*field = candidate;
	}
	result = *field;
	LWLockRelease(&shared->lock);
	return result;
}

/*
 * Raise the horizon in shared memory to the candidate, or as far as events that
 * aren't decided let it; returns the horizon. A claim made while the tables are
 * searched for such events shows in low_claim.
 */
static TimestampTz
raise_horizon(RsinkSeen *seen, TimestampTz candidate)
{
	RsinkShared *shared = seen->shared;
	TimestampTz horizon;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	shared->low_claim = DT_NOEND;
	horizon = shared->horizon;
	LWLockRelease(&shared->lock);
	if (candidate <= horizon || (candidate = hold_back(seen, horizon, candidate)) <= horizon)
		return horizon;
	return rsink_raise(seen->sink, &shared->horizon, candidate, true);
}

/*
 * Delete page rows that have all of their events behind the horizon, EXPIRE_ROWS
 * at most. Returns how many rows, and adds the number of their events to *events.
 */
static int64
delete_rows(RsinkSeen *seen, TimestampTz horizon, int64 *events)
{
	Relation	pages = seen->pages.rel;
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	int64		removed = 0;
	ScanKeyData scan_keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	/* the arrival row, whose time is before all times, stays */
	ScanKeyInit(&scan_keys[0], Anum_seen_newest, BTGreaterStrategyNumber, F_TIMESTAMPTZ_GT,
				TimestampTzGetDatum(DT_NOBEGIN));
	ScanKeyInit(&scan_keys[1], Anum_seen_newest, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE,
				TimestampTzGetDatum(horizon));
	scan = systable_beginscan(pages, rsink_table_index(pages, Anum_seen_newest), true,
							  snapshot, 2, scan_keys);
	while (removed < EXPIRE_ROWS && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		RsinkPage	page;
		RsinkKey   *keys;
		ItemPointer tid = MemoryContextAlloc(TopTransactionContext, sizeof(ItemPointerData));

		rsink_page_deform(RelationGetDescr(pages), tuple, &page);
		keys = MemoryContextAlloc(TopTransactionContext, page.n * sizeof(RsinkKey));
		for (int i = 0; i < page.n; i++)
		{
			rsink_page_key(&page, i, &keys[i].fp);
			keys[i].position = 0;
		}
		*tid = tuple->t_self;
		rsink_forget_entries(seen->sink, keys, page.n, tid);
		rsink_seen_deleting = true;
		CatalogTupleDelete(pages, &tuple->t_self);
		*events += page.n;
		removed++;
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	return removed;
}

static const char *
time_literal(TimestampTz time)
{
	return TIMESTAMP_NOT_FINITE(time) ? "NULL" : psprintf("'%s'", timestamptz_to_str(time));
}

/*
 * Raise the watermark and the horizon, and delete what the dedup window no longer
 * covers, in the current transaction. Returns the number of rows deleted; none in
 * mode 'totals'. Caller holds the maintenance lock.
 */
int64
rsink_expire(RsinkSink *sink)
{
	RsinkSeen	seen;
	RsinkSpi	spi;
	TimestampTz watermark;
	TimestampTz horizon;
	TimestampTz old_watermark;
	TimestampTz candidate;
	TimestampTz old_horizon;
	int64		removed;
	int64		events = 0;

	if (sink->mode == RSINK_TOTALS)
		return 0;
	rsink_seen_begin(&seen, sink, false);
	rsink_spi_begin(&spi);
	rsink_spi(SPI_OK_SELECT, "SELECT watermark, horizon FROM revenue_sink.sink_state WHERE sink_id = %d",
			  sink->id);
	old_watermark = watermark = SPI_processed > 0 ? rsink_spi_int64(0, 1, DT_NOBEGIN) : DT_NOBEGIN;
	old_horizon = horizon = SPI_processed > 0 ? rsink_spi_int64(0, 2, DT_NOBEGIN) : DT_NOBEGIN;

	/* a restore may have brought a horizon that shared memory doesn't know */
	LWLockAcquire(&sink->shared->lock, LW_EXCLUSIVE);
	sink->shared->horizon = Max(sink->shared->horizon, horizon);
	LWLockRelease(&sink->shared->lock);

	watermark = Max(watermark, read_watermark(&seen));
	if (watermark != DT_NOBEGIN &&
		!pg_sub_s64_overflow(watermark, sink->dedup_window, &candidate) &&
		IS_VALID_TIMESTAMP(candidate))
		horizon = raise_horizon(&seen, candidate);
	removed = horizon == DT_NOBEGIN ? 0 : delete_rows(&seen, horizon, &events);

	if (horizon != DT_NOBEGIN && removed < EXPIRE_ROWS)
		removed += rsink_expire_slice(sink, horizon, &events);
	if (horizon != old_horizon || watermark != old_watermark || events > 0)
		rsink_spi(SPI_OK_INSERT,
				  "INSERT INTO revenue_sink.sink_state AS s (sink_id, watermark, horizon, expired) "
				  "VALUES (%d, %s, %s, " INT64_FORMAT ") ON CONFLICT (sink_id) DO UPDATE "
				  "SET watermark = EXCLUDED.watermark, horizon = EXCLUDED.horizon, "
				  "expired = s.expired + EXCLUDED.expired",
				  sink->id, time_literal(watermark), time_literal(horizon), events);
	rsink_spi_end(&spi);
	rsink_seen_end(&seen);
	return removed;
}
