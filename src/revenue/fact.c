/*-------------------------------------------------------------------------
 *
 * fact.c
 *	  The fact view: its definition, and the functions that it calls.
 *
 * The view shows each bucket and group in one row: the row of the total if there
 * are no deltas, else the row of the first delta, whose revenue is then computed
 * from all deltas and the total. All of this is read in the one snapshot of the
 * query. The view has no GROUP BY: both parts of its UNION ALL are plain scans, into
 * which the planner pushes a query's conditions. So a query for a range of buckets,
 * or for the latest few, reads an index of the totals and one of the deltas and
 * stops early, as it would in a table.
 *
 * stands() decides for each row that a query reads whether the view shows it. That
 * can be millions of rows, nearly always in the order of their buckets. So stands()
 * remembers the latest gap, a range of buckets without deltas between two deltas,
 * and the first deltas that it has looked up.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/supportnodes.h"
#include "storage/itemptr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/spi_util.h"
#include "revenue/amount.h"
#include "revenue/fact.h"
#include "revenue/group_key.h"
#include "revenue/winner.h"
#include "sink/relations.h"

PG_FUNCTION_INFO_V1(revenue_sink_stands);
PG_FUNCTION_INFO_V1(revenue_sink_stands_support);
PG_FUNCTION_INFO_V1(revenue_sink_revenue_of);
PG_FUNCTION_INFO_V1(revenue_sink_events_of);
PG_FUNCTION_INFO_V1(revenue_sink_winner_of);

/*
 * A query that reads a few totals looks for the deltas of each of them. Only after
 * so many look-ups without a result does it pay to look for gaps.
 */
#define MISSES_BEFORE_GAPS 16

/*
 * Where every bucket has deltas there are no gaps. So after each look for a gap that
 * finds none, twice as many totals pass until the next such look, up to this number.
 */
#define MOST_WITHOUT_LOOK 63

/* How many first deltas a query remembers at a time. */
#define MAX_FIRSTS		65536

/* The planner's estimate: the fraction of the deltas that are the first ones. */
#define PART_SHOWN		0.1

/* The first delta of a bucket and group; an invalid tid if there is none. */
typedef struct FirstDelta
{
	GroupKey	key;
	uint32		hash;
	char		status;
	ItemPointerData tid;
} FirstDelta;

#define SH_PREFIX firsts
#define SH_ELEMENT_TYPE FirstDelta
#define SH_KEY_TYPE GroupKey
#define SH_KEY key
#define SH_HASH_KEY(table, key) rsink_group_hash(key)
#define SH_EQUAL(table, a, b) rsink_group_equal(a, b)
#define SH_STORE_HASH
#define SH_GET_HASH(table, element) (element)->hash
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* What stands() remembers during a query. */
typedef struct DeltaMemory
{
	Oid			delta;
	Oid			index;			/* the deltas' index on (minute, group_key) */
	TupleTableSlot *slot;		/* for a row of the deltas; empty between calls */
	bool		arrived;		/* is the arrival row there? If not, no delta is */
	TimestampTz retained_from;	/* buckets before it are removed */
	int			misses;			/* look-ups that have found no delta */
	int			wait;			/* totals that pass until the next look for a gap */
	int			next_wait;		/* ... and after that one, if it finds none */
	TimestampTz last;			/* the bucket that was looked up last */
	TimestampTz after;			/* the gap: no delta has a bucket between after */
	TimestampTz before;			/* and before, both excluded */
	MemoryContext context;		/* holds firsts */
	firsts_hash *firsts;
} DeltaMemory;

/* What revenue_of(), events_of() and winner_of() remember during a query. */
typedef struct ValueMemory
{
	DeltaMemory deltas;
	Oid			total;
	Oid			total_index;	/* the totals' index on (minute, group_key) */
} ValueMemory;

/*
 * Create the fact view of sink number id, as the current user. "view" is what
 * follows CREATE OR REPLACE VIEW in the statement. Caller is connected to SPI.
 *
 * The revenue in a delta's row is computed by functions and not by sub-selects,
 * because sub-selects would keep the whole query from running in parallel.
 */
void
rsink_create_fact(int32 id, bool totals, const char *view)
{
	char	   *secret = psprintf("(SELECT d.group_key FROM revenue_sink.delta_%d d WHERE d.minute = '-infinity')", id);
	char	   *arguments = psprintf("('revenue_sink.delta_%d', %s, d.minute, d.group_key)", id, secret);

	rsink_spi(SPI_OK_UTILITY,
			  "CREATE OR REPLACE VIEW %s AS SELECT f.minute, f.group_key, f.revenue, f.events FROM "
			  "(SELECT t.minute, t.group_key, t.revenue, %s AS events, NULL::tid AS delta "
			  "   FROM revenue_sink.total_%d t UNION ALL "
			  " SELECT d.minute, d.group_key, revenue_sink.%s%s, %s%s, d.ctid FROM revenue_sink.delta_%d d) AS f "
			  "WHERE revenue_sink.stands('revenue_sink.delta_%d', %s, f.minute, f.group_key, f.delta)",
			  view, totals ? "NULL::bigint" : "CASE WHEN t.uncounted THEN NULL ELSE t.events END", id,
			  totals ? "winner_of" : "revenue_of", arguments,
			  totals ? "NULL::bigint" : "revenue_sink.events_of", totals ? "" : arguments, id, id, secret);
}

/*
 * Replace the definition of a fact view by that of this version. The names of the
 * view's columns and its options stay. Caller is connected to SPI.
 */
void
rsink_replace_fact(int32 id, bool totals, Oid relid)
{
	char	   *columns;
	char	   *options;

	rsink_spi(SPI_OK_SELECT,
			  "SELECT (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute "
			  "  WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped), "
			  "  array_to_string(reloptions, ', ') FROM pg_class c WHERE oid = %u", relid);
	columns = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	options = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2);
	rsink_create_fact(id, totals,
					  psprintf("%s (%s)%s", rsink_view_name(relid), columns,
							   options ? psprintf(" WITH (%s)", options) : ""));
}

/*
 * Find the first delta, in the order of the index and in this direction, that
 * matches the keys and is visible in the query's snapshot. Returns its address and
 * its bucket, and its group key unless "group" is NULL; returns false if there is
 * none. Deltas with equal keys come in the order of their addresses.
 */
static bool
first_delta(const DeltaMemory *m, ScanKey keys, int nkeys, ScanDirection direction,
			ItemPointer tid, TimestampTz *bucket_start, text **group)
{
	/*
	 * The query itself has locked the table. The index is locked anew by each
	 * call, because a cursor may outlive a lock that we take at its first FETCH:
	 * ROLLBACK TO SAVEPOINT releases the lock, but leaves the cursor open.
	 */
	Relation	delta = table_open(m->delta, NoLock);
	Relation	index = index_open(m->index, AccessShareLock);
	IndexScanDesc scan = rsink_index_beginscan(delta, index, GetActiveSnapshot(), nkeys);
	bool		found;
	bool		isnull;

	CHECK_FOR_INTERRUPTS();
	index_rescan(scan, keys, nkeys, NULL, 0);
	if ((found = index_getnext_slot(scan, direction, m->slot)))
	{
		*tid = m->slot->tts_tid;
		*bucket_start = DatumGetTimestampTz(slot_getattr(m->slot, Anum_delta_minute, &isnull));
		if (group != NULL)
			*group = DatumGetTextPCopy(slot_getattr(m->slot, Anum_delta_group_key, &isnull));
	}
	index_endscan(scan);
	ExecClearTuple(m->slot);
	index_close(index, AccessShareLock);
	table_close(delta, NoLock);
	return found;
}

/*
 * Check that the caller may ask about the deltas. Everybody may execute the
 * functions of the view, because a reader of a view calls the functions in it with
 * the reader's own rights. But only those who may read the view may learn about the
 * deltas: so the view passes a secret, which is the group key of the deltas'
 * arrival row. Raises insufficient_privilege for a wrong secret. Returns false if
 * there is no arrival row: then there are no deltas, either; see home.c.
 */
static bool
may_ask(const DeltaMemory *m, text *secret)
{
	ScanKeyData key;
	ItemPointerData tid;
	TimestampTz bucket_start;
	text	   *known;

	ScanKeyInit(&key, Anum_delta_minute, BTEqualStrategyNumber, F_TIMESTAMPTZ_EQ,
				TimestampTzGetDatum(DT_NOBEGIN));
	if (!first_delta(m, &key, 1, ForwardScanDirection, &tid, &bucket_start, &known))
		return false;
	if (secret == NULL || VARSIZE_ANY_EXHDR(secret) != VARSIZE_ANY_EXHDR(known) ||
		memcmp(VARDATA_ANY(secret), VARDATA_ANY(known), VARSIZE_ANY_EXHDR(known)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for table %s", get_rel_name(m->delta)),
				 errhint("Only a fact view may call the function.")));
	return true;
}

/*
 * Begin a query that asks about the deltas, which the function's first argument
 * names; its second one is the secret. Returns false if there are no deltas.
 */
static bool
begin_query(DeltaMemory *m, FunctionCallInfo fcinfo)
{
	Oid			relid = PG_GETARG_OID(0);
	char	   *name = get_rel_name(relid);
	MemoryContext old;
	Relation	rel = NULL;

	/*
	 * Only the extension's owner can make a table in the function's schema. The caches
	 * may have a table that has just been dropped.
	 */
	if (name != NULL && get_rel_namespace(relid) == get_func_namespace(fcinfo->flinfo->fn_oid) &&
		strncmp(name, "delta_", strlen("delta_")) == 0 && get_rel_relkind(relid) == RELKIND_RELATION)
		rel = try_table_open(relid, AccessShareLock);
	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("relation %u is not a table of deltas", relid),
				 errhint("Only a fact view may call the function.")));
	rsink_require_heap(rel);
	m->delta = relid;
	m->index = rsink_table_index(rel, Anum_delta_minute);
	old = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	m->slot = MakeTupleTableSlot(CreateTupleDescCopy(RelationGetDescr(rel)), &TTSOpsBufferHeapTuple);
	MemoryContextSwitchTo(old);
	table_close(rel, NoLock);
	m->retained_from = rsink_state_time(get_relname_relid("sink_state", get_func_namespace(fcinfo->flinfo->fn_oid)),
										atoi(name + strlen("delta_")), Anum_state_retained_from, GetActiveSnapshot());
	return may_ask(m, PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1));
}

/* Scan keys for all rows of a bucket and group. */
static void
keys_of(ScanKey keys, TimestampTz bucket_start, Datum group)
{
	ScanKeyInit(&keys[0], Anum_delta_minute, BTEqualStrategyNumber, F_TIMESTAMPTZ_EQ,
				TimestampTzGetDatum(bucket_start));
	ScanKeyInit(&keys[1], Anum_delta_group_key, BTEqualStrategyNumber, F_TEXTEQ, group);
}

/* Find the first delta of a bucket and group; returns false if there is none. */
static bool
first_of(const DeltaMemory *m, TimestampTz bucket_start, Datum group, ItemPointer tid)
{
	ScanKeyData keys[2];
	TimestampTz found;

	keys_of(keys, bucket_start, group);
	return first_delta(m, keys, 2, ForwardScanDirection, tid, &found, NULL);
}

/*
 * Find the gap that contains a bucket, looking ahead in the direction in which the
 * query reads. Returns false if the bucket itself has deltas.
 */
static bool
find_gap(DeltaMemory *m, TimestampTz bucket_start, bool upwards)
{
	ItemPointerData tid;
	TimestampTz next;
	ScanKeyData key;

	ScanKeyInit(&key, Anum_delta_minute,
				upwards ? BTGreaterEqualStrategyNumber : BTLessEqualStrategyNumber,
				upwards ? F_TIMESTAMPTZ_GE : F_TIMESTAMPTZ_LE, TimestampTzGetDatum(bucket_start));
	if (!first_delta(m, &key, 1, upwards ? ForwardScanDirection : BackwardScanDirection, &tid, &next, NULL))
		next = upwards ? DT_NOEND : DT_NOBEGIN;
	if (next == bucket_start)
		return false;
	m->after = upwards ? bucket_start - 1 : next;
	m->before = upwards ? next : bucket_start + 1;
	return true;
}

/* Does the view show the row of this total? It does if there are no deltas. */
static bool
total_stands(DeltaMemory *m, TimestampTz bucket_start, Datum group)
{
	bool		upwards = bucket_start >= m->last;
	ItemPointerData tid;

	if (bucket_start > m->after && bucket_start < m->before)
		return true;
	m->last = bucket_start;
	if (m->misses >= MISSES_BEFORE_GAPS && m->wait-- <= 0)
	{
		if (find_gap(m, bucket_start, upwards))
		{
			m->wait = m->next_wait = 0;
			return true;
		}
		m->wait = m->next_wait;
		m->next_wait = Min(2 * m->next_wait + 1, MOST_WITHOUT_LOOK);
	}
	if (first_of(m, bucket_start, group, &tid))
		return false;
	m->misses++;
	return true;
}

/* Does the view show the row of this delta? It does if the delta is the first one. */
static bool
delta_stands(DeltaMemory *m, MemoryContext parent, TimestampTz bucket_start, Datum group,
			 ItemPointer delta)
{
	text	   *name = DatumGetTextPP(group);
	GroupKey	key = {bucket_start, VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name)};
	FirstDelta *first;
	bool		found;

	if (bucket_start == DT_NOBEGIN || !m->arrived)
		return false;			/* the arrival row, or a delta without one */
	if (m->firsts != NULL && m->firsts->members >= MAX_FIRSTS)
	{
		MemoryContextReset(m->context);
		m->firsts = NULL;
	}
	if (m->context == NULL)
		m->context = AllocSetContextCreate(parent, "revenue_sink first deltas", ALLOCSET_DEFAULT_SIZES);
	if (m->firsts == NULL)
		m->firsts = firsts_create(m->context, 64, NULL);
	first = firsts_insert(m->firsts, key, &found);
	if (!found)
	{
		char	   *copy = MemoryContextAlloc(m->context, key.group_len + 1);

		memcpy(copy, key.group_key, key.group_len);
		first->key.group_key = copy;
		if (!first_of(m, bucket_start, group, &first->tid))
			ItemPointerSetInvalid(&first->tid);
	}
	return ItemPointerEquals(&first->tid, delta);
}

/*
 * stands(deltas, secret, minute, group_key, delta) -> boolean
 *
 * Does the fact view show this row for its bucket and group? "delta" is the address
 * of a delta, or NULL for a total. The view shows a total if there are no deltas in
 * the snapshot of the query, and a delta if it is the first one. It shows no row of
 * a bucket that the sink keeps no longer. Takes AccessShareLock on the deltas.
 * Raises insufficient_privilege if the secret isn't that of the arrival row, and
 * wrong_object_type if "deltas" isn't a sink's table of deltas.
 */
Datum
revenue_sink_stands(PG_FUNCTION_ARGS)
{
	DeltaMemory *m = fcinfo->flinfo->fn_extra;
	TimestampTz bucket_start;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(2) || PG_ARGISNULL(3))
		PG_RETURN_NULL();
	bucket_start = PG_GETARG_TIMESTAMPTZ(2);
	if (m == NULL)
	{
		m = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(DeltaMemory));
		m->last = m->after = DT_NOEND;
		m->before = DT_NOBEGIN;
		m->arrived = begin_query(m, fcinfo);
		if (!m->arrived)
		{
			/* one gap from the beginning to the end of time */
			m->after = DT_NOBEGIN;
			m->before = DT_NOEND;
		}
		fcinfo->flinfo->fn_extra = m;
	}
	if (bucket_start < m->retained_from)
		PG_RETURN_BOOL(false);
	if (PG_ARGISNULL(4))
		PG_RETURN_BOOL(total_stands(m, bucket_start, PG_GETARG_DATUM(3)));
	PG_RETURN_BOOL(delta_stands(m, fcinfo->flinfo->fn_mcxt, bucket_start, PG_GETARG_DATUM(3),
								(ItemPointer) PG_GETARG_POINTER(4)));
}

/*
 * What revenue_of(), events_of() or winner_of() remembers during the query; the
 * first call finds the totals that belong to the deltas.
 */
static ValueMemory *
value_memory(FunctionCallInfo fcinfo)
{
	ValueMemory *m = fcinfo->flinfo->fn_extra;
	Relation	rel;

	if (m != NULL)
		return m;
	m = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(ValueMemory));
	(void) begin_query(&m->deltas, fcinfo);
	m->total = get_relname_relid(psprintf("total_%s", get_rel_name(m->deltas.delta) + strlen("delta_")),
								 get_func_namespace(fcinfo->flinfo->fn_oid));
	rel = table_open(m->total, AccessShareLock);
	rsink_require_heap(rel);
	m->total_index = rsink_table_index(rel, Anum_delta_minute);
	table_close(rel, AccessShareLock);
	fcinfo->flinfo->fn_extra = m;
	return m;
}

/*
 * Call a function for each row of a table, found by its index, that belongs to the
 * bucket and group that are the caller's third and fourth argument.
 */
static void
for_each_row(Oid relid, Oid indexid, FunctionCallInfo fcinfo,
			 void (*visit) (TupleTableSlot *slot, void *arg), void *arg)
{
	Relation	rel = table_open(relid, AccessShareLock);
	Relation	index = index_open(indexid, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	IndexScanDesc scan = rsink_index_beginscan(rel, index, GetActiveSnapshot(), 2);
	ScanKeyData keys[2];

	keys_of(keys, PG_GETARG_TIMESTAMPTZ(2), PG_GETARG_DATUM(3));
	index_rescan(scan, keys, 2, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		visit(slot, arg);
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
}

/* Call a function for each delta and the total of the bucket and group. */
static void
for_deltas_and_total(FunctionCallInfo fcinfo, void (*visit) (TupleTableSlot *slot, void *arg), void *arg)
{
	ValueMemory *m = value_memory(fcinfo);

	for_each_row(m->deltas.delta, m->deltas.index, fcinfo, visit, arg);
	for_each_row(m->total, m->total_index, fcinfo, visit, arg);
}

static void
add_revenue(TupleTableSlot *slot, void *arg)
{
	rsink_sum_add(arg, DatumGetNumeric(slot->tts_values[Anum_delta_revenue - 1]));
}

/*
 * revenue_of(deltas, secret, minute, group_key) -> numeric
 *
 * The revenue of a bucket and group, the sum over all deltas and the total, in the
 * snapshot of the query. Takes AccessShareLock on the deltas and on the totals, and
 * raises the errors of stands().
 */
Datum
revenue_sink_revenue_of(PG_FUNCTION_ARGS)
{
	RsinkSum	sum = {0};

	for_deltas_and_total(fcinfo, add_revenue, &sum);
	PG_RETURN_NUMERIC(rsink_sum_result(&sum));
}

/* The number of events in some rows, if it is known. */
typedef struct EventCount
{
	int64		events;
	bool		unknown;		/* a total was imported without the number */
} EventCount;

static void
add_events(TupleTableSlot *slot, void *arg)
{
	EventCount *count = arg;

	count->events += DatumGetInt64(slot->tts_values[Anum_delta_events - 1]);
	if (slot->tts_tupleDescriptor->natts >= Anum_total_uncounted && !slot->tts_isnull[Anum_total_uncounted - 1])
		count->unknown |= DatumGetBool(slot->tts_values[Anum_total_uncounted - 1]);
}

/*
 * events_of(deltas, secret, minute, group_key) -> bigint
 *
 * How many events the revenue of a bucket and group counts; NULL if it contains an
 * imported total that doesn't say. Locks and errors are those of revenue_of().
 */
Datum
revenue_sink_events_of(PG_FUNCTION_ARGS)
{
	EventCount	count = {0};

	for_deltas_and_total(fcinfo, add_events, &count);
	if (count.unknown)
		PG_RETURN_NULL();
	PG_RETURN_INT64(count.events);
}

static void
consider(TupleTableSlot *slot, void *arg)
{
	RsinkVersion v;

	v.revenue = DatumGetNumeric(slot->tts_values[Anum_version_revenue - 1]);
	v.version_isnull = slot->tts_isnull[Anum_version_version - 1];
	v.version = v.version_isnull ? 0 : DatumGetInt64(slot->tts_values[Anum_version_version - 1]);
	v.epoch = DatumGetInt64(slot->tts_values[Anum_version_epoch - 1]);
	v.number = DatumGetInt64(slot->tts_values[Anum_version_number - 1]);
	v.sequence = DatumGetInt64(slot->tts_values[Anum_version_sequence - 1]);
	rsink_winner_consider(arg, &v);
}

/*
 * winner_of(deltas, secret, minute, group_key) -> numeric
 *
 * The revenue of a bucket and group in mode 'totals', that of the version that wins;
 * see winner.c. Locks and errors are those of revenue_of().
 */
Datum
revenue_sink_winner_of(PG_FUNCTION_ARGS)
{
	RsinkWinner winner = {{0}};
	const RsinkVersion *best;

	for_deltas_and_total(fcinfo, consider, &winner);
	if ((best = rsink_winner(&winner)) == NULL)
		PG_RETURN_NULL();
	PG_RETURN_NUMERIC(best->revenue);
}

/*
 * stands_support(), the planner support function of stands()
 *
 * Estimates that stands() is true for all totals and for a small part of the deltas.
 */
Datum
revenue_sink_stands_support(PG_FUNCTION_ARGS)
{
	Node	   *node = (Node *) PG_GETARG_POINTER(0);
	SupportRequestSelectivity *request = (SupportRequestSelectivity *) node;
	Node	   *delta;

	if (!IsA(node, SupportRequestSelectivity) || list_length(request->args) != 5)
		PG_RETURN_POINTER(NULL);
	delta = llast(request->args);
	request->selectivity = IsA(delta, Const) && ((Const *) delta)->constisnull ? 1.0 : PART_SHOWN;
	PG_RETURN_POINTER(request);
}
