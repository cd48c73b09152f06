/*-------------------------------------------------------------------------
 *
 * argument.h
 *	  Arguments and results of SQL functions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_ARGUMENT_H
#define RSINK_ARGUMENT_H

#include "access/tupdesc.h"
#include "fmgr.h"
#include "utils/array.h"

#include "apply/event.h"
#include "sink/right.h"
#include "sink/sink.h"

/* An array argument, one column of events, that is read from front to back. */
typedef struct RsinkColumn
{
	ArrayType  *array;
	int			length;
	int			position;
	char	   *next;
	bits8	   *nulls;
} RsinkColumn;

extern void rsink_require_argument(FunctionCallInfo fcinfo, int argno, const char *name);
extern char *rsink_name_argument(FunctionCallInfo fcinfo, int argno, const char *name);
extern void rsink_require_nonatomic(FunctionCallInfo fcinfo, const char *call);
extern RsinkSink *rsink_sink_argument(FunctionCallInfo fcinfo, int argno, RsinkRight right);
extern RsinkSink *rsink_apply_sink(FunctionCallInfo fcinfo, const char *call);
extern RsinkSink *rsink_maintained_sink(FunctionCallInfo fcinfo, const char *call);
extern void rsink_column_open(RsinkColumn *column, FunctionCallInfo fcinfo, int argno,
							  const char *name, int length);
extern struct varlena *rsink_column_varlena(RsinkColumn *column);
extern int32 rsink_column_int32(RsinkColumn *column, bool *isnull);
extern int64 rsink_column_int64(RsinkColumn *column, bool *isnull);
extern TupleDesc rsink_result_desc(FunctionCallInfo fcinfo);
extern Datum rsink_counts_record(FunctionCallInfo fcinfo, const RsinkCounts *counts);
extern Datum rsink_one_column(TupleDesc desc, Datum value);

#endif							/* RSINK_ARGUMENT_H */
