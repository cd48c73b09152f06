/*-------------------------------------------------------------------------
 *
 * epoch.c
 *	  Epochs: which incarnation of a job is the living one?
 *
 * An epoch is a row (job, writer, epoch), where the writer is NULL if the epoch
 * is of the whole job. A writer's current epoch is the highest one of the writer
 * and of the whole job. Rows are only inserted; the worker removes those that
 * others supersede.
 *
 * An epoch's number comes from the server or from the job. The server never gives
 * a number twice, not even if a restored copy of the sink gives numbers, too. A
 * job that brings its own numbers must itself see to it that none recurs.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_collation.h"
#include "common/hashfn.h"
#include "common/int.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "sink/sink.h"
#include "writer/epoch.h"

/* Lower than every epoch: none was opened. */
#define NO_EPOCH PG_INT64_MIN

/* The lower bits of an epoch that the server gives, this many, are random. */
#define RANDOM_BITS 30

/*
 * Rows of version 1.0 don't say whether the server gave the number. An epoch that
 * is at least this high is taken for a number of the job's: the server counted
 * from 1, in steps of 2^32 with each promotion, whereas jobs often take a clock.
 */
#define HIGH_FOR_1_0 (INT64CONST(1) << 40)

/* The highest epochs that concern a writer; NO_EPOCH where there is none. */
typedef struct Epochs
{
	int64		every;			/* of the job as a whole and of all its writers */
	bool		brought;		/* has the job brought that number? */
	int64		whole;			/* of the job as a whole */
	int64		own;			/* of the writer */
} Epochs;

/* Has the job brought the number of this row, which has this epoch? */
static bool
is_brought(Relation rel, HeapTuple tuple, int64 epoch)
{
	bool		isnull = true;
	Datum		given = (Datum) 0;

	/* tables of version 1.0 don't have the column */
	if (RelationGetNumberOfAttributes(rel) >= Anum_epoch_given)
		given = heap_getattr(tuple, Anum_epoch_given, RelationGetDescr(rel), &isnull);
	return isnull ? epoch >= HIGH_FOR_1_0 : !DatumGetBool(given);
}

/*
 * Read the highest epochs that concern a writer, as committed at this instant.
 * With a NULL writer, "own" is NO_EPOCH.
 */
static void
read_epochs(int32 sink_id, const char *job, const char *writer, Epochs *epochs)
{
	Relation	rel = table_open(rsink_catalog_relid("epoch"), AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	epochs->every = epochs->whole = epochs->own = NO_EPOCH;
	epochs->brought = false;
	ScanKeyInit(&keys[0], Anum_epoch_sink_id, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(sink_id));
	ScanKeyInit(&keys[1], Anum_epoch_job, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(job));
	keys[1].sk_collation = C_COLLATION_OID;
	scan = systable_beginscan(rel, rsink_table_index(rel, Anum_epoch_sink_id), true,
							  snapshot, 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		int64		epoch = DatumGetInt64(heap_getattr(tuple, Anum_epoch_epoch,
													   RelationGetDescr(rel), &isnull));
		Datum		name;

		if (epoch > epochs->every)
		{
			epochs->every = epoch;
			epochs->brought = is_brought(rel, tuple, epoch);
		}
		name = heap_getattr(tuple, Anum_epoch_writer, RelationGetDescr(rel), &isnull);
		if (isnull)
			epochs->whole = Max(epochs->whole, epoch);
		else if (writer != NULL && strcmp(TextDatumGetCString(name), writer) == 0)
			epochs->own = Max(epochs->own, epoch);
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
}

/*
 * The current epoch of a writer as committed at this instant, or PG_INT64_MIN if
 * no epoch was ever opened for the writer or its job.
 */
int64
rsink_epoch_current(int32 sink_id, const char *job, const char *writer)
{
	Epochs		epochs;

	read_epochs(sink_id, job, writer, &epochs);
	return Max(epochs.whole, epochs.own);
}

static void
raise_fenced(const char *job, const char *writer, int64 epoch, int64 current)
{
	ereport(ERROR,
			(errcode(ERRCODE_RSINK_FENCED),
			 writer ?
			 errmsg("epoch %lld of writer \"%s\" of job \"%s\" has been fenced off",
					(long long) epoch, writer, job) :
			 errmsg("epoch %lld of job \"%s\" has been fenced off", (long long) epoch, job),
			 errdetail("The current epoch is %lld.", (long long) current),
			 errhint("Another incarnation of the job has taken over. Stop this incarnation, and do not retry.")));
}

/*
 * Raise an error unless this is the writer's current epoch, as committed at this
 * instant: ERRCODE_RSINK_FENCED if the epoch has been fenced off,
 * invalid_parameter_value if it was never opened, and
 * object_not_in_prerequisite_state if the writer has no epoch at all.
 */
void
rsink_epoch_require(const RsinkSink *sink, const char *job, const char *writer, int64 epoch)
{
	int64		current = rsink_epoch_current(sink->id, job, writer);

	if (current == NO_EPOCH)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("writer \"%s\" of job \"%s\" has no epoch on sink \"%s\"",
						writer, job, sink->name),
				 errhint("Open one with CALL revenue_sink.open_writer() or CALL revenue_sink.recover().")));
	if (epoch < current)
		raise_fenced(job, writer, epoch, current);
	if (epoch > current)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("epoch %lld of writer \"%s\" of job \"%s\" has not been opened",
						(long long) epoch, writer, job),
				 errdetail("The current epoch is %lld.", (long long) current),
				 errhint("Use the epoch that open_writer() or recover() has returned. If a failover or a restore has lost that epoch, open a new one.")));
}

/*
 * Raise ERRCODE_RSINK_FENCED if this epoch of a writer has been fenced off, as
 * committed at this instant.
 */
void
rsink_epoch_not_fenced(const RsinkSink *sink, const char *job, const char *writer, int64 epoch)
{
	int64		current = rsink_epoch_current(sink->id, job, writer);

	if (epoch < current)
		raise_fenced(job, writer, epoch, current);
}

/*
 * A new epoch, greater than all others of the job. If the job has brought the
 * last one, the new epoch is the next number.
 *
 * Otherwise the number must not have been given before by a history of the sink
 * that this server doesn't know: by a lost primary, by a server of which an older
 * backup was restored, by the other one of two copies. Nothing that a
 * server knows of itself tells such histories apart, so chance does, in the lower
 * bits. The upper bits are the time in seconds. They see to it that an epoch that
 * another history gave earlier is nearly always the lower number, and so is
 * fenced off rather than unknown.
 */
static int64
new_epoch(const char *job, const Epochs *epochs)
{
	int64		seconds = Max(GetCurrentTimestamp() / USECS_PER_SEC, 0);
	int64		above = epochs->every;
	uint32		chance = 0;
	int64		epoch;

	if (!epochs->brought)
	{
		if (!pg_strong_random(&chance, sizeof(chance)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate a random epoch")));
		chance >>= 32 - RANDOM_BITS;
		above = Max(above, seconds << RANDOM_BITS);
	}
	if (pg_add_s64_overflow(above, (int64) chance + 1, &epoch))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("job \"%s\" has used up its epochs", job),
				 errhint("Give the job another name.")));
	return epoch;
}

/*
 * Insert the row of an epoch, in the current transaction. "given": the server has
 * given the number.
 */
static void
insert_epoch(int32 sink_id, const char *job, const char *writer, int64 epoch, bool given)
{
	RsinkTable	table;
	Datum		values[Natts_epoch];
	bool		nulls[Natts_epoch] = {false};

	rsink_table_open_named(&table, "epoch");
	values[Anum_epoch_sink_id - 1] = Int32GetDatum(sink_id);
	values[Anum_epoch_job - 1] = CStringGetTextDatum(job);
	nulls[Anum_epoch_writer - 1] = writer == NULL;
	values[Anum_epoch_writer - 1] = writer ? CStringGetTextDatum(writer) : (Datum) 0;
	values[Anum_epoch_epoch - 1] = Int64GetDatum(epoch);
	values[Anum_epoch_opened_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[Anum_epoch_given - 1] = BoolGetDatum(given);
	rsink_table_insert_values(&table, values, nulls);
	rsink_table_close(&table);
}

/*
 * Take the lock under which a job's epochs are opened and its batches decided on,
 * until the end of the transaction. Two jobs may share a lock, but rarely do. No
 * batch ever asks for it.
 */
void
rsink_job_lock(const char *job)
{
	LockDatabaseObject(RelationRelationId, rsink_catalog_relid("epoch"),
					   (uint16) hash_bytes((const unsigned char *) job, strlen(job)),
					   ExclusiveLock);
}

/*
 * Open an epoch of a writer, or of the whole job if writer is NULL, in the
 * current transaction; returns the epoch. If epoch_isnull is set, the server
 * gives the number. Otherwise the caller brings it, and *is_new tells whether the
 * epoch had to be opened or was the current one already.
 *
 * Raises ERRCODE_RSINK_FENCED for a number that isn't above all epochs that it
 * would have to supersede, and invalid_parameter_value for a negative one. Caller
 * holds the job's lock.
 */
int64
rsink_epoch_open(const RsinkSink *sink, const char *job, const char *writer,
				 bool epoch_isnull, int64 epoch, bool *is_new)
{
	Epochs		epochs;
	int64		current;

	*is_new = true;
	read_epochs(sink->id, job, writer, &epochs);
	if (epoch_isnull)
	{
		epoch = new_epoch(job, &epochs);
		insert_epoch(sink->id, job, writer, epoch, !epochs.brought);
		return epoch;
	}
	if (epoch < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("epoch %lld is negative", (long long) epoch),
				 errhint("Pass a number that grows with each incarnation, or NULL for a number from the server.")));
	current = writer ? Max(epochs.whole, epochs.own) : epochs.whole;
	if (epoch == current)
	{
		*is_new = false;
		return epoch;
	}
	/* an epoch of the whole job must lie above those of all writers, too */
	current = writer ? current : epochs.every;
	if (epoch <= current)
		raise_fenced(job, writer, epoch, current);
	insert_epoch(sink->id, job, writer, epoch, false);
	return epoch;
}
