/*-------------------------------------------------------------------------
 *
 * observe.c
 *	  Looking into a sink: seen(), counters(), and the functions behind the views.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "api/argument.h"
#include "apply/encoding.h"
#include "apply/fingerprint.h"
#include "core/compat.h"
#include "core/spi_util.h"
#include "seen/pool.h"
#include "seen/seen.h"
#include "seen/seen_find.h"
#include "sink/choice.h"
#include "sink/relations.h"
#include "sink/right.h"
#include "sink/sink.h"
#include "sink/slot.h"

/* So many deferred events are counted at most, so that looking stays cheap. */
#define MOST_WAITING 100000

PG_FUNCTION_INFO_V1(revenue_sink_seen);
PG_FUNCTION_INFO_V1(revenue_sink_counters);
PG_FUNCTION_INFO_V1(revenue_sink_may);
PG_FUNCTION_INFO_V1(revenue_sink_pool_usage);
PG_FUNCTION_INFO_V1(revenue_sink_may_see);
PG_FUNCTION_INFO_V1(revenue_sink_may_watch);
PG_FUNCTION_INFO_V1(revenue_sink_may_dispose);
PG_FUNCTION_INFO_V1(revenue_sink_relation_of);

/*
 * seen(sink, order_id, event_id) -> boolean
 *
 * Has this event been counted, by a transaction that is committed now or by the
 * current one? Where there is no index (on a standby, in a copy, or without the
 * library preloaded), this reads the whole table of page rows in the statement's
 * snapshot. Takes AccessShareLock on that table, and on those of sealed slices.
 */
Datum
revenue_sink_seen(PG_FUNCTION_ARGS)
{
	RsinkSink  *sink = rsink_sink_argument(fcinfo, 0, RSINK_MAY_READ);
	text	   *order_id;
	text	   *event_id;
	RsinkFingerprint fp;
	RsinkSeen	seen;
	bool		found;
	uint32		payload;

	rsink_sink_require_mode(sink, RSINK_EVENTS);
	if (PG_ARGISNULL(1) || PG_ARGISNULL(2))
		PG_RETURN_BOOL(false);
	order_id = PG_GETARG_TEXT_PP(1);
	event_id = PG_GETARG_TEXT_PP(2);
	if (!rsink_event_identity(sink, order_id, event_id, &fp))
		PG_RETURN_BOOL(false);
	if (sink->shared == NULL || sink->problem != RSINK_READY)
		PG_RETURN_BOOL(rsink_seen_scan(sink, &fp, GetActiveSnapshot()));
	rsink_seen_begin(&seen, sink, false);
	found = rsink_seen_state(&seen, &fp, &payload) == RSINK_ROW_COUNTED;
	rsink_seen_end(&seen);
	PG_RETURN_BOOL(found);
}

/* Has the current user this right on the sink that has these two views? */
static bool
may(Oid fact, Oid ingest, RsinkRight right)
{
	RsinkSink	sink;

	memset(&sink, 0, sizeof(sink));
	sink.fact = fact;
	sink.ingest = ingest;
	return get_rel_name(fact) != NULL && get_rel_name(ingest) != NULL &&
		rsink_sink_allows(&sink, right);
}

/*
 * may_see(sink) -> boolean, for the extension's views
 *
 * Nobody may see a sink one of whose views is gone, because the functions that
 * the extension's views call would raise an error for such a sink.
 */
Datum
revenue_sink_may_see(PG_FUNCTION_ARGS)
{
	RsinkSink  *sink = rsink_sink_find(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	PG_RETURN_BOOL(may(sink->fact, sink->ingest, RSINK_MAY_READ));
}

/*
 * may_watch(sink) -> boolean, for those of the views that show no event
 *
 * As may_see(), but for whoever has the rights of pg_read_all_stats, who may watch
 * every sink. A sink that has lost its views is the one that needs somebody's help.
 */
Datum
revenue_sink_may_watch(PG_FUNCTION_ARGS)
{
	RsinkSink  *sink = rsink_sink_find(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	PG_RETURN_BOOL(rsink_reads_all_stats() || may(sink->fact, sink->ingest, RSINK_MAY_WATCH));
}

/*
 * may_dispose(sink) -> boolean, for the view sink
 *
 * The view sink shows a broken sink to those who may drop or adopt it.
 */
Datum
revenue_sink_may_dispose(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(rsink_may_dispose(rsink_sink_find(text_to_cstring(PG_GETARG_TEXT_PP(0)))));
}

/*
 * relation_of(sink, kind) -> regclass, for the extension's views
 *
 * "kind" is 'fact', 'ingest' or one of rsink_own_tables. NULL if the relation is
 * gone.
 */
Datum
revenue_sink_relation_of(PG_FUNCTION_ARGS)
{
	RsinkSink  *sink = rsink_sink_find(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	const char *kind = text_to_cstring(PG_GETARG_TEXT_PP(1));
	Oid			relid = strcmp(kind, "fact") == 0 ? sink->fact :
		strcmp(kind, "ingest") == 0 ? sink->ingest : rsink_table_of(sink->id, kind);

	if (!OidIsValid(relid))
		PG_RETURN_NULL();
	PG_RETURN_OID(relid);
}

/* may_see(fact, ingest) -> boolean, for the views of version 1.0 */
Datum
revenue_sink_may(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(may(PG_GETARG_OID(0), PG_GETARG_OID(1), RSINK_MAY_READ));
}

/*
 * counters(sink) -> record, for the view stat_sink
 *
 * What the view shows of the sink's tables and of shared memory. What comes from
 * shared memory is NULL where the sink has no slot, as on a standby. Takes the
 * sink lock in shared mode.
 */
Datum
revenue_sink_counters(PG_FUNCTION_ARGS)
{
	RsinkSink  *sink = rsink_sink_argument(fcinfo, 0, RSINK_MAY_WATCH);
	Datum		values[RSINK_NSTATS + 17] = {0};
	bool		nulls[RSINK_NSTATS + 17];
	RsinkShared *shared = sink->problem == RSINK_READY ? sink->shared : NULL;
	int			n = RSINK_NSTATS;
	RsinkBytes	bytes = {0};
	RsinkSpi	spi;

	memset(nulls, shared == NULL, sizeof(nulls));
	nulls[n] = nulls[n + 1] = nulls[n + 2] = nulls[n + 3] = !OidIsValid(sink->seen) || !OidIsValid(sink->slice) || !OidIsValid(sink->delta);
	if (nulls[n])
		return HeapTupleGetDatum(heap_form_tuple(rsink_result_desc(fcinfo), values, nulls));
	rsink_spi_begin(&spi);
	rsink_spi(SPI_OK_SELECT, "SELECT (SELECT coalesce(sum(events), 0)::bigint FROM revenue_sink.%s) "
			  "  + (SELECT coalesce(sum(events), 0)::bigint FROM revenue_sink.%s), "
			  "(SELECT count(*) FROM revenue_sink.%s WHERE minute > '-infinity'), "
			  "(SELECT count(*) FROM (SELECT FROM revenue_sink.deferred_event WHERE sink_id = %d LIMIT %d) AS d), "
			  "(SELECT min(deferred_at) FROM revenue_sink.deferred_event WHERE sink_id = %d)",
			  get_rel_name(sink->seen), get_rel_name(sink->slice), get_rel_name(sink->delta),
			  sink->id, MOST_WAITING, sink->id);
	values[n++] = Int64GetDatum(rsink_spi_int64(0, 1, 0));
	values[n++] = Int64GetDatum(rsink_spi_int64(0, 2, 0));
	values[n++] = Int64GetDatum(rsink_spi_int64(0, 3, 0));
	nulls[n] = values[n - 1] == 0;
	values[n++] = TimestampTzGetDatum(rsink_spi_int64(0, 4, 0));
	rsink_spi_end(&spi);
	if (shared != NULL)
	{
		LWLockAcquire(&shared->lock, LW_SHARED);
		for (int i = 0; i < RSINK_NSTATS; i++)
			values[i] = Int64GetDatum((int64) pg_atomic_read_u64(&shared->stat[i]));
		rsink_shared_bytes(shared, &bytes);
		values[n++] = Int64GetDatum((int64) (bytes.hot + bytes.filters + bytes.fences));
		nulls[n] = pg_atomic_read_u64(&shared->last_merge) == 0;
		values[n++] = TimestampTzGetDatum((TimestampTz) pg_atomic_read_u64(&shared->last_merge));
		values[n++] = CStringGetTextDatum(sink->mode == RSINK_TOTALS ? "none" :
										  !shared->built ? "building" :
										  shared->runs.nruns > 0 ? "overflowed" : "built");
		nulls[n] = sink->mode == RSINK_TOTALS;
		values[n++] = Float4GetDatum(shared->built || shared->next_block == 0 ?
									 (shared->built ? 100.0f : 0.0f) :
									 100.0f * shared->next_block / Max(1, shared->total_blocks));
		values[n++] = TimestampTzGetDatum(shared->stats_since);
		nulls[n] = TIMESTAMP_NOT_FINITE(shared->horizon);
		values[n++] = TimestampTzGetDatum(shared->horizon);
		values[n++] = Int64GetDatum((int64) bytes.hot);
		values[n++] = Int64GetDatum((int64) bytes.filters);
		values[n++] = Int64GetDatum((int64) bytes.fences);
		nulls[n] = shared->last_round == 0;
		values[n++] = TimestampTzGetDatum(shared->last_round);
		nulls[n] = nulls[n + 1] = nulls[n + 2] = shared->last_error == 0;
		values[n++] = TimestampTzGetDatum(shared->last_error);
		values[n++] = CStringGetTextDatum(unpack_sql_state(shared->error_sqlstate));
		values[n++] = CStringGetTextDatum(shared->error_message);
		LWLockRelease(&shared->lock);
	}
	return HeapTupleGetDatum(heap_form_tuple(rsink_result_desc(fcinfo), values, nulls));
}

/*
 * pool_usage() -> the row of the view stat_pool
 *
 * What the server's memory for seen events is used for. Returns no row to whoever lacks
 * the rights of pg_read_all_stats, nor where the library isn't preloaded. Takes the
 * sink locks in shared mode, one after another.
 */
Datum
revenue_sink_pool_usage(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	RsinkBytes	bytes = {0};
	Datum		values[7];
	bool		nulls[7] = {false};

	InitMaterializedSRF(fcinfo, 0);
	if (!rsink_reads_all_stats() || !rsink_is_preloaded())
		return (Datum) 0;
	values[0] = Int64GetDatum((int64) rsink_pool_total_bytes());
	values[1] = Int64GetDatum((int64) rsink_pool_used_bytes());
	values[2] = Int32GetDatum(rsink_shared_bytes_of_all(&bytes));
	values[3] = Int32GetDatum(rsink_max_sinks);
	values[4] = Int64GetDatum((int64) bytes.hot);
	values[5] = Int64GetDatum((int64) bytes.filters);
	values[6] = Int64GetDatum((int64) bytes.fences);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	return (Datum) 0;
}
