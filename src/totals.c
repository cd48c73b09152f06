/*-------------------------------------------------------------------------
 *
 * totals.c
 *	  Mode 'totals': the processor keeps the sums, the sink keeps the last.
 *
 * Writers insert versions; the fact view shows, of each minute and group, the
 * one that wins, and merging keeps only that. Where versions don't decide, the
 * last commit wins. A row can't know when its transaction will commit, so each
 * takes a number when it is inserted, and if by the end of its transaction
 * another one has taken a later number, the transaction inserts its rows once
 * more with new numbers. The older ones are beaten by the newer ones and go
 * with the next merge.
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

#include "amount.h"
#include "argument.h"
#include "compat.h"
#include "deferred.h"
#include "revenue.h"
#include "seen.h"
#include "totals.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(revenue_sink_upsert);

/* An inserted row: its address may be another's after a savepoint's rollback. */
typedef struct InsertedRow
{
	int64		sequence;
	ItemPointerData tid;
} InsertedRow;

/* The versions that this transaction has inserted into a sink; a list. */
typedef struct Inserted
{
	RsinkSink  *sink;
	Oid			delta;
	int64		last_sequence;
	bool		overtaken;		/* has another transaction taken one since? */
	int64		n;
	int64		size;
	InsertedRow *rows;
	struct Inserted *next;
} Inserted;

static Inserted *inserted;		/* in TopTransactionContext, or NULL */

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

static void
check_total(const RsinkSink *sink, const RsinkTotal *total, int64 position)
{
	if (total->minute_isnull || total->revenue == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("bad total at position %lld for sink \"%s\": %s is null",
						(long long) position, sink->name,
						total->minute_isnull ? "minute" : "revenue"),
				 errhint("A total needs its minute and its revenue.")));
	if (TIMESTAMP_NOT_FINITE(total->minute) ||
		rsink_bucket_start(total->minute, sink->bucket) != total->minute)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_FIELD_OVERFLOW),
				 errmsg("bad total at position %lld for sink \"%s\": minute is not the start of a bucket",
						(long long) position, sink->name),
				 errdetail("The value is \"%s\".", timestamptz_to_str(total->minute)),
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
				 errhint("It must be below 10^100.")));
	if (total->group_key && VARSIZE_ANY_EXHDR(total->group_key) > RSINK_ID_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("bad total at position %lld for sink \"%s\": group_key is longer than 1024 bytes",
						(long long) position, sink->name),
				 errhint("Send a shorter key.")));
}

/* Set a version aside whose minute the sink keeps no longer. */
static void
reject_late(const RsinkSink *sink, const RsinkTotal *total)
{
	RsinkEvent	event = {.event_time = total->minute, .amount = total->revenue};
	RsinkEvent *events[] = {&event};
	const char *reasons[] = {rsink_status_name[RSINK_LATE]};

	if (total->group_key)
	{
		event.group_key = VARDATA_ANY(total->group_key);
		event.group_len = VARSIZE_ANY_EXHDR(total->group_key);
	}
	rsink_reject(sink, events, reasons, 1);
}

/*
 * Insert one version of a total. False: its minute is removed, and the version is set
 * aside. Raises for a bad one; "position" is where in its batch it stands.
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

	check_total(sink, total, position);
	values[Anum_version_minute - 1] = TimestampTzGetDatum(total->minute);
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

	/* inside the section, so that no limit passes between the look and the row */
	LWLockAcquire(&sink->shared->lock, LW_EXCLUSIVE);
	late = total->minute < sink->shared->retained_from;
	if (!late)
	{
		sink->shared->low_claim = Min(sink->shared->low_claim, total->minute);
		rsink_table_insert(versions, tuple);
	}
	LWLockRelease(&sink->shared->lock);
	if (late)
		reject_late(sink, total);
	else
		remember(inserted_for(sink), &tuple->t_self, sequence, previous);
	heap_freetuple(tuple);
	return !late;
}

/*
 * upsert(sink, minute[], revenue[], group_key[], version) -> how many were taken
 */
Datum
revenue_sink_upsert(PG_FUNCTION_ARGS)
{
	RsinkSink  *sink = rsink_sink_argument(fcinfo, 0, RSINK_MAY_APPLY);
	bool		grouped = !PG_ARGISNULL(3);
	RsinkColumn minute;
	RsinkColumn revenue;
	RsinkColumn group_key;
	RsinkTotal	total;
	RsinkTable	versions;
	RsinkCounts counts = {{0}};

	rsink_sink_require_mode(sink, true);
	PreventCommandIfReadOnly("upsert()");
	PreventCommandDuringRecovery("upsert()");
	rsink_column_open(&minute, fcinfo, 1, "minute", -1);
	rsink_column_open(&revenue, fcinfo, 2, "revenue", minute.length);
	if (grouped)
		rsink_column_open(&group_key, fcinfo, 3, "group_key", minute.length);
	total.version_isnull = PG_ARGISNULL(4);
	total.version = total.version_isnull ? 0 : PG_GETARG_INT64(4);

	rsink_table_open(&versions, sink->delta);
	for (int i = 0; i < minute.length; i++)
	{
		CHECK_FOR_INTERRUPTS();
		total.minute = rsink_column_int64(&minute, &total.minute_isnull);
		total.revenue = (Numeric) rsink_column_varlena(&revenue);
		total.group_key = grouped ? (text *) rsink_column_varlena(&group_key) : NULL;
		counts.n[rsink_total_insert(sink, &versions, &total, i + 1) ? RSINK_APPLIED : RSINK_LATE]++;
	}
	rsink_table_close(&versions);
	rsink_writer_count(sink, &counts, DT_NOBEGIN);
	PG_RETURN_INT64(counts.n[RSINK_APPLIED]);
}

/* Insert the rows of this transaction again, as the latest. */
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

		/* after a savepoint's rollback the table may have been truncated */
		if (ItemPointerGetBlockNumber(&old.t_self) >= nblocks ||
			!heap_fetch(versions.rel, SnapshotSelf, &old, &buffer, false))
			continue;			/* its row is gone */
		heap_deform_tuple(&old, RelationGetDescr(versions.rel), values, nulls);
		if (DatumGetInt64(values[Anum_version_sequence - 1]) != list->rows[i].sequence)
		{
			ReleaseBuffer(buffer);
			continue;			/* likewise, and another row has its place */
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

/* Called once a process, from _PG_init. */
void
rsink_init_totals(void)
{
	RegisterXactCallback(xact_callback, NULL);
}
