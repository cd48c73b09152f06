/*-------------------------------------------------------------------------
 *
 * settle.c
 *	  Settling deferred events, once the transactions that they wait for have ended.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "apply/apply.h"
#include "apply/event.h"
#include "core/catalog.h"
#include "core/compat.h"
#include "sink/sink.h"
#include "worker/settle.h"

/* The bytes of a text, which aren't terminated, and their number. */
static const char *
text_bytes(Datum datum, int32 *len)
{
	text	   *t = DatumGetTextPP(datum);

	*len = VARSIZE_ANY_EXHDR(t);
	return VARDATA_ANY(t);
}

/*
 * Make an event of a row of deferred_event. Its strings are copied into the
 * current memory context.
 */
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

static Datum
text_datum(const char *bytes, int32 len)
{
	return PointerGetDatum(cstring_to_text_with_len(bytes, len));
}

/*
 * Keep the answers of the events that are settled, for the view settled, and delete
 * the rows from which these events came; "tids" has the addresses of the rows. An
 * answer and its row's end are one transaction, so each row gets one answer that
 * stands. Returns how many events are settled; the others wait still.
 */
static int
keep_answers(const RsinkSink *sink, Relation deferred, RsinkTable *settled,
			 const RsinkEvent *events, ItemPointerData *tids, int n)
{
	Datum		values[Natts_settled];
	bool		nulls[Natts_settled] = {false};
	int			done = 0;

	values[Anum_settled_sink_id - 1] = Int32GetDatum(sink->id);
	values[Anum_settled_settled_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	for (int i = 0; i < n; i++)
	{
		const RsinkEvent *event = &events[i];

		if (event->status == RSINK_DEFERRED)
			continue;
		values[Anum_settled_order_id - 1] = text_datum(event->order_id, event->order_len);
		values[Anum_settled_event_id - 1] = text_datum(event->event_id, event->event_len);
		values[Anum_settled_answer - 1] = CStringGetTextDatum(rsink_status_name[event->status]);
		rsink_table_insert_values(settled, values, nulls);
		CatalogTupleDelete(deferred, &tids[i]);
		done++;
	}
	return done;
}

/*
 * Take each deferred event whose row has committed through the path of all events
 * once more. If the transaction that the event waited for has committed, the
 * event is a duplicate (or a conflict) by now; if that transaction has rolled
 * back, the event is applied; if it is unfinished still, the event stays
 * deferred. The rows of settled events are deleted in the current transaction, which
 * also writes their answers to settled_event. Returns the number of events settled.
 * Sets *pending, unless it is NULL, to true if others stay.
 *
 * Caller holds the maintenance lock. Takes RowExclusiveLock on deferred_event,
 * settled_event and the sink's tables.
 */
int64
rsink_settle(RsinkSink *sink, bool *pending)
{
	Relation	rel = table_open(rsink_catalog_relid("deferred_event"), RowExclusiveLock);
	Snapshot	snapshot;
	MemoryContext portion = AllocSetContextCreate(CurrentMemoryContext, "revenue_sink settle",
												ALLOCSET_DEFAULT_SIZES);
	RsinkApply *apply = NULL;
	RsinkTable	answers;
	RsinkEvent *events = NULL;
	ItemPointerData *tids = NULL;
	RsinkCounts counts = {{0}};
	int64		settled = 0;
	bool		done;
	HeapTuple	tuple;
	ScanKeyData key;
	SysScanDesc scan;

	/* settle also what the current statement has deferred */
	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyInit(&key, Anum_deferred_sink_id, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(sink->id));
	scan = systable_beginscan(rel, rsink_table_index(rel, Anum_deferred_sink_id), true,
							  snapshot, 1, &key);
	do
	{
		int			n = 0;

		/* the scan outlives the portion, so it runs in the caller's memory context */
		while (n < RSINK_PORTION_MAX && HeapTupleIsValid(tuple = systable_getnext(scan)))
		{
			MemoryContext old;

			if (apply == NULL)
			{
				apply = rsink_apply_begin(sink, true);
				rsink_table_open_named(&answers, "settled_event");
			}
			old = MemoryContextSwitchTo(portion);
			if (n == 0)
			{
				events = palloc(RSINK_PORTION_MAX * sizeof(RsinkEvent));
				tids = palloc(RSINK_PORTION_MAX * sizeof(ItemPointerData));
			}
			event_of_row(tuple, RelationGetDescr(rel), &events[n]);
			tids[n++] = tuple->t_self;
			MemoryContextSwitchTo(old);
		}
		if (n > 0)
		{
			MemoryContext old;
			int			ended;

			rsink_apply_events(apply, events, n);
			old = MemoryContextSwitchTo(portion);
			ended = keep_answers(sink, rel, &answers, events, tids, n);
			MemoryContextSwitchTo(old);
			if (ended < n && pending)
				*pending = true;
			settled += ended;
		}
		MemoryContextReset(portion);
		done = n < RSINK_PORTION_MAX;
	} while (!done);
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	if (apply != NULL)
	{
		rsink_table_close(&answers);
		rsink_apply_end(apply, &counts);
	}
	MemoryContextDelete(portion);
	table_close(rel, NoLock);
	CommandCounterIncrement();
	return settled;
}

