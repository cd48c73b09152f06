/*-------------------------------------------------------------------------
 *
 * histogram.c
 *	  How long calls took: any number of them in a fixed amount of memory.
 *
 *-------------------------------------------------------------------------
 */
#include "histogram.h"

/* By how many bits the values of a bucket are shortened. */
static int
shift_of(uint64_t micros)
{
	int			bits = 64 - __builtin_clzll(micros | 1);

	return bits > BUCKET_BITS + 1 ? bits - BUCKET_BITS - 1 : 0;
}

/* Add the time that a call took. */
void
histogram_add(Histogram *h, double seconds)
{
	int64_t		micros = seconds > 0 ? (int64_t) (seconds * 1e6) : 0;
	int			shift = shift_of((uint64_t) micros);

	h->n++;
	h->bucket[(shift << BUCKET_BITS) + (int) (micros >> shift)]++;
	if (micros > h->worst)
		h->worst = micros;
}

/* Add all calls of another histogram. */
void
histogram_merge(Histogram *h, const Histogram *other)
{
	h->n += other->n;
	if (other->worst > h->worst)
		h->worst = other->worst;
	for (int i = 0; i < BUCKETS; i++)
		h->bucket[i] += other->bucket[i];
}

/*
 * The time in milliseconds that a part of the calls, 0.99 for example, did not exceed;
 * 1 gives the worst, and no calls give 0.
 */
double
histogram_quantile(const Histogram *h, double part)
{
	int64_t		below = 0;

	for (int i = 0; i < BUCKETS; i++)
	{
		int			shift = (i >> BUCKET_BITS) > 0 ? (i >> BUCKET_BITS) - 1 : 0;
		int64_t		last = (((int64_t) (i - (shift << BUCKET_BITS)) + 1) << shift) - 1;

		below += h->bucket[i];
		if ((double) below >= part * (double) h->n)
			return (double) (last < h->worst ? last : h->worst) / 1000;
	}
	return (double) h->worst / 1000;
}
