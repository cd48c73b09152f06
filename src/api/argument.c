/*-------------------------------------------------------------------------
 *
 * argument.c
 *	  Arguments and results of SQL functions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/tupmacs.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"

#include "api/argument.h"
#include "apply/event.h"
#include "core/compat.h"
#include "core/lock.h"
#include "sink/choice.h"
#include "sink/right.h"
#include "sink/sink.h"
#include "twophase/unpreparable.h"

/* Raise null_value_not_allowed if the argument is NULL; "name" is for the message. */
void
rsink_require_argument(FunctionCallInfo fcinfo, int argno, const char *name)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
}

/*
 * The name of a job or a writer, as a C string. Raises null_value_not_allowed for
 * NULL, and name_too_long for more than RSINK_ID_MAX bytes.
 */
char *
rsink_name_argument(FunctionCallInfo fcinfo, int argno, const char *name)
{
	char	   *value;

	rsink_require_argument(fcinfo, argno, name);
	value = text_to_cstring(PG_GETARG_TEXT_PP(argno));
	if (strlen(value) > RSINK_ID_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("%s is longer than %d bytes", name, RSINK_ID_MAX),
				 errdetail("The value begins with \"%s\".", pnstrdup(value, pg_mbcliplen(value, strlen(value), 40)))));
	return value;
}

/*
 * Raise active_sql_transaction unless the procedure runs by a CALL of its own,
 * outside a transaction block, so that it may commit.
 */
void
rsink_require_nonatomic(FunctionCallInfo fcinfo, const char *call)
{
	if (fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
		castNode(CallContext, fcinfo->context)->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s cannot run inside a transaction block", call),
				 errhint("Call the procedure with autocommit on, as a statement of its own.")));
}

/*
 * The sink that an argument names. Raises null_value_not_allowed for NULL, and
 * the errors of rsink_sink_lookup().
 */
RsinkSink *
rsink_sink_argument(FunctionCallInfo fcinfo, int argno, RsinkRight right)
{
	rsink_require_argument(fcinfo, argno, "sink");
	return rsink_sink_lookup(text_to_cstring(PG_GETARG_TEXT_PP(argno)), right);
}

/*
 * The sink that the first argument names, for a call that applies events; "call" names
 * the function. Raises the errors of rsink_sink_argument(), an error unless the mode is
 * 'events', and read_only_sql_transaction.
 */
RsinkSink *
rsink_apply_sink(FunctionCallInfo fcinfo, const char *call)
{
	RsinkSink  *sink = rsink_sink_argument(fcinfo, 0, RSINK_MAY_APPLY);

	rsink_sink_require_mode(sink, RSINK_EVENTS);
	PreventCommandIfReadOnly(call);
	PreventCommandDuringRecovery(call);
	return sink;
}

/*
 * The sink that the first argument names, for a call of its owner that does what no
 * worker may do meanwhile. Waits for the maintenance lock and holds it until the end of
 * the transaction, which must not be prepared. "call" names the function, in static
 * memory. Raises the errors of rsink_sink_argument(), and read_only_sql_transaction.
 */
RsinkSink *
rsink_maintained_sink(FunctionCallInfo fcinfo, const char *call)
{
	RsinkSink  *sink = rsink_sink_argument(fcinfo, 0, RSINK_IS_OWNER);

	PreventCommandIfReadOnly(call);
	PreventCommandDuringRecovery(call);
	rsink_forbid_prepare(call);
	rsink_maintenance_lock(sink, true);
	return sink;
}

/*
 * Start reading an array argument. "length" is the number of elements that it must
 * have, or -1 for any. Raises null_value_not_allowed for NULL, and
 * array_subscript_error for another length and for more than one dimension.
 */
void
rsink_column_open(RsinkColumn *column, FunctionCallInfo fcinfo, int argno,
				  const char *name, int length)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("array %s must not be null", name),
				 errhint("Pass arrays of equal length; for a call without rows, pass empty arrays.")));
	column->array = PG_GETARG_ARRAYTYPE_P(argno);
	if (ARR_NDIM(column->array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("array %s must have one dimension, not %d", name, ARR_NDIM(column->array))));
	column->length = ArrayGetNItems(ARR_NDIM(column->array), ARR_DIMS(column->array));
	if (length >= 0 && column->length != length)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("array %s has %d elements, but the first array has %d", name,
						column->length, length),
				 errhint("An event is one element of each array.")));
	column->next = ARR_DATA_PTR(column->array);
	column->nulls = ARR_NULLBITMAP(column->array);
	column->position = 0;
}

/* Go on to the next element; is it NULL? */
static inline bool
column_is_null(RsinkColumn *column)
{
	int			i = column->position++;

	return column->nulls != NULL && (column->nulls[i / 8] & (1 << (i % 8))) == 0;
}

/*
 * The next element of an array of text or numeric, as it lies in the array. A null
 * pointer stands for an SQL NULL.
 */
struct varlena *
rsink_column_varlena(RsinkColumn *column)
{
	char	   *value;

	if (column_is_null(column))
		return NULL;
	value = (char *) att_align_pointer(column->next, TYPALIGN_INT, -1, column->next);
	column->next = value + VARSIZE_ANY(value);
	return (struct varlena *) value;
}

/* The next element of an array of bigint or timestamptz; 0 if it is NULL. */
int64
rsink_column_int64(RsinkColumn *column, bool *isnull)
{
	int64		value;

	if ((*isnull = column_is_null(column)))
		return 0;
	column->next = (char *) att_align_nominal(column->next, TYPALIGN_DOUBLE);
	memcpy(&value, column->next, sizeof(value));
	column->next += sizeof(value);
	return value;
}

/* The next element of an array of integer; 0 if it is NULL. */
int32
rsink_column_int32(RsinkColumn *column, bool *isnull)
{
	int32		value;

	if ((*isnull = column_is_null(column)))
		return 0;
	memcpy(&value, column->next, sizeof(value));
	column->next += sizeof(value);
	return value;
}

/* The row type that a function returns, or that a procedure's INOUT arguments form. */
TupleDesc
rsink_result_desc(FunctionCallInfo fcinfo)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	return BlessTupleDesc(desc);
}

/* The result of apply(): one row with a count per status. */
Datum
rsink_counts_record(FunctionCallInfo fcinfo, const RsinkCounts *counts)
{
	Datum		values[RSINK_NSTATUS];
	bool		nulls[RSINK_NSTATUS] = {false};

	for (int i = 0; i < RSINK_NSTATUS; i++)
		values[i] = Int64GetDatum(counts->n[i]);
	return HeapTupleGetDatum(heap_form_tuple(rsink_result_desc(fcinfo), values, nulls));
}

/* A row whose only column has this value, which is not NULL. */
Datum
rsink_one_column(TupleDesc desc, Datum value)
{
	bool		isnull = false;

	return HeapTupleGetDatum(heap_form_tuple(desc, &value, &isnull));
}
