/*-------------------------------------------------------------------------
 *
 * maintain.c
 *	  Settling deferred events, merging, folding, analyzing: the worker's round.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "apply.h"
#include "catalog.h"
#include "compat.h"
#include "expire.h"
#include "revenue.h"
#include "spi_util.h"
#include "writer.h"

/* Ranges of batch numbers that the ledger keeps of a writer's epoch. */
#define LEDGER_RANGES	10000

/* Days for which writers that have gone, and epochs that are over, are known. */
#define LEDGER_DAYS		30

/* Of a longer dedup window (some centuries) nobody sees the end. */
#define FOREVER_SECS	INT64CONST(10000000000)

/* A table whose rows are so many times more or fewer than was known is analyzed, */
#define ANALYZE_FACTOR	10

/* from so many rows on. */
#define ANALYZE_ROWS	10000

int			rsink_dead_letter_retention = 30;	/* days */
int			rsink_rejected_retention = -1;	/* its former name; -1: not set */

/*
 * Take the lock under which a sink is maintained, to the end of the
 * transaction. No writer ever asks for it. False: taken, and not waited.
 */
bool
rsink_maintenance_lock(const RsinkSink *sink, bool wait)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, RelationRelationId, sink->total, 0);
	return LockAcquire(&tag, ExclusiveLock, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

static const char *
text_bytes(Datum datum, int32 *len)
{
	text	   *t = DatumGetTextPP(datum);

	*len = VARSIZE_ANY_EXHDR(t);
	return VARDATA_ANY(t);
}

/* Make an event of a deferred row; its strings are copies. */
static void
event_of_row(HeapTuple tuple, TupleDesc desc, RsinkEvent *event)
{
	Datum		values[Natts_deferred];
	bool		nulls[Natts_deferred];

	heap_deform_tuple(heap_copytuple(tuple), desc, values, nulls);
	memset(event, 0, sizeof(RsinkEvent));
	event->order_id = text_bytes(values[Anum_deferred_order_id - 1], &event->order_len);
	event->event_id = text_bytes(values[Anum_deferred_event_id - 1], &event->event_len);
	event->event_time = DatumGetTimestampTz(values[Anum_deferred_event_time - 1]);
	event->amount = DatumGetNumeric(values[Anum_deferred_amount - 1]);
	event->group_key = text_bytes(values[Anum_deferred_group_key - 1], &event->group_len);
}

/*
 * Take each deferred event that has committed through the ordinary path once
 * more. What the other transaction counted is a duplicate by now, what it
 * didn't is applied, what is still open stays; in the same transaction the
 * settled rows go. Returns how many did; *pending, if not NULL, becomes true if
 * others stay. Caller holds the maintenance lock.
 */
int64
rsink_settle(RsinkSink *sink, bool *pending)
{
	Relation	rel = table_open(rsink_catalog_relid("deferred_event"), RowExclusiveLock);
	Snapshot	snapshot;
	MemoryContext slice = AllocSetContextCreate(CurrentMemoryContext, "revenue_sink settle",
												ALLOCSET_DEFAULT_SIZES);
	RsinkApply *apply = NULL;
	RsinkEvent *events = NULL;
	ItemPointerData *tids = NULL;
	RsinkCounts counts = {{0}};
	int64		settled = 0;
	bool		done;
	HeapTuple	tuple;
	ScanKeyData key;
	SysScanDesc scan;

	/* rows of this very statement are settled, too */
	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyInit(&key, Anum_deferred_sink_id, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(sink->id));
	scan = systable_beginscan(rel, rsink_table_index(rel, Anum_deferred_sink_id), true,
							  snapshot, 1, &key);
	do
	{
		int			n = 0;

		/* the scan itself outlives the slice */
		while (n < RSINK_SLICE_MAX && HeapTupleIsValid(tuple = systable_getnext(scan)))
		{
			MemoryContext old;

			if (apply == NULL)
				apply = rsink_apply_begin(sink, true);
			old = MemoryContextSwitchTo(slice);
			if (n == 0)
			{
				events = palloc(RSINK_SLICE_MAX * sizeof(RsinkEvent));
				tids = palloc(RSINK_SLICE_MAX * sizeof(ItemPointerData));
			}
			event_of_row(tuple, RelationGetDescr(rel), &events[n]);
			tids[n++] = tuple->t_self;
			MemoryContextSwitchTo(old);
		}
		if (n > 0)
			rsink_apply_events(apply, events, n);
		for (int i = 0; i < n; i++)
		{
			if (events[i].status == RSINK_DEFERRED)
			{
				if (pending)
					*pending = true;
				continue;
			}
			CatalogTupleDelete(rel, &tids[i]);
			settled++;
		}
		MemoryContextReset(slice);
		done = n < RSINK_SLICE_MAX;
	} while (!done);
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	if (apply != NULL)
		rsink_apply_end(apply, &counts);
	MemoryContextDelete(slice);
	table_close(rel, NoLock);
	CommandCounterIncrement();
	return settled;
}

/*
 * Merge at most so many deltas into totals, in the current transaction; returns
 * the rows removed. *from is 0 for the first call of a round; see
 * rsink_revenue_merge(). Caller holds the maintenance lock.
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
		sink->shared->last_merge = GetCurrentTimestamp();
	return removed;
}

/*
 * Fold the ledger into ranges of numbers. Numbers with gaps make as many
 * ranges; of each epoch the last LEDGER_RANGES are kept, and what lies before
 * becomes one empty range (number = last + 1) that says up to where numbers are
 * forgotten. An epoch that is over goes as a whole once it is old, so that what
 * an epoch's rows don't cover has not been committed. Rows that stay as they
 * are aren't touched.
 */
static void
fold_ledger(const RsinkSink *sink)
{
	rsink_spi(SPI_OK_INSERT,
			  "WITH steps AS (SELECT ctid AS tid, *, "
			  "    (number - 1 IS DISTINCT FROM lag(last) OVER numbers)::int AS step, "
			  "    max(ended_at) OVER (PARTITION BY job, writer, epoch) AS epoch_ended_at "
			  "  FROM revenue_sink.ledger WHERE sink_id = %d "
			  "  WINDOW numbers AS (PARTITION BY job, writer, epoch, number > last ORDER BY number)), "
			  "islands AS (SELECT *, sum(step) OVER (PARTITION BY job, writer, epoch, number > last "
			  "    ORDER BY number) AS island FROM steps), "
			  "fates AS (SELECT *, number > last OR island <= max(island) FILTER (WHERE number <= last) "
			  "    OVER (PARTITION BY job, writer, epoch) - %d AS forgotten, "
			  "    epoch_ended_at < now() - make_interval(secs => " INT64_FORMAT ") AND NOT EXISTS "
			  "    (SELECT FROM revenue_sink.epoch e WHERE e.sink_id = i.sink_id AND e.job = i.job "
			  "      AND (e.writer IS NULL OR e.writer = i.writer) HAVING max(e.epoch) <= i.epoch) AS ended "
			  "  FROM islands i), "
			  "ranges AS (SELECT sink_id, job, writer, epoch, ended, "
			  "    CASE WHEN forgotten THEN max(last) + 1 ELSE min(number) END AS number, max(last) AS last, "
			  "    sum(events)::bigint AS events, max(newest) AS newest, max(ended_at) AS ended_at, "
			  "    array_agg(tid) AS tids FROM fates "
			  "  GROUP BY sink_id, job, writer, epoch, ended, forgotten, CASE WHEN NOT forgotten THEN island END "
			  "  HAVING ended OR count(*) > 1 OR (forgotten AND min(number) <= max(last))), "
			  "gone AS (DELETE FROM revenue_sink.ledger b USING (SELECT unnest(tids) AS tid FROM ranges) r "
			  "  WHERE b.ctid = r.tid) "
			  "INSERT INTO revenue_sink.ledger (sink_id, job, writer, epoch, number, last, events, newest, ended_at) "
			  "SELECT sink_id, job, writer, epoch, number, last, events, newest, ended_at "
			  "FROM ranges WHERE NOT ended",
			  sink->id, LEDGER_RANGES,
			  Min(sink->dedup_window / USECS_PER_SEC, FOREVER_SECS) + LEDGER_DAYS * SECS_PER_DAY);
}

/*
 * Forget decisions that have been carried out: of batches that have committed,
 * and of epochs that are over. One to roll back, in an epoch that isn't, keeps
 * its number from being begun again. What is prepared is looked at after the
 * decisions: the other way round a batch might come in between.
 */
static void
forget_decisions(const RsinkSink *sink)
{
	rsink_spi(SPI_OK_DELETE,
			  "DELETE FROM revenue_sink.decision d WHERE sink_id = %d "
			  "AND (epoch < (SELECT max(e.epoch) FROM revenue_sink.epoch e WHERE e.sink_id = d.sink_id "
			  "      AND e.job = d.job AND (e.writer IS NULL OR e.writer = d.writer)) "
			  "  OR EXISTS (SELECT FROM revenue_sink.ledger b WHERE b.sink_id = d.sink_id AND b.job = d.job "
			  "      AND b.writer = d.writer AND b.epoch = d.epoch AND b.last >= d.number "
			  "      AND b.number <= d.number)) "
			  "AND (job, writer, epoch, number) NOT IN "
			  "  (SELECT job, writer, epoch, number FROM revenue_sink.prepared_batches(%s))",
			  sink->id, quote_literal_cstr(sink->name));
}

/*
 * Forget epochs that newer ones of the same writer, or of the whole job,
 * supersede. Where only writers are opened, forget also those of whom nothing
 * was heard for long: they have no epoch then, and no older one comes to light.
 * The highest epoch of a job stays: the next one must lie above it.
 */
static void
forget_epochs(const RsinkSink *sink)
{
	rsink_spi(SPI_OK_DELETE,
			  "DELETE FROM revenue_sink.epoch e WHERE sink_id = %d AND EXISTS "
			  "(SELECT FROM revenue_sink.epoch n WHERE n.sink_id = e.sink_id AND n.job = e.job "
			  "  AND n.epoch > e.epoch AND (n.writer IS NULL OR n.writer = e.writer))",
			  sink->id);
	rsink_spi(SPI_OK_DELETE,
			  "DELETE FROM revenue_sink.epoch e WHERE sink_id = %d "
			  "AND opened_at < now() - make_interval(days => %d) "
			  "AND NOT EXISTS (SELECT FROM revenue_sink.epoch w WHERE w.sink_id = e.sink_id "
			  "  AND w.job = e.job AND w.writer IS NULL) "
			  "AND EXISTS (SELECT FROM revenue_sink.epoch n WHERE n.sink_id = e.sink_id "
			  "  AND n.job = e.job AND n.epoch > e.epoch) "
			  "AND NOT EXISTS (SELECT FROM revenue_sink.ledger b WHERE b.sink_id = e.sink_id "
			  "  AND b.job = e.job AND b.writer = e.writer "
			  "  AND b.ended_at > now() - make_interval(days => %d))",
			  sink->id, LEDGER_DAYS, LEDGER_DAYS);
}

/*
 * Fold what writers only insert: the ledger into ranges of numbers, offsets
 * and epochs to those that count, dead letters to one each; forget what is
 * past its retention. Caller holds the maintenance lock.
 */
void
rsink_fold(RsinkSink *sink)
{
	RsinkSpi	spi;

	rsink_spi_begin(&spi);
	forget_decisions(sink);
	fold_ledger(sink);
	rsink_spi(SPI_OK_DELETE,
			  "DELETE FROM revenue_sink.committed_offset o USING (SELECT DISTINCT ON (source, partition) "
			  "  source, partition, epoch, number, sequence FROM revenue_sink.committed_offset "
			  "  WHERE sink_id = %d ORDER BY source, partition, epoch DESC, number DESC, sequence DESC) AS w "
			  "WHERE o.sink_id = %d AND (o.source, o.partition) = (w.source, w.partition) "
			  "AND (o.epoch, o.number, o.sequence) < (w.epoch, w.number, w.sequence)",
			  sink->id, sink->id);
	forget_epochs(sink);
	rsink_spi(SPI_OK_DELETE,
			  "DELETE FROM revenue_sink.dead_letter_event r WHERE sink_id = %d AND "
			  "(arrived_at < now() - make_interval(days => %d) OR EXISTS "
			  "(SELECT FROM revenue_sink.dead_letter_event f WHERE f.sink_id = r.sink_id AND f.letter = r.letter "
			  "AND f.ctid < r.ctid))", sink->id,
			  rsink_rejected_retention > 0 ? rsink_rejected_retention : rsink_dead_letter_retention);
	rsink_spi_end(&spi);
}

/*
 * Analyze a table that has grown or shrunk so much that nobody should plan with
 * what was known of it; not while somebody else vacuums or analyzes it. The number
 * of rows is that of the cumulative statistics, about a second old, if there are
 * any. After a crash they begin at nothing, which costs one ANALYZE.
 */
void
rsink_refresh_statistics(Oid relid)
{
	PgStat_StatTabEntry *entry = pgstat_track_counts ? pgstat_fetch_stat_tabentry(relid) : NULL;
	double		now = entry ? (double) rsink_live_tuples(entry) : 0;
	Relation	rel = try_table_open(relid, AccessShareLock);
	double		known;
	RsinkSpi	spi;

	if (rel == NULL)
		return;
	known = Max(rel->rd_rel->reltuples, 0);
	table_close(rel, AccessShareLock);
	if (!pgstat_track_counts || Max(now, known) < ANALYZE_ROWS || Max(now, known) < Min(now, known) * ANALYZE_FACTOR ||
		!ConditionalLockRelationOid(relid, ShareUpdateExclusiveLock))
		return;
	rsink_spi_begin(&spi);
	rsink_spi(SPI_OK_UTILITY, "ANALYZE revenue_sink.%s", quote_identifier(get_rel_name(relid)));
	rsink_spi_end(&spi);
}
