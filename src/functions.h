/*-------------------------------------------------------------------------
 *
 * functions.h
 *	  Arguments of SQL functions: sinks, and arrays as columns of a batch.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_FUNCTIONS_H
#define RSINK_FUNCTIONS_H

#include "fmgr.h"
#include "utils/array.h"

#include "sink.h"

/* An array that is read from front to back. */
typedef struct RsinkColumn
{
	ArrayType  *array;
	int			length;
	int			position;
	char	   *next;
	bits8	   *nulls;
} RsinkColumn;

extern RsinkSink *rsink_sink_argument(FunctionCallInfo fcinfo, int argno, RsinkRight right);
extern void rsink_column_open(RsinkColumn *column, FunctionCallInfo fcinfo, int argno,
							  const char *name, int length);
extern struct varlena *rsink_column_varlena(RsinkColumn *column);
extern int64 rsink_column_int64(RsinkColumn *column, bool *isnull);

#endif							/* RSINK_FUNCTIONS_H */
