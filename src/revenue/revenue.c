/*-------------------------------------------------------------------------
 *
 * revenue.c
 *	  Revenue: one delta row per call, bucket and group; merged into totals later.
 *
 * A writer inserts deltas and never updates a total: that would wait for every
 * unfinished transaction that has updated the same total. The fact view adds up
 * the total and the deltas that its snapshot shows. Merging deletes deltas and
 * raises totals in one transaction, so each snapshot has an event's amount either
 * in a delta or in a total.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "apply/event.h"
#include "core/catalog.h"
#include "core/compat.h"
#include "core/spi_util.h"
#include "revenue/amount.h"
#include "revenue/group_key.h"
#include "revenue/retain.h"
#include "revenue/revenue.h"
#include "sink/choice.h"
#include "sink/sink.h"

/* How many groups are kept in memory before they are written as deltas. */
#define MAX_GROUPS 65536

/* How many deltas are inserted at once. */
#define FLUSH_GROUPS 1000

/* The revenue of a bucket and group in the current call. */
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
	RevenueGroup *last;			/* that of the last event, or NULL; valid until another one
								 * is inserted */
};

/*
 * The start of the bucket that a finite time falls into; "bucket" is the length of a
 * bucket in microseconds.
 */
TimestampTz
rsink_bucket_start(TimestampTz time, int64 bucket)
{
	/* buckets count from 1970-01-01 UTC, timestamps from 2000-01-01 UTC */
	const int64 shift = (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
	int64		rest = time % bucket + shift % bucket;

	if (rest >= bucket)
		rest -= bucket;
	return time - (rest < 0 ? rest + bucket : rest);
}

/* Start with an empty table of groups. */
static void
groups_start(RsinkRevenue *revenue)
{
	revenue->groups = groups_create(revenue->context, 128, NULL);
	revenue->last = NULL;
}

/*
 * Start adding up revenue for a sink. Takes RowExclusiveLock on the sink's deltas.
 * The result lives in the current memory context and ends with rsink_revenue_end().
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
 * Insert the sums of all groups as delta rows, and free the groups. The rows are
 * inserted in the order of the deltas' index, so that neighbours find the pages of
 * the index in the processor's cache.
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

		values[Anum_delta_minute - 1] = TimestampTzGetDatum(group->key.bucket_start);
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

/*
 * The group of an event, which is added if it isn't there. Events often come in the order
 * of their times, so that the next one has the bucket of the last one. The current memory
 * context is that of the groups.
 */
static RevenueGroup *
group_of(RsinkRevenue *revenue, const RsinkEvent *event)
{
	const RevenueGroup *last = revenue->last;
	uint64		bucket = (uint64) revenue->sink->bucket;
	bool		same_bucket = last != NULL &&
		(uint64) event->event_time - (uint64) last->key.bucket_start < bucket;
	GroupKey	key;
	bool		found;

	key.bucket_start = same_bucket ? last->key.bucket_start :
		rsink_bucket_start(event->event_time, revenue->sink->bucket);
	key.group_key = event->group_len > 0 ? event->group_key : "";
	key.group_len = event->group_len;
	if (same_bucket && rsink_group_equal(key, last->key))
		return revenue->last;
	revenue->last = groups_insert(revenue->groups, key, &found);
	if (!found)
	{
		/* the group outlives the event's own string */
		char	   *copy = palloc(key.group_len + 1);

		memcpy(copy, key.group_key, key.group_len);
		revenue->last->key.group_key = copy;
		revenue->last->events = 0;
		memset(&revenue->last->sum, 0, sizeof(RsinkSum));
	}
	return revenue->last;
}

/* Add an event's amount to the sum of its bucket and group. */
void
rsink_revenue_add(RsinkRevenue *revenue, const RsinkEvent *event)
{
	MemoryContext old = MemoryContextSwitchTo(revenue->context);
	RevenueGroup *group = group_of(revenue, event);

	group->events++;
	rsink_sum_add(&group->sum, event->amount);
	MemoryContextSwitchTo(old);
	if (revenue->groups->members > MAX_GROUPS)
	{
		flush_groups(revenue);
		groups_start(revenue);
	}
}

/* Insert the remaining deltas, and free everything. The lock on the deltas stays. */
void
rsink_revenue_end(RsinkRevenue *revenue)
{
	flush_groups(revenue);
	rsink_table_close(&revenue->deltas);
	MemoryContextDelete(revenue->context);
	pfree(revenue);
}

/*
 * Merge deltas into totals, and return how many deltas that has removed. Caller is
 * connected by rsink_spi_begin() and holds the maintenance lock.
 *
 * At most "most" deltas are merged that the current snapshot sees, and only those of
 * buckets before "before"; with DT_NOEND those of all buckets. In the latter case
 * they are taken in the order in which they lie in the table, beginning with block
 * *from, which becomes the last block that was read: the blocks before that one have
 * no more deltas to merge.
 *
 * In mode 'totals' the rows are versions, of which only the winner becomes the total;
 * see winner.c. The arrival row, at -infinity, isn't a delta and stays.
 * Deltas of buckets that the sink keeps no longer are discarded; see retain.c.
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
								  sink->mode == RSINK_TOTALS ? "count(*)" : "sum(events)", first);
	int64		removed;

	if (sink->mode == RSINK_TOTALS)
		rsink_spi(SPI_OK_SELECT,
				  "WITH %s, present AS (SELECT * FROM revenue_sink.%s WHERE (minute, group_key) IN "
				  "  (SELECT minute, group_key FROM kept)), "
				  "winner AS (SELECT minute, group_key, revenue_sink.winner(array_agg(revenue), "
				  "    array_agg(version), array_agg(epoch), array_agg(number), array_agg(sequence)) AS best "
				  "  FROM (SELECT * FROM kept UNION ALL SELECT * FROM present) AS every GROUP BY minute, group_key), "
				  "merged AS (INSERT INTO revenue_sink.%s AS t "
				  "  (minute, group_key, revenue, version, epoch, number, sequence) "
				  "  SELECT minute, group_key, (best).* FROM winner "
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

/*
 * Merge at most "most" deltas of all buckets into totals, in the current transaction,
 * and return how many deltas that has removed. *from is a block of the deltas, which
 * the caller sets to 0 before the first call of a round; see rsink_revenue_merge().
 * Connects to SPI by itself. Caller holds the maintenance lock.
 */
int64
rsink_merge_deltas(RsinkSink *sink, int64 most, BlockNumber *from)
{
	int64		removed;
	RsinkSpi	spi;

	rsink_spi_begin(&spi);
	removed = rsink_revenue_merge(sink, DT_NOEND, most, from);
	rsink_spi_end(&spi);
	if (sink->shared != NULL)
		pg_atomic_write_u64(&sink->shared->last_merge, (uint64) GetCurrentTimestamp());
	return removed;
}
