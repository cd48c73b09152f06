/*-------------------------------------------------------------------------
 *
 * fact.c
 *	  The fact view: its definition, and what it asks of the deltas.
 *
 * A minute and group is shown by one row: by its total if it has no deltas, else by
 * the first of its deltas, beside which stands what these and the total come to.
 * All of it is of the query's one snapshot. Nothing is grouped, and the planner can
 * take the view apart, since both parts of its UNION ALL are plain scans with the
 * condition pushed into them. So a query for a range, or for the latest few, reads
 * an index of the totals and one of the deltas and stops early, as in a table.
 *
 * stands() decides for each row that a query reads, millions of them, nearly always
 * in the order of minutes. So it remembers the gap between two deltas that it has
 * come to last (no minute inside has any), and the first deltas that it has seen.
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

#include "amount.h"
#include "catalog.h"
#include "compat.h"
#include "fact.h"
#include "group_key.h"
#include "relations.h"
#include "spi_util.h"

PG_FUNCTION_INFO_V1(revenue_sink_stands);
PG_FUNCTION_INFO_V1(revenue_sink_stands_support);
PG_FUNCTION_INFO_V1(revenue_sink_revenue_of);
PG_FUNCTION_INFO_V1(revenue_sink_events_of);
PG_FUNCTION_INFO_V1(revenue_sink_winner_of);

/*
 * A query that reads a few totals looks them up one by one. Only from so many in
 * vain on does it pay to look for the gaps as well.
 */
#define MISSES_BEFORE_GAPS 16

/* So many first deltas are remembered at once. */
#define MAX_FIRSTS		65536

/* The part of a sink's deltas that is planned to be shown; the others follow. */
#define PART_SHOWN		0.1

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
	Oid			index;			/* of the deltas, on (minute, group_key) */
	TupleTableSlot *slot;		/* for one of their rows; empty between calls */
	bool		arrived;		/* is the arrival row there? Else there are no deltas */
	TimestampTz retained_from;	/* what lies before it is being removed */
	int			misses;
	TimestampTz last;			/* minute that was looked up last */
	TimestampTz after;			/* no delta has a minute between these two, */
	TimestampTz before;			/* themselves excluded */
	MemoryContext context;		/* of the first deltas */
	firsts_hash *firsts;
} DeltaMemory;

/* What revenue_of() and its like remember during a query. */
typedef struct ValueMemory
{
	DeltaMemory deltas;
	Oid			total;
	Oid			total_index;	/* of the totals, on (minute, group_key) */
} ValueMemory;

/* A version of a total, in mode 'totals'. */
typedef struct Version
{
	bool		is_set;
	bool		version_isnull;
	int64		version;
	int64		epoch;
	int64		number;
	int64		sequence;
	Numeric		revenue;
} Version;

/*
 * Make the fact view of a sink, as the current user; "view" is what follows CREATE
 * OR REPLACE VIEW. What stands beside a delta is computed by functions and not by
 * sub-selects: these would keep the whole query from running in parallel.
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
			  view, totals ? "NULL::bigint" : "t.events", id,
			  totals ? "winner_of" : "revenue_of", arguments,
			  totals ? "NULL::bigint" : "revenue_sink.events_of", totals ? "" : arguments, id, id, secret);
}

/*
 * Give a fact view the definition of this version, and leave it the names of its
 * columns and its options.
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
 * The first row of the deltas, from these keys on in this direction, that the
 * query's snapshot shows: its address and minute, and its group if "group" isn't
 * NULL. False if there is none. Equal keys come in the order of addresses.
 */
static bool
first_delta(const DeltaMemory *m, ScanKey keys, int nkeys, ScanDirection direction,
			ItemPointer tid, TimestampTz *minute, text **group)
{
	/*
	 * The query itself has locked the table. The index needs a lock for each call:
	 * one that is taken at a cursor's first FETCH may go with a savepoint, and the
	 * cursor stay.
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
		*minute = DatumGetTimestampTz(slot_getattr(m->slot, Anum_delta_minute, &isnull));
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
 * The function is for everybody, since the readers of a view call the functions in
 * it with their own rights. What it tells is for those whom the deltas are: the
 * view brings a secret that only the deltas have. Where the arrival row isn't
 * there, neither is a delta; see home.c.
 */
static bool
may_ask(const DeltaMemory *m, text *secret)
{
	ScanKeyData key;
	ItemPointerData tid;
	TimestampTz minute;
	text	   *known;

	ScanKeyInit(&key, Anum_delta_minute, BTEqualStrategyNumber, F_TIMESTAMPTZ_EQ,
				TimestampTzGetDatum(DT_NOBEGIN));
	if (!first_delta(m, &key, 1, ForwardScanDirection, &tid, &minute, &known))
		return false;
	if (secret == NULL || VARSIZE_ANY_EXHDR(secret) != VARSIZE_ANY_EXHDR(known) ||
		memcmp(VARDATA_ANY(secret), VARDATA_ANY(known), VARSIZE_ANY_EXHDR(known)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for table %s", get_rel_name(m->delta)),
				 errhint("The function is for fact views.")));
	return true;
}

/*
 * Begin a query that asks about these deltas, with this secret. False: there are
 * none.
 */
static bool
begin_query(DeltaMemory *m, FunctionCallInfo fcinfo)
{
	Oid			relid = PG_GETARG_OID(0);
	char	   *name = get_rel_name(relid);
	MemoryContext old;
	Relation	rel;

	/* nobody but the extension's owner makes tables beside the function */
	if (name == NULL || get_rel_namespace(relid) != get_func_namespace(fcinfo->flinfo->fn_oid) ||
		strncmp(name, "delta_", strlen("delta_")) != 0 || get_rel_relkind(relid) != RELKIND_RELATION)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("relation %u has no deltas of a sink", relid),
				 errhint("The function is for fact views.")));
	rel = table_open(relid, AccessShareLock);
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

/* Keys for all rows of a minute and group. */
static void
keys_of(ScanKey keys, TimestampTz minute, Datum group)
{
	ScanKeyInit(&keys[0], Anum_delta_minute, BTEqualStrategyNumber, F_TIMESTAMPTZ_EQ,
				TimestampTzGetDatum(minute));
	ScanKeyInit(&keys[1], Anum_delta_group_key, BTEqualStrategyNumber, F_TEXTEQ, group);
}

/* The first delta of a minute and group; false if there is none. */
static bool
first_of(const DeltaMemory *m, TimestampTz minute, Datum group, ItemPointer tid)
{
	ScanKeyData keys[2];
	TimestampTz found;

	keys_of(keys, minute, group);
	return first_delta(m, keys, 2, ForwardScanDirection, tid, &found, NULL);
}

/*
 * Find the gap that a minute is in, looking on in the direction in which the query
 * reads. False: the minute has deltas.
 */
static bool
find_gap(DeltaMemory *m, TimestampTz minute, bool upwards)
{
	ItemPointerData tid;
	TimestampTz next;
	ScanKeyData key;

	ScanKeyInit(&key, Anum_delta_minute,
				upwards ? BTGreaterEqualStrategyNumber : BTLessEqualStrategyNumber,
				upwards ? F_TIMESTAMPTZ_GE : F_TIMESTAMPTZ_LE, TimestampTzGetDatum(minute));
	if (!first_delta(m, &key, 1, upwards ? ForwardScanDirection : BackwardScanDirection, &tid, &next, NULL))
		next = upwards ? DT_NOEND : DT_NOBEGIN;
	if (next == minute)
		return false;
	m->after = upwards ? minute - 1 : next;
	m->before = upwards ? next : minute + 1;
	return true;
}

static bool
total_stands(DeltaMemory *m, TimestampTz minute, Datum group)
{
	bool		upwards = minute >= m->last;
	ItemPointerData tid;

	if (minute > m->after && minute < m->before)
		return true;
	m->last = minute;
	if (m->misses >= MISSES_BEFORE_GAPS && find_gap(m, minute, upwards))
		return true;
	if (first_of(m, minute, group, &tid))
		return false;
	m->misses++;
	return true;
}

static bool
delta_stands(DeltaMemory *m, MemoryContext parent, TimestampTz minute, Datum group, ItemPointer delta)
{
	text	   *name = DatumGetTextPP(group);
	GroupKey	key = {minute, VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name)};
	FirstDelta *first;
	bool		found;

	if (minute == DT_NOBEGIN || !m->arrived)
		return false;			/* the arrival row, or what came without it */
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
		if (!first_of(m, minute, group, &first->tid))
			ItemPointerSetInvalid(&first->tid);
	}
	return ItemPointerEquals(&first->tid, delta);
}

/*
 * stands(deltas, secret, minute, group_key, delta) -> boolean
 *
 * Is this row the one that shows its minute and group? A total, whose "delta" is
 * NULL, is if there are no deltas in the snapshot of the query; a delta, which is
 * given by its address, is if it is the first. None is that lies before the limit of
 * what the sink keeps. Takes AccessShareLock on the deltas.
 * Raises insufficient_privilege for another secret than that of the arrival row,
 * wrong_object_type for a table that isn't one of deltas.
 */
Datum
revenue_sink_stands(PG_FUNCTION_ARGS)
{
	DeltaMemory *m = fcinfo->flinfo->fn_extra;
	TimestampTz minute;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(2) || PG_ARGISNULL(3))
		PG_RETURN_NULL();
	minute = PG_GETARG_TIMESTAMPTZ(2);
	if (m == NULL)
	{
		m = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(DeltaMemory));
		m->last = m->after = DT_NOEND;
		m->before = DT_NOBEGIN;
		m->arrived = begin_query(m, fcinfo);
		if (!m->arrived)
		{
			/* one gap from the beginning to the end */
			m->after = DT_NOBEGIN;
			m->before = DT_NOEND;
		}
		fcinfo->flinfo->fn_extra = m;
	}
	if (minute < m->retained_from)
		PG_RETURN_BOOL(false);
	if (PG_ARGISNULL(4))
		PG_RETURN_BOOL(total_stands(m, minute, PG_GETARG_DATUM(3)));
	PG_RETURN_BOOL(delta_stands(m, fcinfo->flinfo->fn_mcxt, minute, PG_GETARG_DATUM(3),
								(ItemPointer) PG_GETARG_POINTER(4)));
}

/*
 * What the functions below remember, with the table of the totals that belong to
 * the deltas.
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

/* Call a function for all rows of a minute and group, in a table and by an index. */
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
 * The revenue of a minute and group, all deltas and the total, in the snapshot of
 * the query. Locks and errors are those of stands(), and AccessShareLock on the
 * totals; so are those of the two functions below.
 */
Datum
revenue_sink_revenue_of(PG_FUNCTION_ARGS)
{
	RsinkSum	sum = {0};

	for_deltas_and_total(fcinfo, add_revenue, &sum);
	PG_RETURN_NUMERIC(rsink_sum_result(&sum));
}

static void
add_events(TupleTableSlot *slot, void *arg)
{
	*(int64 *) arg += DatumGetInt64(slot->tts_values[Anum_delta_events - 1]);
}

/* events_of(deltas, secret, minute, group_key) -> bigint: likewise, of how many events */
Datum
revenue_sink_events_of(PG_FUNCTION_ARGS)
{
	int64		events = 0;

	for_deltas_and_total(fcinfo, add_events, &events);
	PG_RETURN_INT64(events);
}

/* Is a version later than another one of the same rank? */
static bool
is_later(const Version *a, const Version *b)
{
	if (a->epoch != b->epoch)
		return a->epoch > b->epoch;
	if (a->number != b->number)
		return a->number > b->number;
	return a->sequence > b->sequence;
}

/* Keep the best row that has a version, and the best row that has none. */
static void
keep_best(TupleTableSlot *slot, void *arg)
{
	Version		v = {.is_set = true};
	Version    *best;

	v.version_isnull = slot->tts_isnull[Anum_version_version - 1];
	v.version = v.version_isnull ? 0 : DatumGetInt64(slot->tts_values[Anum_version_version - 1]);
	v.epoch = DatumGetInt64(slot->tts_values[Anum_version_epoch - 1]);
	v.number = DatumGetInt64(slot->tts_values[Anum_version_number - 1]);
	v.sequence = DatumGetInt64(slot->tts_values[Anum_version_sequence - 1]);
	best = (Version *) arg + (v.version_isnull ? 0 : 1);
	if (best->is_set && (best->version > v.version || (best->version == v.version && !is_later(&v, best))))
		return;
	v.revenue = DatumGetNumericCopy(slot->tts_values[Anum_version_revenue - 1]);
	*best = v;
}

/*
 * winner_of(deltas, secret, minute, group_key) -> numeric: likewise, in mode
 * 'totals': of the highest version and of the latest row without one, that which
 * came last
 */
Datum
revenue_sink_winner_of(PG_FUNCTION_ARGS)
{
	Version		best[2] = {{0}};

	for_deltas_and_total(fcinfo, keep_best, best);
	if (best[0].is_set && (!best[1].is_set || best[0].sequence > best[1].sequence))
		PG_RETURN_NUMERIC(best[0].revenue);
	if (best[1].is_set)
		PG_RETURN_NUMERIC(best[1].revenue);
	PG_RETURN_NULL();
}

/* What the planner is told of stands(): of totals nearly all do, of deltas few. */
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
