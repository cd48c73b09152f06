/*-------------------------------------------------------------------------
 *
 * check.c
 *	  check(): do index, pages, revenue and ledger agree?
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "argument.h"
#include "catalog.h"
#include "compat.h"
#include "expire.h"
#include "seen.h"
#include "seen_lookup.h"
#include "seen_spill.h"
#include "spi_util.h"

PG_FUNCTION_INFO_V1(revenue_sink_check);

typedef struct Check
{
	ReturnSetInfo *result;
	RsinkSink  *sink;
	RsinkFingerprint *fps;		/* all that are visible */
	Size		n;
	Size		size;
} Check;

static void
problem(Check *check, const char *format,...) pg_attribute_printf(2, 3);

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

static int
compare_fps(const void *a, const void *b)
{
	return rsink_fingerprint_cmp(a, b);
}

/* Does the index, or the spill table, lead from each fingerprint to its row? */
static void
check_row(Check *check, RsinkSeen *seen, HeapTuple tuple, const RsinkPage *page)
{
	int			missing = 0;
	RsinkKey	keys[RSINK_PAGE_MAX];
	RsinkLookup lookup;

	for (int i = 0; i < page->n; i++)
		rsink_page_key(page, i, &keys[i].fp);
	rsink_lookup_begin(&lookup, seen->shared, &seen->pages, &seen->spill);
	(void) rsink_lookup_ahead(&lookup, keys, page->n);
	rsink_seen_lock(seen);
	for (int i = 0; i < page->n; i++)
	{
		const RsinkFingerprint *fp = &keys[i].fp;
		uint32		payload;

		if (rsink_index_has(&seen->shared->index, fp, &tuple->t_self))
			continue;
		if (seen->shared->spilled &&
			rsink_spill_state(&lookup.spill, fp, &payload) != RSINK_ROW_GONE)
			continue;
		/* the row may have been packed or expired since our snapshot */
		if (rsink_page_state(&lookup.pages, &tuple->t_self, fp, false, &payload) != RSINK_ROW_GONE)
			missing++;
	}
	rsink_lookup_end(&lookup);
	rsink_seen_unlock(seen);
	if (missing > 0)
		problem(check, "row (%u,%u) has %d events that the index doesn't find",
				ItemPointerGetBlockNumber(&tuple->t_self),
				ItemPointerGetOffsetNumber(&tuple->t_self), missing);
}

static void
check_pages(Check *check)
{
	RsinkSeen	seen;
	SysScanDesc scan;
	HeapTuple	tuple;
	Size		twice = 0;

	rsink_seen_begin(&seen, check->sink, false);
	scan = systable_beginscan(seen.pages.rel, InvalidOid, false, GetActiveSnapshot(), 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		RsinkPage	page;

		CHECK_FOR_INTERRUPTS();
		rsink_page_deform(RelationGetDescr(seen.pages.rel), tuple, &page);
		if (check->n + page.n > check->size)
		{
			check->size = Max(check->size * 2, 65536);
			check->fps = check->fps ?
				repalloc_huge(check->fps, check->size * sizeof(RsinkFingerprint)) :
				MemoryContextAllocHuge(CurrentMemoryContext, check->size * sizeof(RsinkFingerprint));
		}
		for (int i = 0; i < page.n; i++)
		{
			rsink_page_key(&page, i, &check->fps[check->n++]);
			if (page.oldest > page.newest)
				problem(check, "row (%u,%u) is older than itself",
						ItemPointerGetBlockNumber(&tuple->t_self),
						ItemPointerGetOffsetNumber(&tuple->t_self));
		}
		check_row(check, &seen, tuple, &page);
	}
	systable_endscan(scan);
	rsink_seen_end(&seen);
	if (check->n > 1)
		qsort(check->fps, check->n, sizeof(RsinkFingerprint), compare_fps);
	for (Size i = 1; i < check->n; i++)
		twice += rsink_fingerprint_cmp(&check->fps[i - 1], &check->fps[i]) == 0;
	if (twice > 0)
		problem(check, "%zu events are counted more than once", twice);
}

/* Each event that the fact view counts has been seen, and the reverse. */
static void
check_sums(Check *check)
{
	int64		counted;
	RsinkSpi	spi;

	rsink_spi_begin(&spi);
	rsink_spi(SPI_OK_SELECT,
			  "SELECT coalesce((SELECT sum(events) FROM revenue_sink.%s), 0)::bigint "
			  "  + coalesce((SELECT sum(events) FROM revenue_sink.%s), 0)::bigint, "
			  "  coalesce((SELECT sum(events) FROM revenue_sink.%s), 0)::bigint "
			  "  + coalesce((SELECT expired FROM revenue_sink.sink_state WHERE sink_id = %d), 0)",
			  get_rel_name(check->sink->total), get_rel_name(check->sink->delta),
			  get_rel_name(check->sink->seen), check->sink->id);
	counted = rsink_spi_int64(0, 1, 0);
	if (counted != rsink_spi_int64(0, 2, 0))
		problem(check, "revenue counts " INT64_FORMAT " events, but " INT64_FORMAT " were seen",
				counted, rsink_spi_int64(0, 2, 0));
	rsink_spi_end(&spi);
}

static void
check_ledger(Check *check)
{
	RsinkSpi	spi;

	rsink_spi_begin(&spi);
	rsink_spi(SPI_OK_SELECT,
			  "SELECT count(*) FROM revenue_sink.batch a JOIN revenue_sink.batch b "
			  "  ON a.sink_id = b.sink_id AND a.job = b.job AND a.writer = b.writer "
			  "  AND a.epoch = b.epoch AND a.number <= b.last AND b.number <= a.last AND a.ctid < b.ctid "
			  "WHERE a.sink_id = %d", check->sink->id);
	if (rsink_spi_int64(0, 1, 0) > 0)
		problem(check, "the ledger has " INT64_FORMAT " batches twice", rsink_spi_int64(0, 1, 0));
	rsink_spi_end(&spi);
}

/*
 * check(sink) -> a row a disagreement
 *
 * Reads all pages of the sink; writers go on meanwhile.
 */
Datum
revenue_sink_check(PG_FUNCTION_ARGS)
{
	Check		check = {0};

	check.sink = rsink_sink_argument(fcinfo, 0, RSINK_IS_OWNER);
	PreventCommandDuringRecovery("check()");
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	check.result = (ReturnSetInfo *) fcinfo->resultinfo;
	if (!check.sink->totals)
	{
		check_sums(&check);
		check_pages(&check);
	}
	check_ledger(&check);
	return (Datum) 0;
}
