/*-------------------------------------------------------------------------
 *
 * functions.c
 *	  apply() and apply_each(): events as arrays, as jsonb, or one by one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/tupmacs.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "api/answers.h"
#include "api/argument.h"
#include "api/import.h"
#include "apply/apply.h"
#include "apply/event.h"
#include "core/compat.h"
#include "sink/choice.h"
#include "sink/right.h"
#include "sink/sink.h"

PG_FUNCTION_INFO_V1(revenue_sink_apply_arrays);
PG_FUNCTION_INFO_V1(revenue_sink_apply_each);
PG_FUNCTION_INFO_V1(revenue_sink_apply_jsonb);
PG_FUNCTION_INFO_V1(revenue_sink_apply_one);
PG_FUNCTION_INFO_V1(revenue_sink_import_seen);

/* The bytes of a text, which stay where they are; a null pointer for NULL. */
static inline void
set_bytes(const struct varlena *value, const char **bytes, int32 *len)
{
	*bytes = value ? VARDATA_ANY(value) : NULL;
	*len = value ? VARSIZE_ANY_EXHDR(value) : 0;
}

/*
 * Apply, or import, the events of a call's array arguments, which begin with the
 * second one. *counts gets the number of events per status, and *answers, unless it is
 * NULL, the answers to them. The arrays are read in place and applied a portion at a
 * time, so that the memory needed, but for the answers, doesn't depend on their length.
 */
static void
apply_columns(FunctionCallInfo fcinfo, RsinkSink *sink, bool importing, RsinkCounts *counts,
			  RsinkAnswers *answers)
{
	RsinkColumn order_id;
	RsinkColumn event_id;
	RsinkColumn event_time;
	RsinkColumn amount;
	RsinkColumn group_key;
	bool		grouped = !PG_ARGISNULL(5);
	RsinkApply *apply;
	RsinkEvent *events;
	int			n;

	rsink_column_open(&order_id, fcinfo, 1, "order_id", -1);
	n = order_id.length;
	rsink_column_open(&event_id, fcinfo, 2, "event_id", n);
	rsink_column_open(&event_time, fcinfo, 3, "event_time", n);
	rsink_column_open(&amount, fcinfo, 4, "amount", n);
	if (grouped)
		rsink_column_open(&group_key, fcinfo, 5, "group_key", n);
	if (answers != NULL)
		rsink_answers_begin(answers, n);

	apply = importing ? rsink_apply_begin_import(sink) : rsink_apply_begin(sink, false);
	events = palloc(Max(1, Min(n, RSINK_PORTION_MAX)) * sizeof(RsinkEvent));
	for (int from = 0; from < n; from += RSINK_PORTION_MAX)
	{
		int			portion = Min(n - from, RSINK_PORTION_MAX);

		for (int i = 0; i < portion; i++)
		{
			RsinkEvent *event = &events[i];

			set_bytes(rsink_column_varlena(&order_id), &event->order_id, &event->order_len);
			set_bytes(rsink_column_varlena(&event_id), &event->event_id, &event->event_len);
			event->event_time = rsink_column_int64(&event_time, &event->time_isnull);
			event->amount = (Numeric) rsink_column_varlena(&amount);
			set_bytes(grouped ? rsink_column_varlena(&group_key) : NULL,
					  &event->group_key, &event->group_len);
		}
		rsink_apply_events(apply, events, portion);
		if (answers != NULL)
			rsink_answers_add(answers, events, portion);
	}
	rsink_apply_end(apply, counts);
}

/* apply(sink, order_id[], event_id[], event_time[], amount[], group_key[]) */
Datum
revenue_sink_apply_arrays(PG_FUNCTION_ARGS)
{
	RsinkCounts counts = {{0}};

	apply_columns(fcinfo, rsink_apply_sink(fcinfo, "apply()"), false, &counts, NULL);
	return rsink_counts_record(fcinfo, &counts);
}

/*
 * import_seen(sink, order_id[], event_id[], event_time[], amount[], group_key[])
 *
 * Remembers events that imported totals contain. Returns how many were remembered
 * now ("applied"), were remembered before, contradict what was remembered, are at or
 * before the horizon, or are bad; of these last three kinds nothing is kept.
 */
Datum
revenue_sink_import_seen(PG_FUNCTION_ARGS)
{
	RsinkSink  *sink = rsink_import_sink(fcinfo, "import_seen()");
	RsinkCounts counts = {{0}};

	apply_columns(fcinfo, sink, true, &counts, NULL);
	rsink_import_note_seen(sink, counts.n[RSINK_APPLIED]);
	return rsink_counts_record(fcinfo, &counts);
}

/*
 * apply_each(sink, order_id[], event_id[], event_time[], amount[], group_key[]) -> text[]
 *
 * Does what apply() does, and returns the answer to each event in place of the
 * counts, in the order of the events.
 */
Datum
revenue_sink_apply_each(PG_FUNCTION_ARGS)
{
	RsinkCounts counts = {{0}};
	RsinkAnswers answers;

	apply_columns(fcinfo, rsink_apply_sink(fcinfo, "apply_each()"), false, &counts, &answers);
	PG_RETURN_ARRAYTYPE_P(rsink_answers_end(&answers));
}

/*
 * apply(sink, order_id, event_id, event_time, amount, group_key) -> text
 *
 * Applies one event and returns its status.
 */
Datum
revenue_sink_apply_one(PG_FUNCTION_ARGS)
{
	RsinkSink  *sink = rsink_apply_sink(fcinfo, "apply()");
	RsinkCounts counts = {{0}};
	RsinkEvent	event = {0};
	RsinkApply *apply;

	set_bytes(PG_ARGISNULL(1) ? NULL : (struct varlena *) PG_GETARG_TEXT_PP(1),
			  &event.order_id, &event.order_len);
	set_bytes(PG_ARGISNULL(2) ? NULL : (struct varlena *) PG_GETARG_TEXT_PP(2),
			  &event.event_id, &event.event_len);
	event.time_isnull = PG_ARGISNULL(3);
	event.event_time = event.time_isnull ? 0 : PG_GETARG_TIMESTAMPTZ(3);
	event.amount = PG_ARGISNULL(4) ? NULL : PG_GETARG_NUMERIC(4);
	set_bytes(PG_ARGISNULL(5) ? NULL : (struct varlena *) PG_GETARG_TEXT_PP(5),
			  &event.group_key, &event.group_len);
	apply = rsink_apply_begin(sink, false);
	rsink_apply_events(apply, &event, 1);
	rsink_apply_end(apply, &counts);
	PG_RETURN_TEXT_P(cstring_to_text(rsink_status_name[event.status]));
}

/* Which event of the jsonb argument is being read, for error messages. */
typedef struct JsonPosition
{
	int64		position;		/* counted from 1 */
	const char *key;			/* NULL: no value is being read */
} JsonPosition;

static void
json_context(void *arg)
{
	const JsonPosition *at = arg;

	if (at->key)
		errcontext("key \"%s\" of the event at position %lld", at->key, (long long) at->position);
}

/*
 * A scalar value of an event as text that isn't terminated; NULL for a JSON null.
 * Raises invalid_parameter_value for anything but a string or a number.
 */
static char *
json_scalar(const JsonbValue *value, int *len)
{
	char	   *string;

	switch (value->type)
	{
		case jbvNull:
			*len = 0;
			return NULL;
		case jbvString:
			*len = value->val.string.len;
			return value->val.string.val;
		case jbvNumeric:
			string = DatumGetCString(DirectFunctionCall1(numeric_out,
														 NumericGetDatum(value->val.numeric)));
			*len = (int) strlen(string);
			return string;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("an event's values must be strings or numbers")));
	}
}

/* The value of a key; a JSON null if the object lacks the key. */
static JsonbValue *
json_get(JsonbContainer *object, const char *key, JsonPosition *at, JsonbValue *value)
{
	at->key = key;
	if (getKeyJsonValueFromContainer(object, key, (int) strlen(key), value) == NULL)
		value->type = jbvNull;
	return value;
}

/* Read an event from its object, with the input functions of the columns' types. */
static void
json_event(JsonbContainer *object, RsinkEvent *event, JsonPosition *at)
{
	JsonbValue	value;
	char	   *string;
	int			len;

	memset(event, 0, sizeof(RsinkEvent));
	event->order_id = json_scalar(json_get(object, "order_id", at, &value), &event->order_len);
	event->event_id = json_scalar(json_get(object, "event_id", at, &value), &event->event_len);
	event->group_key = json_scalar(json_get(object, "group_key", at, &value), &event->group_len);
	string = json_scalar(json_get(object, "event_time", at, &value), &len);
	event->time_isnull = string == NULL;
	if (string != NULL)
		event->event_time = DatumGetTimestampTz(
												DirectFunctionCall3(timestamptz_in,
																	CStringGetDatum(pnstrdup(string, len)),
																	ObjectIdGetDatum(InvalidOid),
																	Int32GetDatum(-1)));
	json_get(object, "amount", at, &value);
	if (value.type == jbvNumeric)
		event->amount = value.val.numeric;
	else if ((string = json_scalar(&value, &len)) != NULL)
		event->amount = DatumGetNumeric(DirectFunctionCall3(numeric_in,
															CStringGetDatum(pnstrdup(string, len)),
															ObjectIdGetDatum(InvalidOid),
															Int32GetDatum(-1)));
	at->key = NULL;
}

/*
 * apply(sink, events jsonb)
 *
 * "events" is an object, or an array of objects. Keys that are not columns of an
 * event are ignored.
 */
Datum
revenue_sink_apply_jsonb(PG_FUNCTION_ARGS)
{
	RsinkSink  *sink = rsink_apply_sink(fcinfo, "apply()");
	RsinkCounts counts = {{0}};
	JsonPosition at = {0};
	ErrorContextCallback callback;
	JsonbContainer *root;
	MemoryContext portion;
	RsinkApply *apply;
	RsinkEvent *events;
	int			total;
	int			n = 0;

	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("events must not be null"),
				 errhint("For a call without events, pass an empty array.")));
	root = &PG_GETARG_JSONB_P(1)->root;
	if (JsonContainerIsScalar(root))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("events must be a JSON object or an array of objects")));
	total = JsonContainerIsObject(root) ? 1 : JsonContainerSize(root);

	callback.callback = json_context;
	callback.arg = &at;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	apply = rsink_apply_begin(sink, false);
	events = palloc(Max(1, Min(total, RSINK_PORTION_MAX)) * sizeof(RsinkEvent));
	portion = AllocSetContextCreate(CurrentMemoryContext, "revenue_sink json", ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; i < total; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(portion);
		JsonbContainer *object = root;

		at.position = i + 1;
		if (!JsonContainerIsObject(root))
		{
			JsonbValue *element = getIthJsonbValueFromContainer(root, i);

			if (element->type != jbvBinary || !JsonContainerIsObject(element->val.binary.data))
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("event at position %d is not a JSON object", i + 1)));
			object = element->val.binary.data;
		}
		json_event(object, &events[n++], &at);
		MemoryContextSwitchTo(old);
		if (n == RSINK_PORTION_MAX || i == total - 1)
		{
			rsink_apply_events(apply, events, n);
			MemoryContextReset(portion);
			n = 0;
		}
	}
	rsink_apply_end(apply, &counts);
	error_context_stack = callback.previous;
	return rsink_counts_record(fcinfo, &counts);
}
