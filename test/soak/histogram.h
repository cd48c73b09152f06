/*-------------------------------------------------------------------------
 *
 * histogram.h
 *	  How long calls took: any number of them in a fixed amount of memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SOAK_HISTOGRAM_H
#define SOAK_HISTOGRAM_H

#include <stdint.h>

/* Each power of two of microseconds has this many buckets: an error of 1.6 %. */
#define BUCKET_BITS 6
#define BUCKETS ((64 - BUCKET_BITS) << BUCKET_BITS)

typedef struct Histogram
{
	int64_t		n;
	int64_t		worst;			/* microseconds, exactly */
	int64_t		bucket[BUCKETS];
} Histogram;

extern void histogram_add(Histogram *h, double seconds);
extern void histogram_merge(Histogram *h, const Histogram *other);
extern double histogram_quantile(const Histogram *h, double part);

#endif							/* SOAK_HISTOGRAM_H */
