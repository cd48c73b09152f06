/*-------------------------------------------------------------------------
 *
 * observe.c
 *	  Looking into a sink: counters, seen(), and a round on demand.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "argument.h"
#include "catalog.h"
#include "compat.h"
#include "encoding.h"
#include "expire.h"
#include "relations.h"
#include "retain.h"
#include "seen.h"
#include "spi_util.h"
#include "totals.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(revenue_sink_merge);
PG_FUNCTION_INFO_V1(revenue_sink_expire);
PG_FUNCTION_INFO_V1(revenue_sink_seen);
PG_FUNCTION_INFO_V1(revenue_sink_counters);
PG_FUNCTION_INFO_V1(revenue_sink_may);
PG_FUNCTION_INFO_V1(revenue_sink_may_see);
PG_FUNCTION_INFO_V1(revenue_sink_may_dispose);
PG_FUNCTION_INFO_V1(revenue_sink_relation_of);

static RsinkSink *
maintained_sink(FunctionCallInfo fcinfo, const char *call)
{
	RsinkSink  *sink = rsink_sink_argument(fcinfo, 0, RSINK_IS_OWNER);

	PreventCommandIfReadOnly(call);
	PreventCommandDuringRecovery(call);
	rsink_forbid_prepare(call);
	rsink_maintenance_lock(sink, true);
	return sink;
}

/* merge(sink) -> rows removed */
Datum
revenue_sink_merge(PG_FUNCTION_ARGS)
{
	RsinkSink  *sink = maintained_sink(fcinfo, "merge()");
	BlockNumber from = 0;
	int64		removed;

	/* merging them now would take "the last commit" for "now" */
	if (sink->totals && rsink_totals_pending(sink))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("merge() cannot run in a transaction that has upserted into sink \"%s\"",
						sink->name),
				 errhint("COMMIT first.")));
	removed = sink->totals ? 0 : rsink_settle(sink, NULL);

	PG_RETURN_INT64(removed + rsink_merge_deltas(sink, PG_INT64_MAX, &from));
}

/* expire(sink) -> rows removed */
Datum
revenue_sink_expire(PG_FUNCTION_ARGS)
{
	RsinkSink  *sink = maintained_sink(fcinfo, "expire()");
	TimestampTz oldest = DT_NOBEGIN;
	int64		removed = rsink_expire(sink);

	/* by the horizon of now */
	CommandCounterIncrement();
	PG_RETURN_INT64(removed + rsink_retain(sink, &oldest));
}

/* Look for an event in all rows that the snapshot sees: slow, but anywhere. */
static bool
seen_by_scan(const RsinkSink *sink, const RsinkFingerprint *fp)
{
	Relation	rel = table_open(sink->seen, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, GetActiveSnapshot(), 0, NULL);
	bool		found = false;
	HeapTuple	tuple;

	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		RsinkPage	page;

		CHECK_FOR_INTERRUPTS();
		rsink_page_deform(RelationGetDescr(rel), tuple, &page);
		found = rsink_page_find(&page, fp) >= 0;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

/* The identity of an event. False: no event can have such ids. */
static bool
event_identity(const RsinkSink *sink, const text *order_id, const text *event_id, RsinkFingerprint *fp)
{
	int32		order_len = VARSIZE_ANY_EXHDR(order_id);
	int32		event_len = VARSIZE_ANY_EXHDR(event_id);
	const char *order = rsink_hashed_text(sink, VARDATA_ANY(order_id), &order_len);
	const char *event = rsink_hashed_text(sink, VARDATA_ANY(event_id), &event_len);

	if (order == NULL || event == NULL || order_len > RSINK_ID_MAX || event_len > RSINK_ID_MAX)
		return false;
	rsink_fingerprint_id(sink->key, order, order_len, event, event_len, fp);
	return true;
}

/*
 * seen(sink, order_id, event_id) -> boolean
 *
 * Is this event counted, as far as is committed now? Where there is no index (on
 * a standby, in a copy, without the library preloaded), it reads the whole table.
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

	rsink_sink_require_mode(sink, false);
	if (PG_ARGISNULL(1) || PG_ARGISNULL(2))
		PG_RETURN_BOOL(false);
	order_id = PG_GETARG_TEXT_PP(1);
	event_id = PG_GETARG_TEXT_PP(2);
	if (!event_identity(sink, order_id, event_id, &fp))
		PG_RETURN_BOOL(false);
	if (sink->shared == NULL || sink->problem != RSINK_READY)
		PG_RETURN_BOOL(seen_by_scan(sink, &fp));
	rsink_seen_begin(&seen, sink, false);
	found = rsink_seen_state(&seen, &fp, &payload) == RSINK_ROW_COUNTED;
	rsink_seen_end(&seen);
	PG_RETURN_BOOL(found);
}

static bool
may_see(Oid fact, Oid ingest)
{
	RsinkSink	sink;

	memset(&sink, 0, sizeof(sink));
	sink.fact = fact;
	sink.ingest = ingest;
	return get_rel_name(fact) != NULL && get_rel_name(ingest) != NULL &&
		rsink_sink_allows(&sink, RSINK_MAY_READ);
}

/*
 * may_see(sink) -> boolean, for the views. Sinks of which a view is gone are for
 * nobody to see: the functions behind the views would refuse them.
 */
Datum
revenue_sink_may_see(PG_FUNCTION_ARGS)
{
	RsinkSink  *sink = rsink_sink_find(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	PG_RETURN_BOOL(may_see(sink->fact, sink->ingest));
}

/* may_dispose(sink) -> boolean, for the view sink, which shows also what is broken */
Datum
revenue_sink_may_dispose(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(rsink_may_dispose(rsink_sink_find(text_to_cstring(PG_GETARG_TEXT_PP(0)))));
}

/*
 * relation_of(sink, kind) -> regclass, for the views; NULL for one that is gone
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

/* may_see(fact, ingest) -> boolean, in tables of version 1.0 */
Datum
revenue_sink_may(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(may_see(PG_GETARG_OID(0), PG_GETARG_OID(1)));
}

/*
 * counters(sink) -> what stat_sink shows of tables and shared memory; nulls for
 * the latter on a standby
 */
Datum
revenue_sink_counters(PG_FUNCTION_ARGS)
{
	RsinkSink  *sink = rsink_sink_argument(fcinfo, 0, RSINK_MAY_LOOK);
	Datum		values[RSINK_NSTATS + 8] = {0};
	bool		nulls[RSINK_NSTATS + 8];
	RsinkShared *shared = sink->problem == RSINK_READY ? sink->shared : NULL;
	int			n = RSINK_NSTATS;
	RsinkSpi	spi;

	memset(nulls, shared == NULL, sizeof(nulls));
	nulls[n] = nulls[n + 1] = !OidIsValid(sink->seen) || !OidIsValid(sink->delta);
	if (nulls[n])
		return HeapTupleGetDatum(heap_form_tuple(rsink_result_desc(fcinfo), values, nulls));
	rsink_spi_begin(&spi);
	rsink_spi(SPI_OK_SELECT, "SELECT (SELECT coalesce(sum(events), 0)::bigint FROM revenue_sink.%s), "
			  "(SELECT count(*) FROM revenue_sink.%s WHERE minute > '-infinity')",
			  get_rel_name(sink->seen), get_rel_name(sink->delta));
	values[n++] = Int64GetDatum(rsink_spi_int64(0, 1, 0));
	values[n++] = Int64GetDatum(rsink_spi_int64(0, 2, 0));
	rsink_spi_end(&spi);
	if (shared != NULL)
	{
		LWLockAcquire(&shared->lock, LW_SHARED);
		for (int i = 0; i < RSINK_NSTATS; i++)
			values[i] = Int64GetDatum((int64) pg_atomic_read_u64(&shared->stat[i]));
		values[n++] = Int64GetDatum((int64) rsink_index_bytes(&shared->index));
		nulls[n] = shared->last_merge == 0;
		values[n++] = TimestampTzGetDatum(shared->last_merge);
		values[n++] = CStringGetTextDatum(sink->totals ? "none" :
										  !shared->built ? "building" :
										  shared->spilled ? "spilled" : "built");
		nulls[n] = sink->totals;
		values[n++] = Float4GetDatum(shared->built || shared->next_block == 0 ?
									 (shared->built ? 100.0f : 0.0f) :
									 100.0f * shared->next_block / Max(1, shared->total_blocks));
		values[n++] = TimestampTzGetDatum(shared->stats_since);
		nulls[n] = TIMESTAMP_NOT_FINITE(shared->horizon);
		values[n++] = TimestampTzGetDatum(shared->horizon);
		LWLockRelease(&shared->lock);
	}
	return HeapTupleGetDatum(heap_form_tuple(rsink_result_desc(fcinfo), values, nulls));
}
