/*-------------------------------------------------------------------------
 *
 * amount.h
 *	  Exact sums of numeric amounts, without a numeric operation per event.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_AMOUNT_H
#define RSINK_AMOUNT_H

#include "utils/numeric.h"

/* Bytes that rsink_amount_receive() needs for a numeric. */
#define RSINK_AMOUNT_BYTES 24

/* A running sum. Zeroed memory is an empty one. */
typedef struct RsinkSum
{
	int128		fixed;			/* the part kept in units of 10^-8 */
	int			scale;			/* digits to show after the point */
	Numeric		rest;			/* the part that doesn't fit, or NULL */
} RsinkSum;

extern bool rsink_amount_is_finite(Numeric amount);
extern bool rsink_amount_is_huge(Numeric amount);
extern void rsink_sum_add(RsinkSum *sum, Numeric amount);
extern Numeric rsink_sum_result(const RsinkSum *sum);
extern int	rsink_amount_canonical(Numeric amount, char *buf, int size);
extern Numeric rsink_amount_receive(const char *wire, int len, void *buf);

#endif							/* RSINK_AMOUNT_H */
