/*-------------------------------------------------------------------------
 *
 * fold.c
 *	  Folding: removes what no longer counts from tables into which writers only insert.
 *
 * These tables are the ledger, committed_offset, epoch, decision, dead_letter_event,
 * letter_count and settled_event.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "apply/resolution.h"
#include "core/spi_util.h"
#include "sink/sink.h"
#include "worker/fold.h"
#include "writer/epoch.h"
#include "writer/offsets.h"

/*
 * The most ranges of batch numbers that the ledger keeps per epoch of a writer.
 */
#define LEDGER_RANGES	10000

/*
 * The epoch of a writer that is not heard of stays known for this many days. An
 * epoch that is over stays in the ledger for the dedup window and this many days.
 */
#define LEDGER_DAYS		30

/*
 * A longer dedup window (some centuries) counts as this one, since nobody sees
 * the end of it.
 */
#define FOREVER_SECS	INT64CONST(10000000000)

/* So many dead letters that nobody has resolved are counted by the worker. */
#define MANY_LETTERS	1000

/* The worker counts them again when one in so many has come or was resolved. */
#define LETTERS_PART	16

int			rsink_dead_letter_retention = 30;	/* days */
int			rsink_rejected_retention = -1;	/* the former name of that setting; -1: not set */
int			rsink_unresolved_retention = -1;	/* days; -1: for ever */

/*
 * Fold the ledger's rows into ranges of batch numbers. Where numbers have gaps, a
 * gap ends a range. Per epoch of a writer the last LEDGER_RANGES ranges are kept.
 * Those before them become one empty range (number = last + 1), which says up to
 * which number the ledger has forgotten. An epoch that is over goes as a whole
 * once it is old. So if an epoch has rows, a number that they don't cover has not
 * been committed. Rows that stay as they are aren't touched.
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
			  "    epoch_ended_at < now() - make_interval(secs => " INT64_FORMAT ") "
			  "      AND coalesce(" RSINK_CURRENT_EPOCH("i") " > i.epoch, true) AS ended "
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
 * Forget decisions that have been carried out: those on batches that have
 * committed, and those of epochs that are over. A decision to roll back, of an
 * epoch that isn't over, stays, since it keeps its number from being begun again.
 * Decisions on batches that are still prepared stay, too. The statement looks at
 * what is prepared after the decisions: the other way round, a batch might be
 * prepared and decided on in between.
 */
static void
forget_decisions(const RsinkSink *sink)
{
	rsink_spi(SPI_OK_DELETE,
			  "DELETE FROM revenue_sink.decision d WHERE sink_id = %d "
			  "AND (epoch < " RSINK_CURRENT_EPOCH("d") " "
			  "  OR EXISTS (SELECT FROM revenue_sink.ledger b WHERE b.sink_id = d.sink_id AND b.job = d.job "
			  "      AND b.writer = d.writer AND b.epoch = d.epoch AND b.last >= d.number "
			  "      AND b.number <= d.number)) "
			  "AND (job, writer, epoch, number) NOT IN "
			  "  (SELECT job, writer, epoch, number FROM revenue_sink.prepared_batches(%s))",
			  sink->id, quote_literal_cstr(sink->name));
}

/*
 * Forget epochs that a newer epoch, of the same writer or of the whole job,
 * supersedes. If a job opens epochs for its writers only, forget also the epochs
 * of writers that weren't heard of for LEDGER_DAYS. Such a writer has no epoch
 * then; if the job had epochs of its own, an older one of these would count for
 * the writer again. The highest epoch of a job stays, since the next one must lie
 * above it.
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
 * Should dead letters be folded? That reads all of them. Where they are many, it waits
 * until their number has changed by some part, or a day has passed.
 */
static bool
letters_are_due(const RsinkSink *sink)
{
	bool		isnull;

	rsink_spi(SPI_OK_SELECT,
			  "SELECT count(counted_at) = 0 OR max(counted_at) < now() - interval '1 day' "
			  "  OR sum(abs(letters)) FILTER (WHERE counted_at IS NULL) * %d >= sum(letters) FILTER (WHERE counted_at IS NOT NULL) "
			  "FROM revenue_sink.letter_count WHERE sink_id = %d", LETTERS_PART, sink->id);
	return DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull)) && !isnull;
}

/* Count the dead letters that nobody has resolved, where they are many. */
static void
count_letters(const RsinkSink *sink)
{
	/* one statement, so that what is deleted is what is counted */
	rsink_spi(SPI_OK_INSERT,
			  "WITH gone AS (DELETE FROM revenue_sink.letter_count WHERE sink_id = %d) "
			  "INSERT INTO revenue_sink.letter_count "
			  "SELECT %d, count(*), min(arrived_at), now() FROM (%s) AS u HAVING count(*) >= %d",
			  sink->id, sink->id, rsink_unresolved_letters(sink->id), MANY_LETTERS);
}

/*
 * Fold dead letters to one row each, and forget letters that are past their retention:
 * a resolved one "retention" days after its resolution, another one by a setting of its
 * own. A resolution stays.
 */
static void
fold_letters(const RsinkSink *sink, int retention)
{
	int64		unresolved = 0;

	rsink_spi(SPI_OK_DELETE,
			  "DELETE FROM revenue_sink.dead_letter_event d WHERE sink_id = %d AND (EXISTS "
			  "  (SELECT FROM revenue_sink.dead_letter_event f WHERE f.sink_id = d.sink_id AND f.letter = d.letter "
			  "    AND f.ctid < d.ctid) "
			  "  OR EXISTS (SELECT FROM revenue_sink.resolved_event r WHERE " RSINK_RESOLUTION_OF("r", "d") " "
			  "    AND r.resolved_at < now() - make_interval(days => %d)))", sink->id, retention);
	if (rsink_unresolved_retention > 0)
		unresolved = rsink_spi(SPI_OK_DELETE,
							   "DELETE FROM revenue_sink.dead_letter_event d WHERE sink_id = %d "
							   "AND arrived_at < now() - make_interval(days => %d) AND NOT EXISTS "
							   "  (SELECT FROM revenue_sink.resolved_event r WHERE " RSINK_RESOLUTION_OF("r", "d") ")",
							   sink->id, rsink_unresolved_retention);
	if (unresolved > 0)
		ereport(WARNING,
				(errmsg("sink \"%s\" has removed dead letters that nobody has resolved", sink->name),
				 errdetail("Dead letters: %lld. They were older than %d days.", (long long) unresolved,
						   rsink_unresolved_retention),
				 errhint("Raise revenue_sink.unresolved_retention, or resolve dead letters in time.")));
	count_letters(sink);
}

/*
 * Fold what writers only insert, in the current transaction: the ledger into
 * ranges of batch numbers, offsets and epochs to those that count, dead letters
 * to one row each. Forget what is past its retention. Caller holds the
 * maintenance lock.
 */
void
rsink_fold(RsinkSink *sink)
{
	int			retention = rsink_rejected_retention > 0 ? rsink_rejected_retention : rsink_dead_letter_retention;
	RsinkSpi	spi;

	rsink_spi_begin(&spi);
	forget_decisions(sink);
	fold_ledger(sink);
	rsink_spi(SPI_OK_DELETE,
			  "DELETE FROM revenue_sink.committed_offset WHERE sink_id = %d "
			  "AND ctid NOT IN (SELECT tid FROM (%s) AS w)", sink->id, rsink_offsets_that_count(sink->id));
	forget_epochs(sink);
	if (letters_are_due(sink))
		fold_letters(sink, retention);
	rsink_spi(SPI_OK_DELETE,
			  "DELETE FROM revenue_sink.settled_event WHERE sink_id = %d "
			  "AND settled_at < now() - make_interval(days => %d)", sink->id, retention);
	rsink_spi_end(&spi);
}

