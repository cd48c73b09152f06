/*-------------------------------------------------------------------------
 *
 * decision.c
 *	  Decisions on prepared batches: rows that are committed before any batch is finished.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_collation.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "sink/sink.h"
#include "twophase/decision.h"

/*
 * What has been decided on a batch, as committed at this instant. The batch is
 * the one of the transaction xid, or any of this number if xid is
 * InvalidTransactionId.
 */
RsinkDecision
rsink_decision(const RsinkSink *sink, const char *job, const char *writer,
			   int64 epoch, int64 number, TransactionId xid)
{
	Relation	rel = table_open(rsink_catalog_relid("decision"), AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	RsinkDecision decision = RSINK_UNDECIDED;
	ScanKeyData keys[5];
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		isnull;

	ScanKeyInit(&keys[0], Anum_decision_sink_id, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(sink->id));
	ScanKeyInit(&keys[1], Anum_decision_job, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(job));
	ScanKeyInit(&keys[2], Anum_decision_writer, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(writer));
	ScanKeyInit(&keys[3], Anum_decision_epoch, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(epoch));
	ScanKeyInit(&keys[4], Anum_decision_number, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(number));
	keys[1].sk_collation = keys[2].sk_collation = C_COLLATION_OID;
	scan = systable_beginscan(rel, rsink_table_index(rel, Anum_decision_sink_id), true,
							  snapshot, 5, keys);
	while (decision == RSINK_UNDECIDED && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		TupleDesc	desc = RelationGetDescr(rel);

		if (!TransactionIdIsValid(xid) ||
			DatumGetTransactionId(heap_getattr(tuple, Anum_decision_xid, desc, &isnull)) == xid)
			decision = DatumGetBool(heap_getattr(tuple, Anum_decision_commits, desc, &isnull)) ?
				RSINK_COMMIT : RSINK_ROLLBACK;
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return decision;
}

/*
 * Insert a decision on the batch of the transaction xid, in the current
 * transaction. Caller holds the job's lock, and has seen since taking it that no
 * decision on the batch exists.
 */
void
rsink_decide(const RsinkSink *sink, const char *job, const char *writer,
			 int64 epoch, int64 number, TransactionId xid, RsinkDecision decision)
{
	RsinkTable	table;
	Datum		values[Natts_decision];
	bool		nulls[Natts_decision] = {false};

	rsink_table_open_named(&table, "decision");
	values[Anum_decision_sink_id - 1] = Int32GetDatum(sink->id);
	values[Anum_decision_job - 1] = CStringGetTextDatum(job);
	values[Anum_decision_writer - 1] = CStringGetTextDatum(writer);
	values[Anum_decision_epoch - 1] = Int64GetDatum(epoch);
	values[Anum_decision_number - 1] = Int64GetDatum(number);
	values[Anum_decision_xid - 1] = TransactionIdGetDatum(xid);
	values[Anum_decision_commits - 1] = BoolGetDatum(decision == RSINK_COMMIT);
	values[Anum_decision_decided_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	rsink_table_insert_values(&table, values, nulls);
	rsink_table_close(&table);
}
