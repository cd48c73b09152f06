/*-------------------------------------------------------------------------
 *
 * import.c
 *	  Importing totals and seen events into a new sink.
 *
 * Imported totals are rows of the table of totals, where readers find them as fast as
 * any other. They need no place of their own: totals can be imported only while the
 * sink has no events of its own (see own.c), so a total that an import replaces has
 * nothing else in it. Later merges add to it.
 *
 * So that check(), and a restore, can still compare the events that revenue counts
 * with the events that were seen, sink_state says how many events have been imported
 * in either way. A total that was imported without the number of its events is marked
 * as uncounted, and its column "events" counts the events that are merged into it later.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "api/argument.h"
#include "api/import.h"
#include "core/compat.h"
#include "core/lock.h"
#include "core/spi_util.h"
#include "revenue/totals.h"
#include "seen/own.h"
#include "seen/seen.h"
#include "sink/choice.h"
#include "sink/right.h"
#include "sink/sink.h"
#include "twophase/unpreparable.h"

PG_FUNCTION_INFO_V1(revenue_sink_import_totals);

/*
 * The sink of such a call, for its owner. Waits for the maintenance lock and holds it
 * until the end of the transaction, which cannot be prepared. Raises wrong_object_type
 * for a sink in mode 'totals'.
 */
RsinkSink *
rsink_import_sink(FunctionCallInfo fcinfo, const char *call)
{
	RsinkSink  *sink = rsink_sink_argument(fcinfo, 0, RSINK_IS_OWNER);

	rsink_sink_require_mode(sink, RSINK_EVENTS);
	PreventCommandIfReadOnly(call);
	PreventCommandDuringRecovery(call);
	rsink_forbid_prepare(call);
	rsink_maintenance_lock(sink, true);
	return sink;
}

/*
 * Note in sink_state that so many seen events have been imported. Caller holds the
 * maintenance lock.
 */
void
rsink_import_note_seen(const RsinkSink *sink, int64 events)
{
	RsinkSpi	spi;

	if (events == 0)
		return;
	rsink_spi_begin(&spi);
	rsink_spi(SPI_OK_UPDATE, "UPDATE revenue_sink.sink_state SET imported_seen = imported_seen + " INT64_FORMAT
			  " WHERE sink_id = %d", events, sink->id);
	rsink_spi_end(&spi);
}

/* The array arguments of import_totals(), as parameters of a statement. */
typedef struct Arrays
{
	Datum		values[4];
	char		nulls[4];
} Arrays;

/*
 * Run one statement with the arrays as its parameters: minute, revenue, group_key,
 * events. Raises an internal error unless it ends with the SPI code "expected".
 */
static void
run(const Arrays *arrays, int expected, const char *sql)
{
	Oid			types[] = {TIMESTAMPTZARRAYOID, NUMERICARRAYOID, TEXTARRAYOID, INT8ARRAYOID};
	int			code = SPI_execute_with_args(sql, lengthof(types), types, (Datum *) arrays->values,
											 arrays->nulls, false, 0);

	if (code != expected)
		elog(ERROR, "unexpected result %s of \"%s\"", SPI_result_code_string(code), sql);
}

/*
 * Check each total in the arguments, and return how many there are; *arrays gets the
 * arguments.
 */
static int
check_arguments(FunctionCallInfo fcinfo, const RsinkSink *sink, Arrays *arrays)
{
	bool		grouped = !PG_ARGISNULL(3);
	bool		counted = !PG_ARGISNULL(4);
	RsinkColumn bucket_start;
	RsinkColumn revenue;
	RsinkColumn group_key;
	RsinkColumn events;
	RsinkTotal	total = {0};

	rsink_column_open(&bucket_start, fcinfo, 1, "minute", -1);
	rsink_column_open(&revenue, fcinfo, 2, "revenue", bucket_start.length);
	if (grouped)
		rsink_column_open(&group_key, fcinfo, 3, "group_key", bucket_start.length);
	if (counted)
		rsink_column_open(&events, fcinfo, 4, "events", bucket_start.length);
	for (int i = 0; i < bucket_start.length; i++)
	{
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		total.bucket_start = rsink_column_int64(&bucket_start, &total.bucket_start_isnull);
		total.revenue = (Numeric) rsink_column_varlena(&revenue);
		total.group_key = grouped ? (text *) rsink_column_varlena(&group_key) : NULL;
		rsink_check_total(sink, &total, i + 1);
		if (counted && rsink_column_int64(&events, &isnull) < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("bad total at position %d for sink \"%s\": events is negative", i + 1, sink->name),
					 errhint("Pass NULL where it is not known how many events a total has.")));
	}
	for (int i = 0; i < lengthof(arrays->values); i++)
	{
		arrays->nulls[i] = PG_ARGISNULL(i + 1) ? 'n' : ' ';
		arrays->values[i] = PG_ARGISNULL(i + 1) ? (Datum) 0 : PG_GETARG_DATUM(i + 1);
	}
	return bucket_start.length;
}

/*
 * Raise invalid_parameter_value if two of the totals have the same bucket and group:
 * it would be left to chance which of them stays.
 */
static void
refuse_twice(const RsinkSink *sink, const Arrays *arrays)
{
	run(arrays, SPI_OK_SELECT,
		"SELECT min(position) FROM (SELECT max(position) AS position FROM "
		"  unnest($1, $2, $3, $4) WITH ORDINALITY AS a (minute, revenue, group_key, events, position) "
		"GROUP BY minute, coalesce(group_key, '') COLLATE \"C\" HAVING count(*) > 1) AS twice");
	if (rsink_spi_int64(0, 1, 0) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("bad total at position %lld for sink \"%s\": its minute and group_key occur twice in the call",
						(long long) rsink_spi_int64(0, 1, 0), sink->name),
				 errhint("Add up the totals of a minute and group_key before the call.")));
}

/*
 * Put the totals in their places, and note in sink_state what that changes. Totals
 * that are there already are left alone, so that a repeated call writes nothing.
 */
static void
place_totals(const RsinkSink *sink, const Arrays *arrays)
{
	const char *total = get_rel_name(sink->total);

	run(arrays, SPI_OK_UPDATE,
		psprintf("WITH given AS (SELECT minute, coalesce(group_key, '') COLLATE \"C\" AS group_key, revenue, "
				 "    coalesce(events, 0) AS events, CASE WHEN events IS NULL THEN true END AS uncounted "
				 "  FROM unnest($1, $2, $3, $4) AS a (minute, revenue, group_key, events)), "
				 "changed AS MATERIALIZED (SELECT g.*, t.events AS former_events, t.uncounted AS former_uncounted "
				 "  FROM given g LEFT JOIN revenue_sink.%s t USING (minute, group_key) "
				 "  WHERE t.minute IS NULL OR (t.revenue, scale(t.revenue), t.events, t.uncounted) IS DISTINCT FROM "
				 "    (g.revenue, scale(g.revenue), g.events, g.uncounted)), "
				 "placed AS (INSERT INTO revenue_sink.%s AS t (minute, group_key, revenue, events, uncounted) "
				 "  SELECT minute, group_key, revenue, events, uncounted FROM changed ORDER BY minute, group_key "
				 "  ON CONFLICT (minute, group_key) DO UPDATE "
				 "  SET revenue = EXCLUDED.revenue, events = EXCLUDED.events, uncounted = EXCLUDED.uncounted) "
				 "UPDATE revenue_sink.sink_state s SET imported_events = s.imported_events + c.events, "
				 "  totals = s.totals + c.uncounted "
				 "FROM (SELECT coalesce(sum(events - coalesce(former_events, 0)), 0)::bigint AS events, "
				 "    count(uncounted) - count(former_uncounted) AS uncounted FROM changed) AS c "
				 "WHERE sink_id = %d", total, total, sink->id));
}

/*
 * import_totals(sink, minute[], revenue[], group_key[], events[]) -> bigint
 *
 * Sets the imported part of the totals in the arguments, and returns how many totals
 * these are. Takes the maintenance lock, and RowExclusiveLock on the sink's tables.
 * Raises object_not_in_prerequisite_state if the sink has events of its own, and
 * the errors of upsert() for a bad total; one is also bad if "events" is negative, or
 * if another one of the call has the same bucket and group.
 */
Datum
revenue_sink_import_totals(PG_FUNCTION_ARGS)
{
	RsinkSink  *sink = rsink_import_sink(fcinfo, "import_totals()");
	Arrays		arrays;
	int			n = check_arguments(fcinfo, sink, &arrays);
	RsinkSeen	seen;
	RsinkSpi	spi;

	rsink_seen_begin(&seen, sink, false);
	rsink_require_no_own(sink);
	if (rsink_own_row_exists(&seen))
		rsink_raise_own(sink);
	rsink_seen_end(&seen);
	if (n > 0)
	{
		rsink_spi_begin(&spi);
		refuse_twice(sink, &arrays);
		place_totals(sink, &arrays);
		rsink_spi_end(&spi);
	}
	PG_RETURN_INT64(n);
}
