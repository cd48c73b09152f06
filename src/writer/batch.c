/*-------------------------------------------------------------------------
 *
 * batch.c
 *	  The batch of the current transaction.
 *
 * A writer that has lost the answer to COMMIT asks the ledger: it begins the
 * batch of the same number again, and learns whether that number has committed.
 * The row in the ledger is inserted when the batch begins, so that whoever fences
 * the epoch off finds the transaction. The row gets the batch's figures when the
 * transaction ends.
 *
 * Nothing slips past a fence, for this reason: a batch registers in the ledger
 * first and reads the epoch after, by a snapshot taken then; whoever opens an
 * epoch commits the epoch first and looks for registered transactions after. So
 * either the batch sees the new epoch, or the opener sees the batch, and ends its
 * session. The epoch is read once more before COMMIT or PREPARE, to fail early.
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

#include "api/argument.h"
#include "core/catalog.h"
#include "core/compat.h"
#include "sink/right.h"
#include "sink/sink.h"
#include "twophase/decision.h"
#include "twophase/durable.h"
#include "writer/batch.h"
#include "writer/epoch.h"
#include "writer/ledger.h"
#include "writer/tally.h"

static RsinkBatch *batch;		/* in TopTransactionContext, or NULL */
static List *lost_batches;		/* rolled back with a savepoint; same context */

PG_FUNCTION_INFO_V1(revenue_sink_begin_batch);

/*
 * The batch of the current transaction on this sink, or NULL. The batch is valid
 * until the transaction ends.
 */
const RsinkBatch *
rsink_current_batch(const RsinkSink *sink)
{
	return batch != NULL && batch->sink_id == sink->id ? batch : NULL;
}

static void
raise_rolled_back(const RsinkBatch *b)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("batch %lld of writer \"%s\" was prepared in epoch %lld and rolled back",
					(long long) b->number, b->writer, (long long) b->epoch),
			 errhint("Open a new epoch with open_writer() or recover() to begin the batch again.")));
}

/* The batch that the arguments of begin_batch() name, in TopTransactionContext. */
static RsinkBatch *
batch_argument(FunctionCallInfo fcinfo, RsinkSink *sink)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	RsinkBatch *b = palloc0(sizeof(RsinkBatch));

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
	return b;
}

/* Raise where this transaction cannot begin the batch, whatever the ledger says. */
static void
require_beginning(const RsinkBatch *b)
{
	if (batch != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("this transaction has already begun batch %lld of writer \"%s\"",
						(long long) batch->number, batch->writer),
				 errhint("A transaction has one batch. Commit the transaction before you begin the next batch.")));
	if (rsink_tally_has(b->sink_id))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("this transaction has written to sink \"%s\" before its batch began",
						b->sink->name),
				 errhint("Call begin_batch() right after BEGIN.")));
	if (b->number < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("batch number %lld is negative", (long long) b->number),
				 errhint("Number the batches of an epoch upwards from 0 or 1.")));
}

/*
 * begin_batch(sink, job, writer, epoch, number) -> boolean
 *
 * Begins the batch of the current transaction. False: the writer has committed or
 * prepared this number in this epoch, so the batch is to be skipped.
 *
 * Raises ERRCODE_RSINK_FENCED for an epoch that has been fenced off,
 * serialization_failure if another session has the number open, and
 * invalid_parameter_value for a number that is lower than the last one, or that
 * was prepared and rolled back. Takes RowExclusiveLock on a table of the sink and
 * on the ledger.
 */
Datum
revenue_sink_begin_batch(PG_FUNCTION_ARGS)
{
	RsinkSink  *sink;
	RsinkBatch *b;
	Relation	ledger;
	RsinkLedgerState state;
	RsinkDecision decision;

	/*
	 * A NULL argument raises an error. If the answer to it were NULL, a client
	 * would take that for "skip the batch".
	 */
	(void) rsink_name_argument(fcinfo, 1, "job");
	(void) rsink_name_argument(fcinfo, 2, "writer");
	rsink_require_argument(fcinfo, 3, "epoch");
	rsink_require_argument(fcinfo, 4, "number");
	sink = rsink_sink_argument(fcinfo, 0, RSINK_MAY_APPLY);
	b = batch_argument(fcinfo, sink);

	PreventCommandIfReadOnly("begin_batch()");
	PreventCommandDuringRecovery("begin_batch()");
	require_beginning(b);

	/*
	 * The lock on one of the sink's tables keeps the sink from being dropped
	 * before the transaction ends.
	 */
	table_close(table_open(sink->delta, RowExclusiveLock), NoLock);
	ledger = table_open(rsink_ledger_relid(), RowExclusiveLock);
	state = rsink_ledger_state(ledger, b);
	if (state == RSINK_LEDGER_NEW)
	{
		/* register first, read the epoch after: see the top of this file */
		rsink_ledger_register(b);
		rsink_epoch_require(sink, b->job, b->writer, b->epoch);
		if ((state = rsink_ledger_state(ledger, b)) == RSINK_LEDGER_DONE)
			CatalogTupleDelete(ledger, &b->ledger);
	}
	else
		rsink_epoch_require(sink, b->job, b->writer, b->epoch);
	table_close(ledger, NoLock);
	decision = rsink_decision(sink, b->job, b->writer, b->epoch, b->number, InvalidTransactionId);

	switch (state)
	{
		case RSINK_LEDGER_NEW:
			if (decision != RSINK_UNDECIDED)
				raise_rolled_back(b);
			break;
		case RSINK_LEDGER_DONE:
			if (decision == RSINK_ROLLBACK)
				raise_rolled_back(b);
			rsink_durable_answer();
			PG_RETURN_BOOL(false);
		case RSINK_LEDGER_OPEN:
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("batch %lld of writer \"%s\" is open in another session",
							(long long) b->number, b->writer),
					 errhint("Retry once that session has ended, or open a new epoch with open_writer().")));
			break;
		case RSINK_LEDGER_PASSED:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("batch number %lld of writer \"%s\" is lower than the last one of epoch %lld",
							(long long) b->number, b->writer, (long long) b->epoch),
					 errhint("Batch numbers must grow within an epoch. Open a new epoch with open_writer() to start again.")));
			break;
	}
	batch = b;
	rsink_tally_batch(sink);
	PG_RETURN_BOOL(true);
}

/*
 * Refuse to end a transaction that has written to a sink after its batch was
 * rolled back with a savepoint: what it wrote would commit outside of any batch,
 * and of any epoch.
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
		if (rsink_tally_has(lost->sink_id))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
					 errmsg("batch %lld of writer \"%s\" was rolled back with a savepoint, but the transaction has written to its sink since",
							(long long) lost->number, lost->writer),
					 errhint("Roll back the transaction, and begin the batch again.")));
	}
}

/*
 * Before COMMIT or PREPARE: refuse a batch whose epoch has been fenced off, and
 * complete its row in the ledger.
 */
static void
before_end(void)
{
	refuse_remains();
	if (batch == NULL)
		return;
	rsink_tally_applied(batch->sink_id, &batch->events, &batch->newest);
	PushActiveSnapshot(GetTransactionSnapshot());
	rsink_epoch_require(batch->sink, batch->job, batch->writer, batch->epoch);
	rsink_ledger_complete(batch);
	PopActiveSnapshot();
}

/*
 * A batch that has begun in a subtransaction becomes the parent's, or is lost if
 * the subtransaction is rolled back.
 */
static void
subxact_callback(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	MemoryContext old;

	if (batch == NULL || batch->subid != mine)
		return;
	if (event == SUBXACT_EVENT_COMMIT_SUB)
		batch->subid = parent;
	else if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		old = MemoryContextSwitchTo(TopTransactionContext);
		lost_batches = lappend(lost_batches, batch);
		MemoryContextSwitchTo(old);
		batch = NULL;
	}
}

static void
xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			before_end();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_ABORT:
			batch = NULL;
			lost_batches = NIL;
			break;
		default:
			break;
	}
}

/* Called once per process, from _PG_init. */
void
rsink_init_batch(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}
