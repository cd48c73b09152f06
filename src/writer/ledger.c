/*-------------------------------------------------------------------------
 *
 * ledger.c
 *	  The ledger: a row per batch, or per range of batches, and how it is found.
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
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/xid.h"
#include "writer/batch.h"
#include "writer/ledger.h"

/*
 * Fill in the scan keys that find rows of the ledger: a sink's, or only those of
 * a job, or of a writer of that job. "keys" has room for RSINK_LEDGER_KEYS.
 * Returns how many are filled in, three at most.
 */
int
rsink_ledger_keys(int32 sink_id, const char *job, const char *writer, ScanKeyData *keys)
{
	int			n = 0;

	ScanKeyInit(&keys[n++], Anum_ledger_sink_id, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(sink_id));
	if (job)
	{
		ScanKeyInit(&keys[n], Anum_ledger_job, BTEqualStrategyNumber, F_TEXTEQ,
					CStringGetTextDatum(job));
		keys[n++].sk_collation = C_COLLATION_OID;
	}
	if (writer)
	{
		ScanKeyInit(&keys[n], Anum_ledger_writer, BTEqualStrategyNumber, F_TEXTEQ,
					CStringGetTextDatum(writer));
		keys[n++].sk_collation = C_COLLATION_OID;
	}
	return n;
}

/*
 * Add to the nkeys scan keys of one writer those that find only rows of an epoch,
 * and of these only rows that end at a number or above. Returns how many keys are
 * filled in then.
 */
int
rsink_ledger_keys_from(int64 epoch, int64 number, ScanKeyData *keys, int nkeys)
{
	ScanKeyInit(&keys[nkeys++], Anum_ledger_epoch, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(epoch));
	ScanKeyInit(&keys[nkeys++], Anum_ledger_last, BTGreaterEqualStrategyNumber, F_INT8GE,
				Int64GetDatum(number));
	return nkeys;
}

/*
 * Read the ledger once for the number of a batch. Sets *seen_open if a row of an
 * open transaction was met. Rows whose numbers end below this one say nothing of
 * it, and aren't even read.
 */
static RsinkLedgerState
ledger_scan(Relation ledger, const RsinkBatch *b, bool *seen_open)
{
	RsinkLedgerState state = RSINK_LEDGER_NEW;
	SnapshotData dirty;
	ScanKeyData keys[RSINK_LEDGER_KEYS];
	int			nkeys;
	SysScanDesc scan;
	HeapTuple	tuple;

	nkeys = rsink_ledger_keys(b->sink_id, b->job, b->writer, keys);
	nkeys = rsink_ledger_keys_from(b->epoch, b->number, keys, nkeys);
	InitDirtySnapshot(dirty);
	scan = systable_beginscan(ledger, rsink_table_index(ledger, Anum_ledger_sink_id), true,
							  &dirty, nkeys, keys);
	while (state != RSINK_LEDGER_DONE && HeapTupleIsValid(tuple = systable_getnext(scan)))
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
			state = open ? RSINK_LEDGER_OPEN : RSINK_LEDGER_DONE;
		else if (last > b->number && !open && state == RSINK_LEDGER_NEW)
			state = RSINK_LEDGER_PASSED;
	}
	systable_endscan(scan);
	return state;
}

/*
 * What the ledger says of the number of a batch, as committed or prepared at this
 * instant. The batch's own row doesn't count. "ledger" is open.
 *
 * If a row was seen open, the ledger is read again: that row may be the worker's,
 * which folds the ledger and commits a new row together with the deletion of
 * those that the new row stands for.
 */
RsinkLedgerState
rsink_ledger_state(Relation ledger, const RsinkBatch *b)
{
	bool		seen_open = false;
	RsinkLedgerState state = ledger_scan(ledger, b, &seen_open);

	if (seen_open && state != RSINK_LEDGER_DONE)
		state = ledger_scan(ledger, b, &seen_open);
	return state;
}

/*
 * Find the committed batch that a transaction has run, by the transaction's top-level
 * id. False: it has run none, or folding has written the batch's row anew, so that its
 * transaction is no longer known. Takes AccessShareLock on the ledger for a moment.
 */
bool
rsink_ledger_find(int32 sink_id, TransactionId xid, RsinkLedgerBatch *batch)
{
	Relation	ledger = table_open(rsink_ledger_relid(), AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyData keys[RSINK_LEDGER_KEYS];
	int			nkeys = rsink_ledger_keys(sink_id, NULL, NULL, keys);
	SysScanDesc scan = systable_beginscan(ledger, rsink_table_index(ledger, Anum_ledger_sink_id), true,
										  snapshot, nkeys, keys);
	bool		found = false;
	HeapTuple	tuple;

	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Datum		values[Natts_ledger];
		bool		nulls[Natts_ledger];

		if (!TransactionIdIsNormal(xid) || HeapTupleHeaderGetXmin(tuple->t_data) != xid)
			continue;
		heap_deform_tuple(tuple, RelationGetDescr(ledger), values, nulls);
		found = !nulls[Anum_ledger_ended_at - 1];
		if (!found)
			continue;
		batch->job = TextDatumGetCString(values[Anum_ledger_job - 1]);
		batch->writer = TextDatumGetCString(values[Anum_ledger_writer - 1]);
		batch->number = DatumGetInt64(values[Anum_ledger_number - 1]);
		batch->ended_at = DatumGetTimestampTz(values[Anum_ledger_ended_at - 1]);
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(ledger, AccessShareLock);
	return found;
}

/*
 * Register a batch: insert its row into the ledger, in the current transaction,
 * and set b->ledger to its address.
 */
void
rsink_ledger_register(RsinkBatch *b)
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

	/*
	 * The current statement may delete this row again, and the commit will update
	 * it.
	 */
	CommandCounterIncrement();
}

/*
 * Complete the ledger's row of a batch with the batch's figures and the time.
 * Nobody else can want that row: until we commit, it can be seen by nobody else.
 */
void
rsink_ledger_complete(RsinkBatch *b)
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

