/*-------------------------------------------------------------------------
 *
 * check.c
 *	  check(): do the index, the page rows, the revenue, the ledger and resolutions agree?
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
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/tuplesort.h"
#include "utils/typcache.h"
#include "utils/uuid.h"

#include "api/argument.h"
#include "apply/dead_letter.h"
#include "apply/fingerprint.h"
#include "apply/resolution.h"
#include "core/catalog.h"
#include "core/compat.h"
#include "core/spi_util.h"
#include "seen/filter.h"
#include "seen/piece.h"
#include "seen/run.h"
#include "seen/sealed.h"
#include "seen/seen.h"
#include "seen/seen_build.h"
#include "seen/seen_index.h"
#include "seen/seen_lookup.h"
#include "seen/seen_page.h"
#include "seen/slice.h"
#include "seen/slice_load.h"
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
 * Check that the index or a run leads from each fingerprint of a page row to that row.
 *
 * If neither does, the page row may have been packed, sealed or expired since our
 * snapshot was taken. So the few events that aren't found are looked for in the page
 * row after the sink lock is released.
 */
static void
check_row(Check *check, RsinkSeen *seen, HeapTuple tuple, const RsinkPage *page)
{
	RsinkKey	keys[RSINK_PAGE_MAX];
	bool		found[RSINK_PAGE_MAX] = {false};
	RsinkRunAnswer maybe = {0};
	uint64		before = PG_UINT64_MAX;
	int			n = 0;
	int			missing = 0;
	RsinkPageReader reader;

	rsink_seen_lock(seen);
	for (int i = 0; i < page->n; i++)
	{
		rsink_page_key(page, i, &keys[n].fp);
		if (!rsink_index_has(&seen->shared->index, &keys[n].fp, &tuple->t_self))
			n++;
	}
	while (n > 0 && rsink_runs_ask(&seen->shared->runs, 0, &before, keys, n, &maybe))
		;
	rsink_seen_unlock(seen);

	for (int i = 0; i < maybe.n; i++)
		if (ItemPointerEquals(&maybe.candidates[i].tid, &tuple->t_self))
			found[maybe.candidates[i].key] = true;
	if (maybe.candidates != NULL)
		pfree(maybe.candidates);
	rsink_page_reader_begin(&reader, seen->pages.rel);
	for (int i = 0; i < n; i++)
	{
		uint32		payload;

		if (!found[i] && rsink_page_state(&reader, &tuple->t_self, &keys[i].fp, true, &payload) != RSINK_ROW_GONE)
			missing++;
	}
	rsink_page_reader_end(&reader);
	if (missing > 0)
		problem(check, "page row (%u,%u) has %d events that the index does not find",
				ItemPointerGetBlockNumber(&tuple->t_self),
				ItemPointerGetOffsetNumber(&tuple->t_self), missing);
}

/* Add the identities of a row's events to the sort. */
static void
add_identities(Tuplesortstate *sort, const RsinkPage *page)
{
	for (int i = 0; i < page->n; i++)
	{
		RsinkFingerprint fp;

		rsink_page_key(page, i, &fp);
		tuplesort_putdatum(sort, UUIDPGetDatum((pg_uuid_t *) &fp), false);
	}
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

/* A slice under check, and its filter as the tables have it. */
typedef struct CheckedSlice
{
	const RsinkSliceRow *slice;
	char	   *lines;
	int64		events;			/* of the rows so far */
	uint32		nrows;
	int64		unfiltered;		/* events that a filter misses */
	uint64		last;			/* upper half of the last row's greatest fingerprint */
} CheckedSlice;

static void
take_piece(void *arg, uint32 piece, const ItemPointerData *tid, const char *lines, uint32 nlines)
{
	CheckedSlice *checked = arg;
	uint32		first = piece * RSINK_PIECE_LINES;

	if (lines != NULL && first + nlines <= checked->slice->nlines)
		memcpy(checked->lines + (Size) first * RSINK_LINE_BYTES, lines, (Size) nlines * RSINK_LINE_BYTES);
}

/*
 * Check a row of a slice: its place among the others, and that the filter in the tables
 * knows each of its events and that what memory has of the slices leads to each.
 */
static void
check_sealed_row(Check *check, RsinkSeen *seen, CheckedSlice *checked, const RsinkSealedRow *row)
{
	RsinkKey	keys[RSINK_PAGE_MAX];
	bool		filtered[RSINK_PAGE_MAX];	/* does the filter in the tables know the event? */
	bool		found[RSINK_PAGE_MAX] = {false};	/* do the slices in memory lead to it? */
	RsinkSliceAnswer answer;
	int			n = row->page.n;
	bool		disordered = false;

	for (int i = 0; i < n; i++)
	{
		RsinkFingerprint *fp = &keys[i].fp;
		const char *line;

		rsink_page_key(&row->page, i, fp);
		disordered |= fp->hi < row->first || (checked->nrows > 0 && fp->hi <= checked->last) ||
			(i > 0 && rsink_fingerprint_cmp(&keys[i - 1].fp, fp) > 0);
		line = checked->lines + (Size) rsink_filter_line(fp, checked->slice->nlines) * RSINK_LINE_BYTES;
		filtered[i] = rsink_filter_has((const uint64 *) line, fp);
	}
	if (disordered)
		problem(check, "slice %d has events that are out of order", row->slice);
	if (n > 0)
		checked->last = keys[n - 1].fp.hi;
	checked->nrows++;
	checked->events += n;
	rsink_lookup_candidates(seen, keys, n, &answer);
	for (int i = 0; i < answer.ncandidates; i++)
		if (answer.candidates[i].slice == row->slice)
			found[answer.candidates[i].key] = true;
	if (answer.candidates != NULL)
		pfree(answer.candidates);
	for (int i = 0; i < n; i++)
		checked->unfiltered += !filtered[i] || !found[i];
}

/*
 * Check a slice, and add its events' identities to the sort. A slice that has expired
 * since our snapshot was taken is left alone.
 */
static void
check_slice(Check *check, RsinkSeen *seen, const RsinkSliceRow *slice, Tuplesortstate *sort)
{
	Relation	rel = table_open(check->sink->sealed, AccessShareLock);
	Relation	index = index_open(rsink_table_index(rel, Anum_sealed_slice), AccessShareLock);
	Snapshot	latest;
	CheckedSlice checked = {.slice = slice};
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	RsinkSliceRow *now;
	int			nnow;
	bool		there = false;

	/* a line that the tables lack says "maybe", as all of its bits are set */
	checked.lines = palloc_extended((Size) slice->nlines * RSINK_LINE_BYTES, MCXT_ALLOC_HUGE);
	memset(checked.lines, 0xFF, (Size) slice->nlines * RSINK_LINE_BYTES);
	rsink_filter_read(check->sink, GetActiveSnapshot(), slice->number, take_piece, &checked);
	ScanKeyInit(&key, Anum_sealed_slice, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(slice->number));
	scan = systable_beginscan_ordered(rel, index, GetActiveSnapshot(), 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext_ordered(scan, ForwardScanDirection)))
	{
		RsinkSealedRow row;

		CHECK_FOR_INTERRUPTS();
		rsink_sealed_deform(RelationGetDescr(rel), tuple, &row);
		add_identities(sort, &row.page);
		check_sealed_row(check, seen, &checked, &row);
	}
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	pfree(checked.lines);

	latest = RegisterSnapshot(GetLatestSnapshot());
	now = rsink_slices_read(check->sink, latest, &nnow);
	UnregisterSnapshot(latest);
	for (int i = 0; i < nnow; i++)
		there |= now[i].number == slice->number;
	pfree(now);
	if (!there)
		return;
	if (checked.events != slice->events || checked.nrows != slice->nrows)
		problem(check, "slice %d has " INT64_FORMAT " events in %u rows, but was sealed with " INT64_FORMAT " in %u",
				slice->number, checked.events, checked.nrows, slice->events, slice->nrows);
	if (checked.unfiltered > 0)
		problem(check, "slice %d has " INT64_FORMAT " events that its filter does not find",
				slice->number, checked.unfiltered);
}

/*
 * Check each page row and each slice by itself, and that no event is in two of them. An identity
 * has the length of a UUID, so the identities are sorted as UUIDs.
 */
static void
check_seen(Check *check)
{
	RsinkSeen	seen;
	SysScanDesc scan;
	HeapTuple	tuple;
	RsinkSliceRow *slices;
	int			nslices;
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
		add_identities(sort, &page);
		if (page.oldest > page.newest)
			problem(check, "page row (%u,%u) has an oldest event_time that is later than its newest",
					ItemPointerGetBlockNumber(&tuple->t_self),
					ItemPointerGetOffsetNumber(&tuple->t_self));
		check_row(check, &seen, tuple, &page);
	}
	systable_endscan(scan);
	slices = rsink_slices_read(check->sink, GetActiveSnapshot(), &nslices);
	rsink_slices_load(check->sink);
	for (int i = 0; i < nslices; i++)
		check_slice(check, &seen, &slices[i], sort);
	rsink_seen_end(&seen);
	twice = count_twice(sort);
	tuplesort_end(sort);
	if (twice > 0)
		problem(check, INT64_FORMAT " events are counted more than once", twice);
}

/*
 * Check that revenue counts as many events as were seen; buckets that were removed,
 * events that have expired, and what was imported are counted in sink_state.
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

/* Check that no total is missing, as far as sink_state says how many there are. */
static void
check_totals(Check *check)
{
	char	   *missing;
	RsinkSpi	spi;

	rsink_spi_begin(&spi);
	if ((missing = rsink_missing_totals(check->sink)) != NULL)
		problem(check, "%s", missing);
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
 * Check that no event is resolved twice, that each resolution names a dead letter of its
 * event, and that each dead letter has a letter of this version. The primary key is not
 * trusted.
 */
static void
check_resolutions(Check *check)
{
	RsinkSpi	spi;

	rsink_spi_begin(&spi);
	rsink_spi(SPI_OK_SELECT,
			  "SELECT count(*) - count(DISTINCT event), "
			  "  count(*) FILTER (WHERE length(letter) <> %d OR event <> substring(letter, 1, %d)), "
			  "  (SELECT count(*) FROM revenue_sink.dead_letter_event WHERE sink_id = %d AND length(letter) <> %d) "
			  "FROM revenue_sink.resolved_event WHERE sink_id = %d",
			  RSINK_LETTER_BYTES, RSINK_IDENTITY_BYTES, check->sink->id, RSINK_LETTER_BYTES, check->sink->id);
	if (rsink_spi_int64(0, 1, 0) > 0)
		problem(check, INT64_FORMAT " events are resolved more than once", rsink_spi_int64(0, 1, 0));
	if (rsink_spi_int64(0, 2, 0) > 0)
		problem(check, INT64_FORMAT " resolutions name no dead letter of their event", rsink_spi_int64(0, 2, 0));
	if (rsink_spi_int64(0, 3, 0) > 0)
		problem(check, INT64_FORMAT " dead letters have no letter of this version", rsink_spi_int64(0, 3, 0));
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
	check_totals(&check);
	if (check.sink->mode != RSINK_TOTALS)
	{
		check_sums(&check);
		check_limit(&check);
		check_seen(&check);
	}
	check_ledger(&check);
	check_resolutions(&check);
	return (Datum) 0;
}
