/*-------------------------------------------------------------------------
 *
 * ingest.c
 *	  Events by INSERT and COPY into the ingest view.
 *
 * An INSTEAD OF INSERT row trigger collects rows and passes them to apply.c a
 * portion at a time; an AFTER INSERT statement trigger passes on the rest. A
 * collection belongs to one view and one subtransaction: a statement ends in the
 * subtransaction in which it began, so its rows are either flushed at the end of
 * the statement, or die with the subtransaction in which the statement failed. A
 * COMMIT that finds unflushed rows fails, so that no row is lost in silence.
 *
 * With session_replication_role = replica the triggers don't fire, and rows would
 * vanish though the command tag counts them. A hook therefore raises an error for
 * an INSERT or COPY into an ingest view under that setting.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/analyze.h"
#include "parser/parsetree.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "api/ingest.h"
#include "apply/apply.h"
#include "apply/event.h"
#include "core/catalog.h"
#include "core/compat.h"
#include "revenue/totals.h"
#include "sink/choice.h"
#include "sink/relations.h"
#include "sink/sink.h"
#include "writer/tally.h"

PG_FUNCTION_INFO_V1(revenue_sink_ingest);

/* Collected rows are applied when there are so many of them, or so many bytes. */
#define COLLECT_ROWS	RSINK_PORTION_MAX
#define COLLECT_BYTES	(16 * 1024 * 1024)

/* The rows that are collected for one view in one subtransaction. */
typedef struct Collected
{
	Oid			view;
	SubTransactionId subid;
	RsinkSink  *sink;
	MemoryContext context;		/* holds all of this; under TopTransactionContext */
	MemoryContext rows;			/* strings and amounts of the events */
	RsinkEvent *events;
	int			n;
	Size		bytes;
	int64		total;			/* rows of the statement that have been applied */
	struct Collected *next;
} Collected;

static Collected *collected;
static ExecutorCheckPerms_hook_type next_check_perms;
static post_parse_analyze_hook_type next_after_analysis;

/*
 * The number of the sink with which a trigger marks its view; 0 if it has no
 * argument, as in version 1.0.
 */
static int32
marked_with(const Trigger *trigger)
{
	return trigger->tgnargs == 1 ? pg_strtoint32(trigger->tgargs[0]) : 0;
}

/* The collection for a view in the current subtransaction; a new one if need be. */
static Collected *
collected_for(Oid view, const Trigger *trigger)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	MemoryContext context;
	Collected  *c;

	for (c = collected; c != NULL; c = c->next)
		if (c->view == view && c->subid == subid)
			return c;
	context = AllocSetContextCreate(TopTransactionContext, "revenue_sink ingest",
									ALLOCSET_DEFAULT_SIZES);
	c = MemoryContextAllocZero(context, sizeof(Collected));
	c->view = view;
	c->subid = subid;
	c->sink = rsink_sink_by_ingest(view, marked_with(trigger));
	c->context = context;
	c->rows = AllocSetContextCreate(context, "revenue_sink ingest rows", ALLOCSET_DEFAULT_SIZES);
	c->next = collected;
	PreventCommandIfReadOnly("INSERT");
	collected = c;
	return c;
}

static void
forget_collected(Collected *gone)
{
	for (Collected **link = &collected; *link != NULL; link = &(*link)->next)
	{
		if (*link == gone)
		{
			*link = gone->next;
			break;
		}
	}
	MemoryContextDelete(gone->context);
}

/* Apply the collected events. */
static void
flush_events(Collected *c)
{
	RsinkCounts counts = {{0}};
	RsinkApply *apply = rsink_apply_begin(c->sink, false);

	rsink_apply_skip(apply, c->total);
	rsink_apply_events(apply, c->events, c->n);
	rsink_apply_end(apply, &counts);
	c->total += c->n;
	c->n = 0;
	c->bytes = 0;
	MemoryContextReset(c->rows);
}

/*
 * Raise feature_not_supported for a value in a column that the owner has added to
 * the view. No table has such a column, so the value would be lost.
 */
static void
refuse_others(TupleTableSlot *slot, int columns)
{
	for (int i = columns; i < slot->tts_tupleDescriptor->natts; i++)
	{
		if (!slot->tts_isnull[i])
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot insert into column \"%s\" of an ingest view",
							NameStr(TupleDescAttr(slot->tts_tupleDescriptor, i)->attname)),
					 errdetail("An event has no such column, and the value would be lost."),
					 errhint("Leave the column out, or write the value to a table of your own in the same transaction.")));
	}
}

/* Copy a text column into the collection; NULL for NULL. *len is its length in bytes. */
static const char *
copy_text(Collected *c, TupleTableSlot *slot, int attnum, int32 *len)
{
	struct varlena *value;
	char	   *copy;

	*len = 0;
	if (slot->tts_isnull[attnum - 1])
		return NULL;
	value = PG_DETOAST_DATUM_PACKED(slot->tts_values[attnum - 1]);
	*len = VARSIZE_ANY_EXHDR(value);
	copy = MemoryContextAlloc(c->rows, *len + 1);
	memcpy(copy, VARDATA_ANY(value), *len);
	c->bytes += *len;
	return copy;
}

/* Collect a row (order_id, event_id, event_time, amount, group_key). */
static void
collect_event(Collected *c, TupleTableSlot *slot)
{
	RsinkEvent *event;

	refuse_others(slot, 5);
	if (c->events == NULL)
		c->events = MemoryContextAlloc(c->context, COLLECT_ROWS * sizeof(RsinkEvent));
	event = &c->events[c->n];
	event->order_id = copy_text(c, slot, 1, &event->order_len);
	event->event_id = copy_text(c, slot, 2, &event->event_len);
	event->time_isnull = slot->tts_isnull[2];
	event->event_time = event->time_isnull ? 0 : DatumGetTimestampTz(slot->tts_values[2]);
	event->amount = NULL;
	if (!slot->tts_isnull[3])
	{
		struct varlena *amount = PG_DETOAST_DATUM(slot->tts_values[3]);

		event->amount = MemoryContextAlloc(c->rows, VARSIZE_ANY(amount));
		memcpy(event->amount, amount, VARSIZE_ANY(amount));
		c->bytes += VARSIZE_ANY(amount);
	}
	event->group_key = copy_text(c, slot, 5, &event->group_len);
	if (++c->n == COLLECT_ROWS || c->bytes > COLLECT_BYTES)
		flush_events(c);
}

/* Insert a row (minute, group_key, revenue, version), in mode 'totals'. */
static void
insert_total(Collected *c, TupleTableSlot *slot)
{
	RsinkCounts counts = {{0}};
	RsinkTable	versions;
	RsinkTotal	total;

	refuse_others(slot, 4);
	total.bucket_start_isnull = slot->tts_isnull[0];
	total.bucket_start = total.bucket_start_isnull ? 0 : DatumGetTimestampTz(slot->tts_values[0]);
	total.group_key = slot->tts_isnull[1] ? NULL : DatumGetTextPP(slot->tts_values[1]);
	total.revenue = slot->tts_isnull[2] ? NULL : DatumGetNumeric(slot->tts_values[2]);
	total.version_isnull = slot->tts_isnull[3];
	total.version = total.version_isnull ? 0 : DatumGetInt64(slot->tts_values[3]);
	rsink_table_open(&versions, c->sink->delta);
	counts.n[rsink_total_insert(c->sink, &versions, &total, ++c->total) ? RSINK_APPLIED : RSINK_LATE]++;
	rsink_table_close(&versions);
	rsink_tally_count(c->sink, &counts, DT_NOBEGIN);
}

/*
 * ingest(), the row trigger and the statement trigger of an ingest view
 *
 * The row trigger returns the row as it came, so that the command tag and
 * RETURNING are what they would be for a table.
 */
Datum
revenue_sink_ingest(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Collected  *c;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("revenue_sink.ingest() is a trigger for INSERT on ingest views")));
	c = collected_for(RelationGetRelid(trigger->tg_relation), trigger->tg_trigger);
	if (TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
	{
		slot_getallattrs(trigger->tg_trigslot);
		if (c->sink->mode == RSINK_TOTALS)
			insert_total(c, trigger->tg_trigslot);
		else
			collect_event(c, trigger->tg_trigslot);

		/*
		 * Return a copy. The executor frees the row that it has made for us only
		 * if it gets another one back; otherwise a long COPY would keep all of
		 * its rows in memory.
		 */
		return PointerGetDatum(heap_copytuple(trigger->tg_trigtuple));
	}
	if (c->n > 0)
		flush_events(c);
	forget_collected(c);
	return PointerGetDatum(NULL);
}

/* Raise for an INSERT into an ingest view whose triggers won't fire. */
static void
refuse_silent_loss(Oid relid, AclMode needed)
{
	if ((needed & ACL_INSERT) != 0 && get_rel_relkind(relid) == RELKIND_VIEW &&
		rsink_is_ingest_view(relid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot insert into ingest view \"%s\" with session_replication_role = replica",
						get_rel_name(relid)),
				 errdetail("Its triggers do not fire under this setting, and the events would be lost."),
				 errhint("SET session_replication_role = origin, or call revenue_sink.apply().")));
}

/*
 * Raise feature_not_supported, with a hint, for ON CONFLICT with columns on an
 * ingest view: core would look for a unique index, which a view doesn't have, and
 * its message wouldn't say what to write instead. This runs for each statement of
 * any session, so the cheapest condition comes first.
 */
static void
refuse_conflict_columns(Query *query)
{
	ListCell   *lc;

	foreach(lc, query->cteList)
		refuse_conflict_columns(castNode(Query, lfirst_node(CommonTableExpr, lc)->ctequery));
	if (query->commandType == CMD_INSERT && query->onConflict != NULL &&
		(query->onConflict->action == ONCONFLICT_UPDATE || query->onConflict->arbiterElems != NIL))
	{
		RangeTblEntry *target = rt_fetch(query->resultRelation, query->rtable);

		if (target->relkind == RELKIND_VIEW && rsink_is_ingest_view(target->relid))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("an ingest view accepts neither ON CONFLICT with columns nor DO UPDATE"),
					 errdetail("Events are deduplicated by (order_id, event_id) anyway."),
					 errhint("Leave the clause out, or write ON CONFLICT DO NOTHING.")));
	}
}

/* The hook post_parse_analyze_hook. */
static void
after_analysis(ParseState *pstate, Query *query, JumbleState *jstate)
{
	if (next_after_analysis)
		next_after_analysis(pstate, query, jstate);
	refuse_conflict_columns(query);
}

/* The hook ExecutorCheckPerms_hook. */
static bool
check_perms(RSINK_CHECK_PERMS_PARAMETERS)
{
	ListCell   *lc;

	if (SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA)
	{
		foreach(lc, permissions)
		{
			RsinkPermission *entry = lfirst(lc);

			refuse_silent_loss(entry->relid, entry->requiredPerms);
		}
	}
	return next_check_perms == NULL || next_check_perms(RSINK_CHECK_PERMS_ARGUMENTS);
}

static void
xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			if (collected != NULL)
				ereport(ERROR,
						(errcode(ERRCODE_DATA_EXCEPTION),
						 errmsg("%d events for sink \"%s\" have not been applied",
								collected->n, collected->sink->name),
						 errhint("The statement trigger of the ingest view did not fire. Roll back, and check that the view has both of its triggers.")));
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_ABORT:
			collected = NULL;
			break;
		default:
			break;
	}
}

static void
subxact_callback(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	Collected  *next;

	if (event != SUBXACT_EVENT_ABORT_SUB)
		return;
	for (Collected *c = collected; c != NULL; c = next)
	{
		next = c->next;
		if (c->subid == mine)
			forget_collected(c);
	}
}

/* Register callbacks and hooks. _PG_init() calls this once per process. */
void
rsink_init_ingest(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
	next_check_perms = ExecutorCheckPerms_hook;
	ExecutorCheckPerms_hook = check_perms;
	next_after_analysis = post_parse_analyze_hook;
	post_parse_analyze_hook = after_analysis;
}
