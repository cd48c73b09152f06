/*-------------------------------------------------------------------------
 *
 * check.c
 *	  check(): do the index, the page rows, the revenue and the ledger agree?
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/tuplesort.h"
#include "utils/typcache.h"
#include "utils/uuid.h"

#include "api/argument.h"
#include "apply/fingerprint.h"
#include "core/catalog.h"
#include "core/compat.h"
#include "core/spi_util.h"
#include "seen/seen.h"
#include "seen/seen_build.h"
#include "seen/seen_index.h"
#include "seen/seen_page.h"
#include "seen/seen_spill.h"
#include "sink/choice.h"
#include "sink/home.h"
#include "sink/right.h"
#include "sink/sink.h"

PG_FUNCTION_INFO_V1(revenue_sink_check);

typedef struct Check
{
	ReturnSetInfo *result;
	RsinkSink  *sink;
} Check;

static void
problem(Check *check, const char *format,...) pg_attribute_printf(2, 3);

/* Add a row to the result; the text is made as by printf. */
static void
problem(Check *check, const char *format,...)
{
	char		text[512];
	va_list		args;
	Datum		value;
	bool		isnull = false;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	value = CStringGetTextDatum(text);
	tuplestore_putvalues(check->result->setResult, check->result->setDesc, &value, &isnull);
}

/*
 * Check that the index or the spill table leads from each fingerprint of a page
 * row to that row.
 *
 * An event without an entry in the index either has a row in the spill table, or
 * its page row has been packed or has expired since our snapshot was taken. So the
 * few events without an entry are looked up after the sink lock is released, in
 * the spill table first and in the page row last.
 */
static void
check_row(Check *check, RsinkSeen *seen, HeapTuple tuple, const RsinkPage *page)
{
	RsinkFingerprint fps[RSINK_PAGE_MAX];
	int			n = 0;
	int			missing = 0;
	RsinkPageReader reader;
	RsinkSpillReader spill;

	rsink_seen_lock(seen);
	for (int i = 0; i < page->n; i++)
	{
		rsink_page_key(page, i, &fps[n]);
		if (!rsink_index_has(&seen->shared->index, &fps[n], &tuple->t_self))
			n++;
	}
	rsink_seen_unlock(seen);

	rsink_page_reader_begin(&reader, seen->pages.rel);
	rsink_spill_reader_begin(&spill, &seen->spill);
	for (int i = 0; i < n; i++)
	{
		uint32		payload;

		if (rsink_spill_state(&spill, &fps[i], &payload) == RSINK_ROW_GONE &&
			rsink_page_state(&reader, &tuple->t_self, &fps[i], true, &payload) != RSINK_ROW_GONE)
			missing++;
	}
	rsink_spill_reader_end(&spill);
	rsink_page_reader_end(&reader);
	if (missing > 0)
		problem(check, "page row (%u,%u) has %d events that the index does not find",
				ItemPointerGetBlockNumber(&tuple->t_self),
				ItemPointerGetOffsetNumber(&tuple->t_self), missing);
}

/* Sort the events' identities, and count how often one occurs after its first time. */
static int64
count_twice(Tuplesortstate *sort)
{
	pg_uuid_t  *last = NULL;
	int64		twice = 0;
	Datum		value;
	bool		isnull;

	tuplesort_performsort(sort);
	while (rsink_tuplesort_getdatum(sort, &value, &isnull))
	{
		pg_uuid_t  *identity = DatumGetUUIDP(value);

		CHECK_FOR_INTERRUPTS();
		if (last != NULL)
		{
			twice += memcmp(last, identity, UUID_LEN) == 0;
			pfree(last);
		}
		last = identity;
	}
	return twice;
}

/*
 * Check each page row by itself, and that no event is in two of them. An identity
 * has the length of a UUID, so the identities are sorted as UUIDs.
 */
static void
check_pages(Check *check)
{
	RsinkSeen	seen;
	SysScanDesc scan;
	HeapTuple	tuple;
	int64		twice;
	Tuplesortstate *sort = tuplesort_begin_datum(UUIDOID,
												 lookup_type_cache(UUIDOID, TYPECACHE_LT_OPR)->lt_opr,
												 InvalidOid, false, maintenance_work_mem, NULL,
												 TUPLESORT_NONE);

	StaticAssertStmt(offsetof(RsinkFingerprint, payload) == UUID_LEN,
					 "an event's identity is as long as a UUID");
	rsink_seen_begin(&seen, check->sink, false);
	scan = systable_beginscan(seen.pages.rel, InvalidOid, false, GetActiveSnapshot(), 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		RsinkPage	page;

		CHECK_FOR_INTERRUPTS();
		rsink_page_deform(RelationGetDescr(seen.pages.rel), tuple, &page);
		for (int i = 0; i < page.n; i++)
		{
			RsinkFingerprint fp;

			rsink_page_key(&page, i, &fp);
			tuplesort_putdatum(sort, UUIDPGetDatum((pg_uuid_t *) &fp), false);
		}
		if (page.oldest > page.newest)
			problem(check, "page row (%u,%u) has an oldest event_time that is later than its newest",
					ItemPointerGetBlockNumber(&tuple->t_self),
					ItemPointerGetOffsetNumber(&tuple->t_self));
		check_row(check, &seen, tuple, &page);
	}
	systable_endscan(scan);
	rsink_seen_end(&seen);
	twice = count_twice(sort);
	tuplesort_end(sort);
	if (twice > 0)
		problem(check, INT64_FORMAT " events are counted more than once", twice);
}

/*
 * Check that revenue counts as many events as were seen; buckets that were removed
 * and events that have expired are counted in sink_state.
 */
static void
check_sums(Check *check)
{
	int64		counted;
	int64		seen;
	RsinkSpi	spi;

	rsink_spi_begin(&spi);
	rsink_balance(check->sink->id, &counted, &seen);
	rsink_spi_end(&spi);
	if (counted != seen)
		problem(check, "revenue counts " INT64_FORMAT " events, but " INT64_FORMAT " were seen",
				counted, seen);
}

/* Check, in mode 'totals', that no merged total is missing. */
static void
check_totals(Check *check)
{
	RsinkSpi	spi;

	rsink_spi_begin(&spi);
	rsink_spi(SPI_OK_SELECT,
			  "SELECT count(*), (SELECT totals FROM revenue_sink.sink_state WHERE sink_id = %d) "
			  "FROM revenue_sink.total_%d", check->sink->id, check->sink->id);
	if (rsink_spi_int64(0, 1, 0) != rsink_spi_int64(0, 2, 0))
		problem(check, INT64_FORMAT " totals were merged, but " INT64_FORMAT " are there",
				rsink_spi_int64(0, 2, 0), rsink_spi_int64(0, 1, 0));
	rsink_spi_end(&spi);
}

/* Check that no bucket has been removed before the horizon passed it. */
static void
check_limit(Check *check)
{
	Oid			state = rsink_catalog_relid("sink_state");
	int32		id = check->sink->id;
	Snapshot	snapshot = GetActiveSnapshot();
	TimestampTz horizon = rsink_state_time(state, id, Anum_state_horizon, snapshot);
	TimestampTz limit = rsink_state_time(state, id, Anum_state_retained_from, snapshot);

	if (limit > horizon)
		problem(check, "buckets after the horizon have been removed");
}

/* Check that no two rows of the ledger stand for the same batch. */
static void
check_ledger(Check *check)
{
	RsinkSpi	spi;

	rsink_spi_begin(&spi);
	rsink_spi(SPI_OK_SELECT,
			  "SELECT count(*) FROM revenue_sink.ledger a JOIN revenue_sink.ledger b "
			  "  ON a.sink_id = b.sink_id AND a.job = b.job AND a.writer = b.writer "
			  "  AND a.epoch = b.epoch AND a.number <= b.last AND b.number <= a.last AND a.ctid < b.ctid "
			  "WHERE a.sink_id = %d", check->sink->id);
	if (rsink_spi_int64(0, 1, 0) > 0)
		problem(check, "the ledger has " INT64_FORMAT " batches twice", rsink_spi_int64(0, 1, 0));
	rsink_spi_end(&spi);
}

/*
 * check(sink) -> one row per disagreement
 *
 * Reads all page rows of the sink; writers are not kept from writing meanwhile.
 */
Datum
revenue_sink_check(PG_FUNCTION_ARGS)
{
	Check		check = {0};

	check.sink = rsink_sink_argument(fcinfo, 0, RSINK_IS_OWNER);
	PreventCommandDuringRecovery("check()");
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	check.result = (ReturnSetInfo *) fcinfo->resultinfo;
	if (check.sink->mode != RSINK_TOTALS)
	{
		check_sums(&check);
		check_limit(&check);
		check_pages(&check);
	}
	else
		check_totals(&check);
	check_ledger(&check);
	return (Datum) 0;
}
