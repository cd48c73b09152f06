/*-------------------------------------------------------------------------
 *
 * retain.c
 *	  The setting retain: removing the buckets that a sink no longer keeps.
 *
 * A sink with the setting retain has a limit, sink_state.retained_from: the start
 * of the oldest bucket that the sink keeps. The limit only rises. It follows the
 * horizon, which is held back by all events that aren't decided yet, so no such
 * event can belong to a bucket before the limit. Mode 'totals' has no horizon:
 * there the limit follows the newest bucket, and is held back by versions of
 * unfinished transactions.
 *
 * The limit is raised first, and the totals before it are removed afterwards, in
 * short transactions. Meanwhile the fact view doesn't show these totals: a query
 * reads the limit in its own snapshot (see fact.c), and so shows a bucket either
 * whole or not at all. An event or version that arrives for a bucket before the
 * limit is late, whatever the late_policy; writers compare it with the limit under
 * the sink lock (see seen.c and totals.c).
 *
 * Before the limit is raised, all committed deltas before it are merged. So a delta
 * before the limit that a later merge meets has come too late. That can happen
 * because late_policy 'apply' counts events behind the horizon without holding the
 * horizon back, so that their transaction may commit after their bucket has been
 * removed. Merging discards such deltas and reports them: counting them would show
 * a part of a bucket as if it were the whole bucket.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "common/int.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/spi_util.h"
#include "revenue/retain.h"
#include "revenue/revenue.h"
#include "revenue/totals.h"
#include "seen/expire.h"
#include "sink/choice.h"
#include "sink/home.h"
#include "sink/sink.h"
#include "sink/slot.h"

/*
 * The start of the newest bucket of a sink in mode 'totals'; DT_NOBEGIN if it has
 * none. A bucket further ahead of the clock than max_future doesn't count, because a
 * single wrong one would remove everything.
 */
static TimestampTz
newest_bucket_start(const RsinkSink *sink)
{
	TimestampTz latest;
	char	   *condition = "minute > '-infinity'";

	if (!pg_add_s64_overflow(GetCurrentTimestamp(), sink->max_future, &latest) && IS_VALID_TIMESTAMP(latest))
		condition = psprintf("minute > '-infinity' AND minute <= '%s'", timestamptz_to_str(latest));
	rsink_spi(SPI_OK_SELECT,
			  "SELECT greatest((SELECT max(minute) FROM revenue_sink.%s WHERE %s), "
			  "  (SELECT max(minute) FROM revenue_sink.%s WHERE %s))",
			  get_rel_name(sink->total), condition, get_rel_name(sink->delta), condition);
	return rsink_spi_int64(0, 1, DT_NOBEGIN);
}

/* The limit that the sink's settings ask for; DT_NOBEGIN if they ask for none. */
static TimestampTz
wanted_limit(const RsinkSink *sink)
{
	TimestampTz newest;
	int64		kept = sink->retain;
	TimestampTz limit;

	if (sink->retain == 0)
		return DT_NOBEGIN;
	if (sink->mode == RSINK_TOTALS)
		newest = newest_bucket_start(sink);
	else
	{
		newest = rsink_state_time(rsink_catalog_relid("sink_state"), sink->id, Anum_state_horizon, NULL);
		kept -= sink->dedup_window;
	}
	if (TIMESTAMP_NOT_FINITE(newest) || pg_sub_s64_overflow(newest, kept, &limit) ||
		limit < MIN_TIMESTAMP + sink->bucket)
		return DT_NOBEGIN;
	return rsink_bucket_start(limit, sink->bucket);
}

/*
 * The start of the first bucket that has a committed delta; DT_NOEND if there is
 * none. In mode 'totals' versions of unfinished transactions count, too.
 */
static TimestampTz
first_unmerged(const RsinkSink *sink)
{
	Relation	rel = table_open(sink->delta, AccessShareLock);
	Relation	index = index_open(rsink_table_index(rel, Anum_delta_minute), AccessShareLock);
	Snapshot	latest = RegisterSnapshot(GetLatestSnapshot());
	TimestampTz bucket_start = DT_NOEND;
	SnapshotData dirty;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	InitDirtySnapshot(dirty);
	ScanKeyInit(&key, Anum_delta_minute, BTGreaterStrategyNumber, F_TIMESTAMPTZ_GT,
				TimestampTzGetDatum(DT_NOBEGIN));
	scan = systable_beginscan_ordered(rel, index, sink->mode == RSINK_TOTALS ? &dirty : latest, 1, &key);
	if (HeapTupleIsValid(tuple = systable_getnext_ordered(scan, ForwardScanDirection)))
	{
		bool		isnull;

		bucket_start = DatumGetTimestampTz(heap_getattr(tuple, Anum_delta_minute,
														RelationGetDescr(rel), &isnull));
	}
	systable_endscan_ordered(scan);
	UnregisterSnapshot(latest);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return bucket_start;
}

/*
 * Raise the limit in shared memory to the wanted one, or to the first bucket that
 * isn't merged if that comes before; return the limit. A version that is inserted
 * while we look at the table lowers low_claim, and so is noticed.
 */
static TimestampTz
raise_limit(RsinkSink *sink)
{
	RsinkShared *shared = sink->shared;
	TimestampTz wanted = wanted_limit(sink);
	TimestampTz limit;
	BlockNumber from = 0;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	shared->low_claim = DT_NOEND;
	limit = shared->retained_from;
	LWLockRelease(&shared->lock);
	if (wanted <= limit)
		return limit;

	/*
	 * Versions of this very transaction have no final sequence number yet, so
	 * they can't be merged, and hold the limit back.
	 */
	if (first_unmerged(sink) < wanted && !rsink_totals_pending(sink))
		rsink_revenue_merge(sink, wanted, RSINK_RETAIN_ROWS, &from);
	return rsink_raise(sink, &shared->retained_from, Min(wanted, first_unmerged(sink)), false);
}

/*
 * Remove at most RSINK_RETAIN_ROWS totals before the limit, oldest buckets first,
 * and return how many. The search starts at *oldest, which becomes the last bucket
 * of which a total was removed.
 */
static int64
remove_totals(const RsinkSink *sink, TimestampTz limit, TimestampTz *oldest)
{
	const char *total = get_rel_name(sink->total);
	const char *events = sink->mode == RSINK_TOTALS ? "count(*)" : "coalesce(sum(events), 0)::bigint";
	char	   *from = pstrdup(TIMESTAMP_NOT_FINITE(*oldest) ? "-infinity" : timestamptz_to_str(*oldest));
	int64		removed;

	rsink_spi(SPI_OK_SELECT,
			  "WITH gone AS (DELETE FROM revenue_sink.%s WHERE ctid = ANY (ARRAY(SELECT ctid FROM revenue_sink.%s "
			  "    WHERE minute >= '%s' AND minute < '%s' ORDER BY minute, group_key LIMIT %d)) RETURNING *), "
			  "noted AS (UPDATE revenue_sink.sink_state SET removed = removed + (SELECT %s FROM gone), "
			  "    totals = totals - (SELECT count(*) FROM gone WHERE %s) "
			  "  WHERE sink_id = %d AND EXISTS (SELECT FROM gone)) "
			  "SELECT count(*), max(minute) FROM gone",
			  total, total, from, timestamptz_to_str(limit), RSINK_RETAIN_ROWS, events,
			  rsink_noted_totals(sink->mode), sink->id);
	removed = rsink_spi_int64(0, 1, 0);
	*oldest = rsink_spi_int64(0, 2, *oldest);
	return removed;
}

/*
 * Raise the limit of what a sink keeps, and remove at most RSINK_RETAIN_ROWS totals
 * before the limit, in the current transaction; return how many. The limit is raised
 * only if *oldest is DT_NOBEGIN, which the caller sets before the first call of a
 * round; between the calls of a round *oldest is ours. Connects to SPI by itself.
 * Takes and releases the sink lock. Caller holds the maintenance lock.
 */
int64
rsink_retain(RsinkSink *sink, TimestampTz *oldest)
{
	TimestampTz stored = rsink_state_time(rsink_catalog_relid("sink_state"), sink->id, Anum_state_retained_from, NULL);
	TimestampTz limit;
	int64		removed = 0;
	RsinkSpi	spi;

	if (sink->retain == 0 && stored == DT_NOBEGIN)
		return 0;

	/* a restore may have brought a higher limit than shared memory has */
	LWLockAcquire(&sink->shared->lock, LW_EXCLUSIVE);
	sink->shared->retained_from = Max(sink->shared->retained_from, stored);
	LWLockRelease(&sink->shared->lock);

	rsink_spi_begin(&spi);
	limit = *oldest == DT_NOBEGIN ? raise_limit(sink) : stored;
	if (limit > stored)
		rsink_spi(SPI_OK_UPDATE, "UPDATE revenue_sink.sink_state SET retained_from = '%s' WHERE sink_id = %d",
				  timestamptz_to_str(limit), sink->id);
	if (limit != DT_NOBEGIN)
		removed = remove_totals(sink, limit, oldest);
	rsink_spi_end(&spi);
	return removed;
}

/*
 * Count in sink_state, and report in a warning, deltas (versions in mode 'totals')
 * that a merge has discarded because their buckets had been removed before. "rows"
 * and "events" say how many, "revenue" is their sum as text, "oldest" the start of
 * the oldest of the buckets. Caller is connected by rsink_spi_begin().
 */
void
rsink_note_discarded(const RsinkSink *sink, int64 rows, int64 events, const char *revenue, TimestampTz oldest)
{
	rsink_spi(SPI_OK_UPDATE,
			  "UPDATE revenue_sink.sink_state SET discarded = discarded + " INT64_FORMAT ", "
			  "  removed = removed + " INT64_FORMAT " WHERE sink_id = %d",
			  sink->mode == RSINK_TOTALS ? rows : events, sink->mode == RSINK_TOTALS ? 0 : events, sink->id);
	ereport(WARNING,
			(errmsg("sink \"%s\" has discarded revenue that came for buckets already removed", sink->name),
			 sink->mode == RSINK_TOTALS ? errdetail("Totals: %lld. The oldest bucket starts at %s.", (long long) rows,
									  timestamptz_to_str(oldest)) :
			 errdetail("Events: %lld, with a revenue of %s. The oldest bucket starts at %s.",
					   (long long) events, revenue, timestamptz_to_str(oldest)),
			 errhint("A longer retain leaves more time for what comes late.")));
}
