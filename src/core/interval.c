/*-------------------------------------------------------------------------
 *
 * interval.c
 *	  Intervals of fixed length: the values of some settings of a sink.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/int.h"
#include "datatype/timestamp.h"

#include "core/interval.h"

/*
 * The length of an interval in microseconds. Raises invalid_parameter_value for an
 * interval with months or years, and for a negative or an infinite one; "what"
 * names the argument in the message.
 */
int64
rsink_interval_usecs(const Interval *interval, const char *what)
{
	int64		usecs;

	if (interval->month != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a fixed length of time", what),
				 errhint("Months and years vary in length; use days, hours or minutes.")));
	if (pg_mul_s64_overflow(interval->day, USECS_PER_DAY, &usecs) ||
		pg_add_s64_overflow(usecs, interval->time, &usecs) || usecs < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is out of range", what)));
	return usecs;
}

