/*-------------------------------------------------------------------------
 *
 * truth.h
 *	  What the minutes of a log must add up to, computed without the sink.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DEMO_TRUTH_H
#define DEMO_TRUTH_H

#include "log.h"

/* Sums of 10^-8, for which 64 bits might be too few. */
typedef __int128 Amount;

typedef struct Total
{
	int64_t		minute;			/* minutes since 1970 */
	const char *group_key;		/* not terminated */
	int			group_len;
	Amount		revenue;
	int64_t		events;
} Total;

typedef struct Truth
{
	Total	   *total;			/* by minute, then group key */
	int64_t		ntotals;
	int64_t		delivered;
	int64_t		distinct;
	int64_t		conflicting;	/* the same ids with other contents */
} Truth;

extern void truth_compute(const char *dir, Truth *truth);
extern int	total_compare(const void *a, const void *b);

#endif							/* DEMO_TRUTH_H */
