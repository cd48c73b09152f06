/*-------------------------------------------------------------------------
 *
 * revenue.c
 *	  Revenue: one delta row a minute and group, merged into totals later.
 *
 * A writer inserts and never updates: an update of a minute's total would
 * wait for every open or prepared transaction that has touched the minute.
 * The fact view adds the totals and the deltas of its snapshot; merging
 * deletes deltas and raises totals in one transaction, so a snapshot has an
 * event in the one or in the other.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "amount.h"
#include "catalog.h"
#include "compat.h"
#include "group_key.h"
#include "retain.h"
#include "revenue.h"
#include "spi_util.h"

/* Groups kept in memory before they are written as deltas. */
#define MAX_GROUPS 65536

/* Deltas written at once. */
#define FLUSH_GROUPS 1000

typedef struct RevenueGroup
{
	GroupKey	key;
	uint32		hash;
	char		status;
	int64		events;
	RsinkSum	sum;
} RevenueGroup;

#define SH_PREFIX groups
#define SH_ELEMENT_TYPE RevenueGroup
#define SH_KEY_TYPE GroupKey
#define SH_KEY key
#define SH_HASH_KEY(table, key) rsink_group_hash(key)
#define SH_EQUAL(table, a, b) rsink_group_equal(a, b)
#define SH_STORE_HASH
#define SH_GET_HASH(table, element) (element)->hash
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

struct RsinkRevenue
{
	const RsinkSink *sink;
	RsinkTable	deltas;
	MemoryContext context;
	groups_hash *groups;
};

/* Start of the bucket (in microseconds) that a time falls into. */
TimestampTz
rsink_bucket_start(TimestampTz time, int64 bucket)
{
	/* buckets count from 1970-01-01 UTC, timestamps from 2000-01-01 UTC */
	const int64 epoch = (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
	int64		rest = (time % bucket + epoch % bucket) % bucket;

	return time - (rest < 0 ? rest + bucket : rest);
}

static void
groups_start(RsinkRevenue *revenue)
{
	revenue->groups = groups_create(revenue->context, 128, NULL);
}

/*
 * Start adding up revenue for a sink; takes RowExclusiveLock on its deltas.
 * All memory is that of the current memory context.
 */
RsinkRevenue *
rsink_revenue_begin(const RsinkSink *sink)
{
	RsinkRevenue *revenue = palloc(sizeof(RsinkRevenue));

	revenue->sink = sink;
	revenue->context = AllocSetContextCreate(CurrentMemoryContext, "revenue_sink revenue",
											 ALLOCSET_DEFAULT_SIZES);
	rsink_table_open(&revenue->deltas, sink->delta);
	groups_start(revenue);
	return revenue;
}

static int
compare_groups(const void *a, const void *b)
{
	return rsink_group_compare(&(*(RevenueGroup *const *) a)->key, &(*(RevenueGroup *const *) b)->key);
}

/*
 * Write what was added up as delta rows and start again from nothing. In the order
 * of their index, neighbours find its pages in the processor's cache.
 */
static void
flush_groups(RsinkRevenue *revenue)
{
	MemoryContext old = MemoryContextSwitchTo(revenue->context);
	int			ngroups = revenue->groups->members;
	RevenueGroup **sorted = palloc(Max(ngroups, 1) * sizeof(RevenueGroup *));
	HeapTuple  *tuples = palloc(Min(ngroups, FLUSH_GROUPS) * sizeof(HeapTuple));
	int			n = 0;
	groups_iterator iterator;

	groups_start_iterate(revenue->groups, &iterator);
	for (int i = 0; i < ngroups; i++)
		sorted[i] = groups_iterate(revenue->groups, &iterator);
	if (ngroups > 1)
		qsort(sorted, ngroups, sizeof(RevenueGroup *), compare_groups);
	for (int i = 0; i < ngroups; i++)
	{
		RevenueGroup *group = sorted[i];
		Datum		values[Natts_delta];
		bool		nulls[Natts_delta] = {false};

		values[Anum_delta_minute - 1] = TimestampTzGetDatum(group->key.minute);
		values[Anum_delta_group_key - 1] =
			PointerGetDatum(cstring_to_text_with_len(group->key.group_key, group->key.group_len));
		values[Anum_delta_revenue - 1] = NumericGetDatum(rsink_sum_result(&group->sum));
		values[Anum_delta_events - 1] = Int64GetDatum(group->events);
		tuples[n++] = heap_form_tuple(RelationGetDescr(revenue->deltas.rel), values, nulls);
		if (n == FLUSH_GROUPS)
		{
			rsink_table_insert_many(&revenue->deltas, tuples, n);
			n = 0;
		}
	}
	if (n == 1)
		rsink_table_insert(&revenue->deltas, tuples[0]);
	else if (n > 1)
		rsink_table_insert_many(&revenue->deltas, tuples, n);
	MemoryContextSwitchTo(old);
	MemoryContextReset(revenue->context);
}

/* Add an event's amount to its minute and group. */
void
rsink_revenue_add(RsinkRevenue *revenue, const RsinkEvent *event)
{
	GroupKey	key;
	RevenueGroup *group;
	bool		found;
	MemoryContext old;

	key.minute = rsink_bucket_start(event->event_time, revenue->sink->bucket);
	key.group_key = event->group_len > 0 ? event->group_key : "";
	key.group_len = event->group_len;
	group = groups_insert(revenue->groups, key, &found);
	old = MemoryContextSwitchTo(revenue->context);
	if (!found)
	{
		/* the event's own strings may be gone before the group is */
		char	   *copy = palloc(key.group_len + 1);

		memcpy(copy, key.group_key, key.group_len);
		group->key.group_key = copy;
		group->events = 0;
		memset(&group->sum, 0, sizeof(RsinkSum));
	}
	group->events++;
	rsink_sum_add(&group->sum, event->amount);
	MemoryContextSwitchTo(old);
	if (revenue->groups->members > MAX_GROUPS)
	{
		flush_groups(revenue);
		groups_start(revenue);
	}
}

/* Write the deltas and let go. */
void
rsink_revenue_end(RsinkRevenue *revenue)
{
	flush_groups(revenue);
	rsink_table_close(&revenue->deltas);
	MemoryContextDelete(revenue->context);
	pfree(revenue);
}

/*
 * Merge deltas that the current snapshot sees, of minutes before a limit (DT_NOEND:
 * all) and at most so many, into the totals; returns how many rows that removed. They
 * are taken in the order of the table from block *from on, which becomes the last one
 * that was read: those before it are empty by then, or dead. Caller is connected by
 * rsink_spi_begin() and holds the maintenance lock. In mode 'totals' the "deltas"
 * are versions, of which the winner stays; see the fact view for who that is. The
 * arrival row, before all times, is no delta. Those before the limit of what the sink
 * keeps are discarded; see retain.c.
 */
int64
rsink_revenue_merge(RsinkSink *sink, TimestampTz before, int64 most, BlockNumber *from)
{
	const char *delta = get_rel_name(sink->delta);
	const char *total = get_rel_name(sink->total);
	TimestampTz limit = rsink_state_time(rsink_catalog_relid("sink_state"), sink->id, Anum_state_retained_from, NULL);
	char	   *first = pstrdup(limit == DT_NOBEGIN ? "-infinity" : timestamptz_to_str(limit));
	char	   *range = before == DT_NOEND ? psprintf("ctid >= '(%u,0)'", *from) :
		psprintf("minute < '%s'", timestamptz_to_str(before));
	char	   *gone = psprintf("chosen AS (SELECT ARRAY(SELECT ctid FROM revenue_sink.%s "
								"  WHERE minute > '-infinity' AND %s LIMIT " INT64_FORMAT ") AS rows), "
								"gone AS (DELETE FROM revenue_sink.%s WHERE ctid = ANY ((SELECT rows FROM chosen)::tid[]) "
								"  RETURNING *), "
								"kept AS (SELECT * FROM gone WHERE minute >= '%s')", delta, range, most, delta, first);
	char	   *result = psprintf("SELECT count(*), count(*) FILTER (WHERE minute < '%s'), "
								  "  min(minute), sum(revenue) FILTER (WHERE minute < '%s'), "
								  "  (%s FILTER (WHERE minute < '%s'))::bigint, "
								  "  (SELECT (rows[cardinality(rows)]::text::point)[0]::bigint FROM chosen) FROM gone", first, first,
								  sink->totals ? "count(*)" : "sum(events)", first);
	int64		removed;

	if (sink->totals)
		rsink_spi(SPI_OK_SELECT,
				  "WITH %s, present AS (SELECT * FROM revenue_sink.%s WHERE (minute, group_key) IN "
				  "  (SELECT minute, group_key FROM kept)), "
				  "ranked AS (SELECT *, max(version) OVER (PARTITION BY minute, group_key) AS highest "
				  "  FROM (SELECT * FROM kept UNION ALL SELECT * FROM present) AS every), "
				  "best AS (SELECT DISTINCT ON (minute, group_key, version IS NULL) * FROM ranked "
				  "  WHERE version IS NULL OR version = highest ORDER BY minute, group_key, "
				  "  version IS NULL, epoch DESC, number DESC, sequence DESC), "
				  "winner AS (SELECT DISTINCT ON (minute, group_key) * FROM best "
				  "  ORDER BY minute, group_key, sequence DESC), "
				  "merged AS (INSERT INTO revenue_sink.%s AS t "
				  "  (minute, group_key, revenue, version, epoch, number, sequence) "
				  "  SELECT minute, group_key, revenue, highest, "
				  "    CASE WHEN highest IS NULL THEN epoch ELSE 0 END, "
				  "    CASE WHEN highest IS NULL THEN number ELSE 0 END, sequence FROM winner "
				  "  ORDER BY minute, group_key "
				  "  ON CONFLICT (minute, group_key) DO UPDATE SET revenue = EXCLUDED.revenue, "
				  "    version = EXCLUDED.version, epoch = EXCLUDED.epoch, "
				  "    number = EXCLUDED.number, sequence = EXCLUDED.sequence RETURNING 1), "
				  "noted AS (UPDATE revenue_sink.sink_state SET totals = totals "
				  "    + (SELECT count(*) FROM winner) - (SELECT count(*) FROM present) "
				  "  WHERE sink_id = %d AND EXISTS (SELECT FROM kept)) "
				  "%s", gone, total, total, sink->id, result);
	else
		rsink_spi(SPI_OK_SELECT,
				  "WITH %s, merged AS (INSERT INTO revenue_sink.%s AS t (minute, group_key, revenue, events) "
				  "  SELECT minute, group_key, sum(revenue), sum(events)::bigint FROM kept "
				  "  GROUP BY minute, group_key ORDER BY minute, group_key "
				  "  ON CONFLICT (minute, group_key) DO UPDATE "
				  "  SET revenue = t.revenue + EXCLUDED.revenue, events = t.events + EXCLUDED.events "
				  "  RETURNING 1) "
				  "%s", gone, total, result);
	removed = rsink_spi_int64(0, 1, 0);
	*from = (BlockNumber) rsink_spi_int64(0, 6, *from);
	if (rsink_spi_int64(0, 2, 0) > 0)
		rsink_note_discarded(sink, rsink_spi_int64(0, 2, 0), rsink_spi_int64(0, 5, 0),
							 SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 4),
							 rsink_spi_int64(0, 3, 0));
	return removed;
}
