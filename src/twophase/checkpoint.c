/*-------------------------------------------------------------------------
 *
 * checkpoint.c
 *	  Two-phase commit: pre_commit, and the calls that finish batches.
 *
 * A call that finishes many batches takes three steps. Under the job's lock it
 * looks which batches are prepared, and writes its decisions on them. It commits
 * these decisions. Then it finishes each batch in a transaction of its own. If the
 * call fails after the commit, the worker does the rest, or the same call when it
 * is repeated.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/twophase.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/procarray.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "api/argument.h"
#include "core/catalog.h"
#include "core/compat.h"
#include "core/xid.h"
#include "sink/right.h"
#include "sink/sink.h"
#include "twophase/checkpoint.h"
#include "twophase/decision.h"
#include "twophase/durable.h"
#include "twophase/gid.h"
#include "twophase/prepared.h"
#include "twophase/unpreparable.h"
#include "writer/batch.h"
#include "writer/epoch.h"
#include "writer/ledger.h"

PG_FUNCTION_INFO_V1(revenue_sink_pre_commit);
PG_FUNCTION_INFO_V1(revenue_sink_commit_prepared);
PG_FUNCTION_INFO_V1(revenue_sink_rollback_prepared);
PG_FUNCTION_INFO_V1(revenue_sink_commit_checkpoint);
PG_FUNCTION_INFO_V1(revenue_sink_outcome);
PG_FUNCTION_INFO_V1(revenue_sink_prepared);

/* What has become of a batch. */
typedef enum Outcome
{
	OUTCOME_UNKNOWN,
	OUTCOME_OPEN,
	OUTCOME_IN_DOUBT,
	OUTCOME_COMMITTED,
	OUTCOME_ROLLED_BACK
} Outcome;

static const char *const outcome_name[] = {
	"unknown", "open", "in doubt", "committed", "rolled back"
};

/*
 * pre_commit(sink) -> gid
 *
 * Phase one: the last call before PREPARE TRANSACTION. Raises what PREPARE
 * would stumble over, while the batch can still be rolled back for it.
 */
Datum
revenue_sink_pre_commit(PG_FUNCTION_ARGS)
{
	RsinkSink  *sink = rsink_sink_argument(fcinfo, 0, RSINK_MAY_APPLY);
	const RsinkBatch *batch = rsink_current_batch(sink);

	if (batch == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("no batch of sink \"%s\" has begun in this transaction", sink->name),
				 errhint("Call begin_batch() right after BEGIN.")));
	rsink_refuse_unpreparable();
	if (max_prepared_xacts == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("prepared transactions are disabled"),
				 errhint("Set max_prepared_transactions to at least the number of batches that can be prepared at a time, and restart the server.")));
	if (rsink_prepared_count() >= max_prepared_xacts)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("all %d prepared transactions are in use", max_prepared_xacts),
				 errhint("Finish some (see revenue_sink.prepared), or increase max_prepared_transactions.")));
	rsink_epoch_require(sink, batch->job, batch->writer, batch->epoch);
	PG_RETURN_TEXT_P(cstring_to_text(rsink_gid_make(batch)));
}

/* What the ledger says of the batch of a gid; of several answers the greatest. */
typedef enum LedgerAnswer
{
	LEDGER_SILENT,				/* no row of its epoch that was looked at */
	LEDGER_OTHERS,				/* only other numbers of its epoch */
	LEDGER_FORGOTTEN,			/* it may have had it */
	LEDGER_HAS					/* it has the number */
} LedgerAnswer;

/* Ask the ledger, of the first nkeys keys of a gid; see rsink_gid_keys(). */
static LedgerAnswer
ask_ledger(const RsinkGid *gid, int nkeys)
{
	Relation	rel = table_open(rsink_ledger_relid(), AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	LedgerAnswer answer = LEDGER_SILENT;
	ScanKeyData keys[RSINK_LEDGER_KEYS];
	SysScanDesc scan;
	HeapTuple	tuple;

	nkeys = Min(nkeys, rsink_gid_keys(gid, keys));
	scan = systable_beginscan(rel, rsink_table_index(rel, Anum_ledger_sink_id), true,
							  snapshot, nkeys, keys);
	while (answer != LEDGER_HAS && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Datum		values[Natts_ledger];
		bool		nulls[Natts_ledger];
		int64		number;
		int64		last;

		heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
		if (!rsink_gid_is_of(gid, values))
			continue;
		number = DatumGetInt64(values[Anum_ledger_number - 1]);
		last = DatumGetInt64(values[Anum_ledger_last - 1]);
		if (number <= gid->number && gid->number <= last)
			answer = LEDGER_HAS;
		else if (number > last && gid->number <= last)
			answer = LEDGER_FORGOTTEN;
		else
			answer = Max(answer, LEDGER_OTHERS);
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return answer;
}

/* What the commit log still says of a transaction: NULL if nothing. */
static char *
xact_status(FullTransactionId xid)
{
	LOCAL_FCINFO(fcinfo, 1);
	Datum		status;

	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = FullTransactionIdGetDatum(xid);
	fcinfo->args[0].isnull = false;
	status = pg_xact_status(fcinfo);
	return fcinfo->isnull ? NULL : TextDatumGetCString(status);
}

/*
 * What has become of the batch of a gid, as of now.
 *
 * The ledger's row committed together with the batch, so it says "committed"
 * for as long as the row is kept, whatever became of the commit log. A number
 * that was begun again, after a gid that was never prepared, is told apart by
 * the transaction's id. On a server that lost the transaction in a failover,
 * its id lies in the future, or belongs to another transaction, and the ledger
 * hasn't got it under that id. Of an epoch or a number that the ledger has
 * forgotten nothing is claimed; nor of a batch of another server, where the sink
 * was before, that the ledger didn't have yet when it left.
 *
 * A gid of version 1.0 doesn't say on which server its transaction was. If it was
 * another one, its id is of any transaction here, or of none yet. So what the ledger
 * has under the number of such a gid is committed, whatever has become of that id.
 */
static Outcome
find_outcome(const RsinkGid *gid)
{
	TransactionId xid = XidFromFullTransactionId(gid->xid);
	LedgerAnswer answer;
	const char *status;

	if (gid->elsewhere)
		return ask_ledger(gid, RSINK_LEDGER_KEYS) == LEDGER_HAS ? OUTCOME_COMMITTED : OUTCOME_UNKNOWN;
	if (gid->of_1_0 && ask_ledger(gid, RSINK_LEDGER_KEYS) == LEDGER_HAS)
		return OUTCOME_COMMITTED;
	if (!FullTransactionIdPrecedes(gid->xid, ReadNextFullTransactionId()))
		return OUTCOME_UNKNOWN;
	status = xact_status(gid->xid);
	if (status != NULL && strcmp(status, "in progress") == 0)
	{
		bool		ours = rsink_gid_in_progress(gid);
		bool		prepared = rsink_xid_is_prepared(xid);

		CHECK_FOR_INTERRUPTS();
		if (!TransactionIdIsInProgress(xid))
			return find_outcome(gid);
		if (!ours)
			return OUTCOME_UNKNOWN;

		/* on a standby all that is in progress looks so */
		return prepared ? OUTCOME_IN_DOUBT : OUTCOME_OPEN;
	}
	if (status != NULL && strcmp(status, "committed") != 0)
		return OUTCOME_ROLLED_BACK;
	answer = ask_ledger(gid, RSINK_LEDGER_KEYS);
	if (answer == LEDGER_SILENT)
		answer = ask_ledger(gid, RSINK_LEDGER_KEYS - 1);
	return answer == LEDGER_HAS ? OUTCOME_COMMITTED :
		answer == LEDGER_OTHERS ? OUTCOME_ROLLED_BACK : OUTCOME_UNKNOWN;
}

/*
 * outcome(gid) -> text. Needs the right to read or write the sink. Where the
 * answer speaks of an effect its COMMIT waits for disk and standbys, like that
 * of the call whose answer was lost.
 */
Datum
revenue_sink_outcome(PG_FUNCTION_ARGS)
{
	Outcome		outcome = OUTCOME_UNKNOWN;
	RsinkGid	gid;

	if (rsink_gid_parse(text_to_cstring(PG_GETARG_TEXT_PP(0)), &gid))
	{
		(void) rsink_sink_lookup_finishing(gid.sink->name, RSINK_MAY_READ);
		outcome = find_outcome(&gid);
	}
	if (outcome != OUTCOME_UNKNOWN && outcome != OUTCOME_OPEN && !RecoveryInProgress())
		rsink_durable_answer();
	PG_RETURN_TEXT_P(cstring_to_text(outcome_name[outcome]));
}

/*
 * Finish every decided batch of a job, or of one writer; of those with an
 * epoch below "below" also the undecided that are fenced off, which roll back.
 * Called outside of any transaction's work; uses transactions of its own, and
 * leaves a new one begun.
 */
void
rsink_finish_all(const RsinkSink *sink, const char *job, const char *writer, int64 below)
{
	for (;;)
	{
		List	   *prepared = rsink_prepared_list(sink, job, writer);
		List	   *due = rsink_prepared_due(sink, prepared, below);
		ListCell   *lc;

		SPI_commit();
		if (due == NIL)
			return;
		foreach(lc, due)
		{
			CHECK_FOR_INTERRUPTS();
			(void) rsink_finish(lfirst(lc));
			SPI_commit();
		}
	}
}

/* What commit_prepared and rollback_prepared have in common. */
static Datum
finish_prepared(FunctionCallInfo fcinfo, const char *call, RsinkDecision wanted)
{
	Outcome		goal = wanted == RSINK_COMMIT ? OUTCOME_COMMITTED : OUTCOME_ROLLED_BACK;
	char	   *name;
	TupleDesc	desc;
	Outcome		outcome = OUTCOME_UNKNOWN;
	bool		finished = false;
	RsinkGid	gid;
	RsinkPrepared *p;

	rsink_require_nonatomic(fcinfo, call);
	rsink_require_argument(fcinfo, 0, "gid");
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	desc = rsink_result_desc(fcinfo);
	if (!rsink_gid_parse(name, &gid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the outcome of \"%s\" is 'unknown'", name),
				 errhint("pre_commit() has not given this gid for any sink of this database.")));
	(void) rsink_sink_lookup_finishing(gid.sink->name, RSINK_IS_OWNER);
	PreventCommandDuringRecovery(call);
	if (wanted == RSINK_ROLLBACK)
		PreventCommandIfReadOnly(call);	/* it writes its decision */

	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	while (!finished && (outcome = find_outcome(&gid)) == OUTCOME_IN_DOUBT)
	{
		CHECK_FOR_INTERRUPTS();
		if ((p = rsink_prepared_find(&gid)) == NULL)
			continue;

		/*
		 * Under the job's lock nobody else decides. It is held until the batch
		 * is committed, so of that decision no row is needed: a crash before
		 * leaves the batch in doubt, and the caller without an answer. The row
		 * of the other decision keeps the number from being begun again, so
		 * that the ledger never says "committed" of two batches.
		 */
		SPI_commit();

		/* finishing one that was prepared as serializable would mix it up with us */
		XactIsoLevel = XACT_READ_COMMITTED;
		rsink_job_lock(p->job);
		if (!rsink_xid_is_prepared(p->xid))
			continue;
		p->decision = rsink_decision(gid.sink, p->job, p->writer, p->epoch, p->number, p->xid);
		if (p->decision == RSINK_UNDECIDED && wanted == RSINK_COMMIT)
			rsink_epoch_not_fenced(gid.sink, p->job, p->writer, p->epoch);
		if (p->decision != RSINK_UNDECIDED && p->decision != wanted)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
					 errmsg("the decision on \"%s\" is to %s", name,
							p->decision == RSINK_COMMIT ? "commit" : "roll back")));
		if (p->decision == RSINK_UNDECIDED && wanted == RSINK_ROLLBACK)
		{
			rsink_decide(gid.sink, p->job, p->writer, p->epoch, p->number, p->xid, wanted);
			SPI_commit();
		}
		p->decision = wanted;
		finished = rsink_finish(p);
		SPI_commit();
	}
	if (!finished && outcome != goal)
		ereport(ERROR,
				(errcode(outcome == OUTCOME_UNKNOWN ? ERRCODE_UNDEFINED_OBJECT :
						 ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("the outcome of \"%s\" is '%s'", name, outcome_name[outcome]),
				 outcome == OUTCOME_OPEN ?
				 errhint("The session that runs the batch has not prepared it yet.") : 0));
	if (!finished)
		rsink_durable_answer();
	SPI_finish();
	return rsink_one_column(desc, CStringGetTextDatum(outcome_name[goal]));
}

/* commit_prepared(gid, INOUT outcome) */
Datum
revenue_sink_commit_prepared(PG_FUNCTION_ARGS)
{
	return finish_prepared(fcinfo, "commit_prepared()", RSINK_COMMIT);
}

/* rollback_prepared(gid, INOUT outcome) */
Datum
revenue_sink_rollback_prepared(PG_FUNCTION_ARGS)
{
	return finish_prepared(fcinfo, "rollback_prepared()", RSINK_ROLLBACK);
}

/*
 * Will commit_checkpoint() commit this prepared batch, or has it been decided
 * to? Caller holds the job's lock.
 */
static bool
is_to_commit(const RsinkPrepared *p)
{
	return p->decision == RSINK_COMMIT || (p->decision == RSINK_UNDECIDED && !p->fenced);
}

/*
 * Raise unless every gid is that of a batch of the job, up to the checkpoint,
 * which is committed or will be. Caller holds the job's lock.
 */
static void
require_gids(const RsinkSink *sink, const char *job, int64 checkpoint, ArrayType *array)
{
	char		job_in_gid[NAMEDATALEN];
	Datum	   *elements;
	bool	   *nulls;
	int			n;

	rsink_gid_name(sink, job, job_in_gid);
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		char	   *name = nulls[i] ? "null" : TextDatumGetCString(elements[i]);
		Outcome		outcome = OUTCOME_UNKNOWN;
		RsinkPrepared *p;
		RsinkGid	gid;

		if (!nulls[i] && rsink_gid_parse(name, &gid) && gid.sink->id == sink->id)
		{
			if (strcmp(gid.job, job_in_gid) != 0 || gid.number > checkpoint)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("\"%s\" is not a batch of job \"%s\" up to checkpoint %lld",
								name, job, (long long) checkpoint),
						 errdetail("Nothing has been changed.")));
			while ((outcome = find_outcome(&gid)) == OUTCOME_IN_DOUBT)
			{
				CHECK_FOR_INTERRUPTS();

				/* gone in between: ask again */
				if ((p = rsink_prepared_find(&gid)) == NULL)
					continue;
				if (!is_to_commit(p))
					outcome = OUTCOME_ROLLED_BACK;
				break;
			}
		}
		if (outcome != OUTCOME_IN_DOUBT && outcome != OUTCOME_COMMITTED)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
					 errmsg("cannot commit the checkpoint: the outcome of \"%s\" is '%s'",
							name, outcome_name[outcome]),
					 errdetail("Nothing has been changed."),
					 errhint("What was prepared is lost: restart the job from an earlier checkpoint.")));
	}
}

/*
 * commit_checkpoint(sink, job, checkpoint, gids, INOUT committed)
 *
 * Decides, for each prepared batch of the job's current epochs numbered up to
 * the checkpoint, to commit it, and does so. Says how many this call decided.
 */
Datum
revenue_sink_commit_checkpoint(PG_FUNCTION_ARGS)
{
	char	   *name;
	char	   *job;
	int64		checkpoint;
	int64		committed = 0;
	TupleDesc	desc;
	RsinkSink  *sink;
	ListCell   *lc;

	rsink_require_nonatomic(fcinfo, "commit_checkpoint()");
	rsink_require_argument(fcinfo, 0, "sink");
	rsink_require_argument(fcinfo, 1, "job");
	rsink_require_argument(fcinfo, 2, "checkpoint");
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	job = text_to_cstring(PG_GETARG_TEXT_PP(1));
	checkpoint = PG_GETARG_INT64(2);
	sink = rsink_sink_lookup_finishing(name, RSINK_IS_OWNER);
	PreventCommandDuringRecovery("commit_checkpoint()");
	PreventCommandIfReadOnly("commit_checkpoint()");
	desc = rsink_result_desc(fcinfo);

	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	rsink_job_lock(job);
	if (!PG_ARGISNULL(3))
		require_gids(sink, job, checkpoint, PG_GETARG_ARRAYTYPE_P(3));
	foreach(lc, rsink_prepared_list(sink, job, NULL))
	{
		RsinkPrepared *p = lfirst(lc);

		if (p->decision == RSINK_UNDECIDED && p->number <= checkpoint && is_to_commit(p))
		{
			rsink_decide(sink, p->job, p->writer, p->epoch, p->number, p->xid, RSINK_COMMIT);
			committed++;
		}
	}
	rsink_durable_answer();
	SPI_commit();
	rsink_finish_all(sink, job, NULL, PG_INT64_MIN);
	SPI_finish();
	return rsink_one_column(desc, Int64GetDatum(committed));
}

/* prepared_batches(sink) -> rows of the view prepared */
Datum
revenue_sink_prepared(PG_FUNCTION_ARGS)
{
	RsinkSink  *sink = rsink_sink_argument(fcinfo, 0, RSINK_MAY_WATCH);
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, 0);
	foreach(lc, rsink_prepared_list(sink, NULL, NULL))
	{
		RsinkPrepared *p = lfirst(lc);
		Datum		values[8];
		bool		nulls[8] = {false};

		values[0] = CStringGetTextDatum(p->job);
		values[1] = CStringGetTextDatum(p->writer);
		values[2] = Int64GetDatum(p->epoch);
		values[3] = Int64GetDatum(p->number);
		values[4] = CStringGetTextDatum(p->gid);
		values[5] = TimestampTzGetDatum(p->prepared_at);
		values[6] = Int64GetDatum(p->events);
		values[7] = CStringGetTextDatum(rsink_prepared_state(p));
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}
