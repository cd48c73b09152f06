/*-------------------------------------------------------------------------
 *
 * writer.c
 *	  The batch of the current transaction, and the ledger of batches.
 *
 * A lost answer to COMMIT is resolved by the ledger: the writer begins the
 * batch of the same number again, and learns that it is there. The ledger's
 * row is inserted when the batch begins, so that whoever fences the epoch
 * finds the transaction, and gets its results when the transaction ends.
 *
 * Why nothing slips past a fence: a batch registers in the ledger first and
 * reads the epoch after, by a snapshot taken then; whoever opens an epoch
 * commits it first and looks for registered transactions after. So either the
 * batch sees the new epoch, or the opener sees the batch, and ends it. The
 * epoch is read again before the commit or prepare, to fail early.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "argument.h"
#include "catalog.h"
#include "compat.h"
#include "decision.h"
#include "seen.h"
#include "writer.h"

/* What one subtransaction has done to one sink; a list. */
typedef struct Tally
{
	SubTransactionId subid;
	RsinkShared *shared;
	int32		sink_id;
	Oid			seen;
	int64		n[RSINK_NSTATS];
	TimestampTz newest;			/* event time among those applied */
	struct Tally *next;
} Tally;

static RsinkBatch *batch;		/* in TopTransactionContext, or NULL */
static List *lost_batches;		/* batches that a savepoint's rollback took back */
static Tally *tallies;			/* likewise */
static const char *unpreparable;	/* a call after which PREPARE does harm */

PG_FUNCTION_INFO_V1(revenue_sink_begin_batch);

/* The batch of the current transaction on this sink, or NULL. */
const RsinkBatch *
rsink_current_batch(const RsinkSink *sink)
{
	return batch != NULL && batch->sink_id == sink->id ? batch : NULL;
}

static Tally *
tally_for(RsinkSink *sink)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	Tally	   *tally;

	for (tally = tallies; tally != NULL; tally = tally->next)
		if (tally->sink_id == sink->id && tally->subid == subid)
			return tally;
	tally = MemoryContextAllocZero(TopTransactionContext, sizeof(Tally));
	tally->subid = subid;
	tally->shared = sink->shared;
	tally->sink_id = sink->id;
	tally->seen = sink->seen;
	tally->newest = DT_NOBEGIN;
	tally->next = tallies;
	tallies = tally;
	return tally;
}

/*
 * Count answers, for stat_sink and the ledger, if this transaction commits.
 * "newest" is the newest event time among those applied, or DT_NOBEGIN.
 */
void
rsink_writer_count(RsinkSink *sink, const RsinkCounts *counts, TimestampTz newest)
{
	Tally	   *tally = tally_for(sink);

	for (int i = 0; i < RSINK_NSTATUS; i++)
		tally->n[i] += counts->n[i];
	tally->newest = Max(tally->newest, newest);
}

/* From now on this transaction can't be prepared; "call" says why. */
void
rsink_forbid_prepare(const char *call)
{
	unpreparable = call;
}

/* Raise if this transaction must not be prepared. */
void
rsink_refuse_unpreparable(void)
{
	if (unpreparable)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction that has called %s", unpreparable),
				 errhint("COMMIT it: its locks would stop the sink for as long as it is held.")));
}

/* What the ledger says of a batch number. */
typedef enum LedgerState
{
	LEDGER_NEW,
	LEDGER_DONE,				/* committed, or prepared */
	LEDGER_OPEN,				/* in a session that hasn't ended */
	LEDGER_PASSED				/* a later number is done */
} LedgerState;

/* Rows that end below the number say nothing of it, and aren't even read. */
static LedgerState
ledger_scan(Relation ledger, const RsinkBatch *b, bool *seen_open)
{
	LedgerState state = LEDGER_NEW;
	SnapshotData dirty;
	ScanKeyData keys[5];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&keys[0], Anum_ledger_sink_id, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(b->sink_id));
	ScanKeyInit(&keys[1], Anum_ledger_job, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(b->job));
	ScanKeyInit(&keys[2], Anum_ledger_writer, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(b->writer));
	ScanKeyInit(&keys[3], Anum_ledger_epoch, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(b->epoch));
	ScanKeyInit(&keys[4], Anum_ledger_last, BTGreaterEqualStrategyNumber, F_INT8GE,
				Int64GetDatum(b->number));
	keys[1].sk_collation = keys[2].sk_collation = C_COLLATION_OID;
	InitDirtySnapshot(dirty);
	scan = systable_beginscan(ledger, rsink_table_index(ledger, Anum_ledger_sink_id), true,
							  &dirty, 5, keys);
	while (state != LEDGER_DONE && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		int64		first = DatumGetInt64(heap_getattr(tuple, Anum_ledger_number,
													   RelationGetDescr(ledger), &isnull));
		int64		last = DatumGetInt64(heap_getattr(tuple, Anum_ledger_last,
													  RelationGetDescr(ledger), &isnull));
		bool		open = TransactionIdIsValid(dirty.xmin) && !rsink_xid_is_prepared(dirty.xmin);

		if (ItemPointerEquals(&tuple->t_self, (ItemPointer) &b->ledger))
			continue;
		*seen_open |= open;
		if (first <= b->number && b->number <= last)
			state = open ? LEDGER_OPEN : LEDGER_DONE;
		else if (last > b->number && !open && state == LEDGER_NEW)
			state = LEDGER_PASSED;
	}
	systable_endscan(scan);
	return state;
}

/*
 * What was open at the first look is looked at again: it may be the worker
 * folding the ledger, which commits its new row and the old ones' end together.
 */
static LedgerState
ledger_state(Relation ledger, const RsinkBatch *b)
{
	bool		seen_open = false;
	LedgerState state = ledger_scan(ledger, b, &seen_open);

	if (seen_open && state != LEDGER_DONE)
		state = ledger_scan(ledger, b, &seen_open);
	return state;
}

static void
ledger_register(RsinkBatch *b)
{
	RsinkTable	ledger;
	Datum		values[Natts_ledger];
	bool		nulls[Natts_ledger] = {false};
	HeapTuple	tuple;

	rsink_table_open_named(&ledger, "ledger");
	values[Anum_ledger_sink_id - 1] = Int32GetDatum(b->sink_id);
	values[Anum_ledger_job - 1] = CStringGetTextDatum(b->job);
	values[Anum_ledger_writer - 1] = CStringGetTextDatum(b->writer);
	values[Anum_ledger_epoch - 1] = Int64GetDatum(b->epoch);
	values[Anum_ledger_number - 1] = Int64GetDatum(b->number);
	values[Anum_ledger_last - 1] = Int64GetDatum(b->number);
	values[Anum_ledger_events - 1] = Int64GetDatum(0);
	nulls[Anum_ledger_newest - 1] = nulls[Anum_ledger_ended_at - 1] = true;
	tuple = heap_form_tuple(RelationGetDescr(ledger.rel), values, nulls);
	rsink_table_insert(&ledger, tuple);
	b->ledger = tuple->t_self;
	rsink_table_close(&ledger);

	/* this very statement, or the commit after it, may touch the row again */
	CommandCounterIncrement();
}

/*
 * Complete the batch's own ledger row. Nobody else wants that row: until we
 * commit it is no one's but ours.
 */
static void
ledger_complete(RsinkBatch *b)
{
	Relation	ledger = table_open(rsink_ledger_relid(), RowExclusiveLock);
	HeapTupleData old;
	Buffer		buffer;
	Datum		values[Natts_ledger] = {0};
	bool		nulls[Natts_ledger] = {false};
	bool		replace[Natts_ledger] = {false};
	HeapTuple	tuple;

	old.t_self = b->ledger;
	if (!heap_fetch(ledger, SnapshotSelf, &old, &buffer, false))
		elog(ERROR, "the ledger row of the current batch is gone");
	values[Anum_ledger_events - 1] = Int64GetDatum(b->events);
	values[Anum_ledger_newest - 1] = TimestampTzGetDatum(b->newest);
	nulls[Anum_ledger_newest - 1] = b->newest == DT_NOBEGIN;
	values[Anum_ledger_ended_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	replace[Anum_ledger_events - 1] = replace[Anum_ledger_newest - 1] =
		replace[Anum_ledger_ended_at - 1] = true;
	tuple = heap_modify_tuple(&old, RelationGetDescr(ledger), values, nulls, replace);
	ReleaseBuffer(buffer);
	CatalogTupleUpdate(ledger, &tuple->t_self, tuple);
	table_close(ledger, NoLock);
}

static void
raise_rolled_back(const RsinkBatch *b)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("batch %lld of writer \"%s\" was prepared in epoch %lld and rolled back",
					(long long) b->number, b->writer, (long long) b->epoch),
			 errhint("Open a new epoch with open_writer() or recover() to begin it again.")));
}

/*
 * begin_batch(sink, job, writer, epoch, number) -> boolean
 *
 * Starts the batch of the current transaction. False: the writer has committed
 * or prepared this number in this epoch, so the batch is to be skipped.
 * Raises ERRCODE_RSINK_FENCED for an old epoch, serialization_failure where
 * another session has the number open, and invalid_parameter_value for a
 * number below the last one.
 */
Datum
revenue_sink_begin_batch(PG_FUNCTION_ARGS)
{
	RsinkSink  *sink;
	MemoryContext old;
	RsinkBatch *b;
	Relation	ledger;
	LedgerState state;
	RsinkDecision decision;

	/* a NULL that came back for one that went in would look like "skip it" */
	(void) rsink_name_argument(fcinfo, 1, "job");
	(void) rsink_name_argument(fcinfo, 2, "writer");
	rsink_require_argument(fcinfo, 3, "epoch");
	rsink_require_argument(fcinfo, 4, "number");
	sink = rsink_sink_argument(fcinfo, 0, RSINK_MAY_APPLY);
	old = MemoryContextSwitchTo(TopTransactionContext);
	b = palloc0(sizeof(RsinkBatch));
	b->sink = sink;
	b->sink_id = sink->id;
	b->job = text_to_cstring(PG_GETARG_TEXT_PP(1));
	b->writer = text_to_cstring(PG_GETARG_TEXT_PP(2));
	b->epoch = PG_GETARG_INT64(3);
	b->number = PG_GETARG_INT64(4);
	b->newest = DT_NOBEGIN;
	b->subid = GetCurrentSubTransactionId();
	ItemPointerSetInvalid(&b->ledger);
	MemoryContextSwitchTo(old);

	PreventCommandIfReadOnly("begin_batch()");
	PreventCommandDuringRecovery("begin_batch()");
	if (batch != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("batch %lld of writer \"%s\" has begun in this transaction",
						(long long) batch->number, batch->writer),
				 errhint("A transaction is one batch: COMMIT it before the next.")));
	for (Tally *tally = tallies; tally != NULL; tally = tally->next)
		if (tally->sink_id == sink->id)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
					 errmsg("this transaction has written to sink \"%s\" before its batch began",
							sink->name),
					 errhint("Call begin_batch() right after BEGIN.")));
	if (b->number < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("batch number %lld is negative", (long long) b->number),
				 errhint("Number the batches of an epoch upwards from 0 or 1.")));

	/* holding a lock on the sink keeps it from being dropped under the batch */
	table_close(table_open(sink->delta, RowExclusiveLock), NoLock);
	ledger = table_open(rsink_ledger_relid(), RowExclusiveLock);
	state = ledger_state(ledger, b);
	if (state == LEDGER_NEW)
	{
		/* register first, look after: see the top of this file */
		ledger_register(b);
		rsink_epoch_require(sink, b->job, b->writer, b->epoch);
		if ((state = ledger_state(ledger, b)) == LEDGER_DONE)
			CatalogTupleDelete(ledger, &b->ledger);
	}
	else
		rsink_epoch_require(sink, b->job, b->writer, b->epoch);
	table_close(ledger, NoLock);
	decision = rsink_decision(sink, b->job, b->writer, b->epoch, b->number, InvalidTransactionId);

	switch (state)
	{
		case LEDGER_NEW:
			if (decision != RSINK_UNDECIDED)
				raise_rolled_back(b);
			break;
		case LEDGER_DONE:
			if (decision == RSINK_ROLLBACK)
				raise_rolled_back(b);
			rsink_durable_answer();
			PG_RETURN_BOOL(false);
		case LEDGER_OPEN:
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("batch %lld of writer \"%s\" is open in another session",
							(long long) b->number, b->writer),
					 errhint("Retry once that session has ended, or open a new epoch with open_writer().")));
			break;
		case LEDGER_PASSED:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("batch %lld of writer \"%s\" is below the last one of epoch %lld",
							(long long) b->number, b->writer, (long long) b->epoch),
					 errhint("Numbers grow within an epoch; open a new epoch with open_writer() to start again.")));
			break;
	}
	batch = b;
	tally_for(sink)->n[RSINK_STAT_BATCHES] = 1;
	PG_RETURN_BOOL(true);
}

/*
 * A savepoint was set before begin_batch(), and rolled back: what has been written
 * to the sink since would commit outside of any batch, and of any epoch.
 */
static void
refuse_remains(void)
{
	ListCell   *lc;

	foreach(lc, lost_batches)
	{
		RsinkBatch *lost = lfirst(lc);

		if (batch != NULL && batch->sink_id == lost->sink_id)
			continue;
		for (Tally *tally = tallies; tally != NULL; tally = tally->next)
			if (tally->sink_id == lost->sink_id)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
						 errmsg("batch %lld of writer \"%s\" was rolled back with a savepoint, and the transaction has gone on to write",
								(long long) lost->number, lost->writer),
						 errhint("ROLLBACK, and begin the batch again.")));
	}
}

/* Before COMMIT or PREPARE: nothing of an old epoch gets through. */
static void
before_end(void)
{
	refuse_remains();
	if (batch == NULL)
		return;
	for (Tally *tally = tallies; tally != NULL; tally = tally->next)
	{
		if (tally->sink_id != batch->sink_id)
			continue;
		batch->events += tally->n[RSINK_APPLIED];
		batch->newest = Max(batch->newest, tally->newest);
	}
	PushActiveSnapshot(GetTransactionSnapshot());
	rsink_epoch_require(batch->sink, batch->job, batch->writer, batch->epoch);
	ledger_complete(batch);
	PopActiveSnapshot();
}

static void
publish_stats(void)
{
	for (Tally *tally = tallies; tally != NULL; tally = tally->next)
	{
		if (tally->shared == NULL || tally->shared->seen != tally->seen)
			continue;
		for (int i = 0; i < RSINK_NSTATS; i++)
			if (tally->n[i] != 0)
				pg_atomic_fetch_add_u64(&tally->shared->stat[i], tally->n[i]);
	}
}

/* A subtransaction's tallies become its parent's, or are gone. */
static void
subxact_callback(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	Tally	  **link = &tallies;
	MemoryContext old;

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	if (batch != NULL && batch->subid == mine)
	{
		if (event == SUBXACT_EVENT_COMMIT_SUB)
			batch->subid = parent;
		else
		{
			old = MemoryContextSwitchTo(TopTransactionContext);
			lost_batches = lappend(lost_batches, batch);
			MemoryContextSwitchTo(old);
			batch = NULL;
		}
	}
	while (*link != NULL)
	{
		Tally	   *tally = *link;
		Tally	   *into = NULL;

		if (tally->subid != mine)
		{
			link = &tally->next;
			continue;
		}
		if (event == SUBXACT_EVENT_COMMIT_SUB)
		{
			for (into = tallies; into != NULL; into = into->next)
				if (into->sink_id == tally->sink_id && into->subid == parent)
					break;
			if (into == NULL)
			{
				tally->subid = parent;
				link = &tally->next;
				continue;
			}
			for (int i = 0; i < RSINK_NSTATS; i++)
				into->n[i] += tally->n[i];
			into->newest = Max(into->newest, tally->newest);
		}
		*link = tally->next;
		pfree(tally);
	}
}

static void
xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			before_end();
			break;
		case XACT_EVENT_PRE_PREPARE:
			rsink_refuse_unpreparable();
			before_end();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
			publish_stats();
			/* FALLTHROUGH */
		case XACT_EVENT_ABORT:
			batch = NULL;
			lost_batches = NIL;
			tallies = NULL;
			unpreparable = NULL;
			break;
		default:
			break;
	}
}

/* Called once a process, from _PG_init. */
void
rsink_init_writer(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}
