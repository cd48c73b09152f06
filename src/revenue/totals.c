/*-------------------------------------------------------------------------
 *
 * totals.c
 *	  Mode 'totals': the processor adds up, the sink keeps the last sum.
 *
 * Writers insert versions of totals. The fact view shows, for each bucket and
 * group, the version that wins, and merging keeps only that one. Where versions
 * don't decide, the last commit wins. When a row is inserted nobody knows when its
 * transaction will commit. So each row takes a sequence number when it is inserted,
 * and a transaction that finds at its end that another transaction has taken a
 * later number inserts its rows again, with new numbers. The new rows beat the
 * older ones, which the next merge removes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "api/argument.h"
#include "apply/dead_letter.h"
#include "apply/event.h"
#include "core/catalog.h"
#include "core/compat.h"
#include "revenue/amount.h"
#include "revenue/revenue.h"
#include "revenue/totals.h"
#include "sink/choice.h"
#include "sink/right.h"
#include "sink/sink.h"
#include "sink/slot.h"
#include "writer/batch.h"
#include "writer/tally.h"

PG_FUNCTION_INFO_V1(revenue_sink_upsert);

/*
 * A row that this transaction has inserted. After ROLLBACK TO SAVEPOINT another row
 * may have its address; the sequence number tells.
 */
typedef struct InsertedRow
{
	int64		sequence;
	ItemPointerData tid;
} InsertedRow;

/* The versions that this transaction has inserted into one sink. */
typedef struct Inserted
{
	RsinkSink  *sink;
	Oid			delta;
	int64		last_sequence;
	bool		overtaken;		/* has another transaction taken a number meanwhile? */
	int64		n;
	int64		size;
	InsertedRow *rows;
	struct Inserted *next;
} Inserted;

static Inserted *inserted;		/* a list in TopTransactionContext, or NULL */

/* The list of the versions inserted into a sink; a new one if need be. */
static Inserted *
inserted_for(RsinkSink *sink)
{
	Inserted   *list;

	for (list = inserted; list != NULL; list = list->next)
		if (list->delta == sink->delta)
			return list;
	list = MemoryContextAllocZero(TopTransactionContext, sizeof(Inserted));
	list->sink = sink;
	list->delta = sink->delta;
	list->size = 64;
	list->rows = MemoryContextAlloc(TopTransactionContext, list->size * sizeof(InsertedRow));
	list->next = inserted;
	inserted = list;
	return list;
}

/* Has this transaction inserted versions into the sink? */
bool
rsink_totals_pending(const RsinkSink *sink)
{
	for (Inserted *list = inserted; list != NULL; list = list->next)
		if (list->delta == sink->delta)
			return true;
	return false;
}

/*
 * Remember an inserted row. "previous" is the sequence number that was given before
 * this row's, by whichever transaction.
 */
static void
remember(Inserted *list, const ItemPointerData *tid, int64 sequence, int64 previous)
{
	if (list->n > 0 && previous != list->last_sequence)
		list->overtaken = true;
	if (list->n == list->size)
	{
		list->size *= 2;
		list->rows = repalloc_huge(list->rows, list->size * sizeof(InsertedRow));
	}
	list->rows[list->n].tid = *tid;
	list->rows[list->n++].sequence = sequence;
	list->last_sequence = sequence;
}

/* Raise for a bad total; "position" is that of the total in its call, from 1. */
void
rsink_check_total(const RsinkSink *sink, const RsinkTotal *total, int64 position)
{
	if (total->bucket_start_isnull || total->revenue == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("bad total at position %lld for sink \"%s\": %s is null",
						(long long) position, sink->name,
						total->bucket_start_isnull ? "minute" : "revenue"),
				 errhint("A total needs its minute and its revenue.")));
	if (TIMESTAMP_NOT_FINITE(total->bucket_start) ||
		rsink_bucket_start(total->bucket_start, sink->bucket) != total->bucket_start)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_FIELD_OVERFLOW),
				 errmsg("bad total at position %lld for sink \"%s\": minute is not the start of a bucket",
						(long long) position, sink->name),
				 errdetail("The value is \"%s\".", timestamptz_to_str(total->bucket_start)),
				 errhint("Buckets have the sink's fixed length and count from 1970-01-01 UTC.")));
	if (!rsink_amount_is_finite(total->revenue))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("bad total at position %lld for sink \"%s\": revenue is not finite",
						(long long) position, sink->name),
				 errhint("Revenue is a sum of finite amounts.")));
	if (rsink_amount_is_huge(total->revenue))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("bad total at position %lld for sink \"%s\": revenue is too large",
						(long long) position, sink->name),
				 errhint("Its absolute value must be below 10^100.")));
	if (total->group_key && VARSIZE_ANY_EXHDR(total->group_key) > RSINK_ID_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("bad total at position %lld for sink \"%s\": group_key is longer than " RSINK_ID_MAX_TEXT " bytes",
						(long long) position, sink->name),
				 errhint("Send a shorter key.")));
}

/* Keep a version whose bucket the sink keeps no longer as a dead letter. */
static void
keep_late(const RsinkSink *sink, const RsinkTotal *total)
{
	RsinkEvent	event = {.event_time = total->bucket_start, .amount = total->revenue};
	RsinkEvent *events[] = {&event};
	const char *reasons[] = {rsink_status_name[RSINK_LATE]};

	if (total->group_key)
	{
		event.group_key = VARDATA_ANY(total->group_key);
		event.group_len = VARSIZE_ANY_EXHDR(total->group_key);
	}
	rsink_keep_dead_letters(sink, events, reasons, 1);
}

/*
 * Insert one version of a total into the sink's open table of versions. Returns
 * false if the sink keeps the bucket no longer; the version then becomes a dead
 * letter. Raises for a bad total; "position" is the total's position in the call,
 * from 1, for the message. Takes and releases the sink lock.
 */
bool
rsink_total_insert(RsinkSink *sink, RsinkTable *versions, const RsinkTotal *total,
				   int64 position)
{
	const RsinkBatch *batch = rsink_current_batch(sink);
	int64		previous;
	int64		sequence = rsink_next_sequence(sink, &previous);
	Datum		values[Natts_version];
	bool		nulls[Natts_version] = {false};
	bool		ranked;			/* epoch and number stand in for a version */
	bool		late;
	HeapTuple	tuple;

	rsink_check_total(sink, total, position);
	values[Anum_version_minute - 1] = TimestampTzGetDatum(total->bucket_start);
	values[Anum_version_group_key - 1] = PointerGetDatum(total->group_key ? total->group_key :
														 cstring_to_text(""));
	values[Anum_version_revenue - 1] = NumericGetDatum(total->revenue);
	values[Anum_version_version - 1] = Int64GetDatum(total->version);
	nulls[Anum_version_version - 1] = total->version_isnull;
	ranked = batch != NULL && total->version_isnull;
	values[Anum_version_epoch - 1] = Int64GetDatum(ranked ? batch->epoch : 0);
	values[Anum_version_number - 1] = Int64GetDatum(ranked ? batch->number : 0);
	values[Anum_version_sequence - 1] = Int64GetDatum(sequence);
	tuple = heap_form_tuple(RelationGetDescr(versions->rel), values, nulls);

	/* in one hold, so that the limit can't pass the row before it is inserted */
	LWLockAcquire(&sink->shared->lock, LW_EXCLUSIVE);
	late = total->bucket_start < sink->shared->retained_from;
	if (!late)
	{
		sink->shared->low_claim = Min(sink->shared->low_claim, total->bucket_start);
		rsink_table_insert(versions, tuple);
	}
	LWLockRelease(&sink->shared->lock);
	if (late)
		keep_late(sink, total);
	else
		remember(inserted_for(sink), &tuple->t_self, sequence, previous);
	heap_freetuple(tuple);
	return !late;
}

/*
 * upsert(sink, minute[], revenue[], group_key[], version) -> bigint
 *
 * Inserts one version of a total per array element, and returns how many totals were
 * not late.
 */
Datum
revenue_sink_upsert(PG_FUNCTION_ARGS)
{
	RsinkSink  *sink = rsink_sink_argument(fcinfo, 0, RSINK_MAY_APPLY);
	bool		grouped = !PG_ARGISNULL(3);
	RsinkColumn bucket_start;
	RsinkColumn revenue;
	RsinkColumn group_key;
	RsinkTotal	total;
	RsinkTable	versions;
	RsinkCounts counts = {{0}};

	rsink_sink_require_mode(sink, RSINK_TOTALS);
	PreventCommandIfReadOnly("upsert()");
	PreventCommandDuringRecovery("upsert()");
	rsink_column_open(&bucket_start, fcinfo, 1, "minute", -1);
	rsink_column_open(&revenue, fcinfo, 2, "revenue", bucket_start.length);
	if (grouped)
		rsink_column_open(&group_key, fcinfo, 3, "group_key", bucket_start.length);
	total.version_isnull = PG_ARGISNULL(4);
	total.version = total.version_isnull ? 0 : PG_GETARG_INT64(4);

	rsink_table_open(&versions, sink->delta);
	for (int i = 0; i < bucket_start.length; i++)
	{
		CHECK_FOR_INTERRUPTS();
		total.bucket_start = rsink_column_int64(&bucket_start, &total.bucket_start_isnull);
		total.revenue = (Numeric) rsink_column_varlena(&revenue);
		total.group_key = grouped ? (text *) rsink_column_varlena(&group_key) : NULL;
		counts.n[rsink_total_insert(sink, &versions, &total, i + 1) ? RSINK_APPLIED : RSINK_LATE]++;
	}
	rsink_table_close(&versions);
	rsink_tally_count(sink, &counts, DT_NOBEGIN);
	PG_RETURN_INT64(counts.n[RSINK_APPLIED]);
}

/* Insert the rows of this transaction again, with new sequence numbers. */
static void
renumber(Inserted *list)
{
	int64		n = list->n;
	BlockNumber nblocks;
	RsinkTable	versions;

	rsink_table_open(&versions, list->delta);
	nblocks = RelationGetNumberOfBlocks(versions.rel);
	for (int64 i = 0; i < n; i++)
	{
		HeapTupleData old;
		Buffer		buffer;
		Datum		values[Natts_version];
		bool		nulls[Natts_version];
		HeapTuple	tuple;

		CHECK_FOR_INTERRUPTS();
		old.t_self = list->rows[i].tid;

		/* after ROLLBACK TO SAVEPOINT the table may have been truncated */
		if (ItemPointerGetBlockNumber(&old.t_self) >= nblocks ||
			!heap_fetch(versions.rel, SnapshotSelf, &old, &buffer, false))
			continue;			/* the row is gone */
		heap_deform_tuple(&old, RelationGetDescr(versions.rel), values, nulls);
		if (DatumGetInt64(values[Anum_version_sequence - 1]) != list->rows[i].sequence)
		{
			ReleaseBuffer(buffer);
			continue;			/* the row is gone, another one has its address */
		}
		values[Anum_version_sequence - 1] = Int64GetDatum(rsink_next_sequence(list->sink, NULL));
		tuple = heap_form_tuple(RelationGetDescr(versions.rel), values, nulls);
		ReleaseBuffer(buffer);
		rsink_table_insert(&versions, tuple);
		heap_freetuple(tuple);
	}
	rsink_table_close(&versions);
}

static void
xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			for (Inserted *list = inserted; list != NULL; list = list->next)
				if (list->overtaken ||
					(int64) pg_atomic_read_u64(&list->sink->shared->last_sequence) != list->last_sequence)
					renumber(list);
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_ABORT:
			inserted = NULL;
			break;
		default:
			break;
	}
}

/* Register a callback. _PG_init() calls this once per process. */
void
rsink_init_totals(void)
{
	RegisterXactCallback(xact_callback, NULL);
}
