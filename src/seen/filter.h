/*-------------------------------------------------------------------------
 *
 * filter.h
 *	  Filters: does a slice of sealed events have this fingerprint? "No" is certain.
 *
 * This is a blocked Bloom filter (Putze, Sanders and Singler, 2007): a fingerprint
 * has all of its bits in one cache line. The line follows from the upper half of the
 * fingerprint and grows with it, so that sorted fingerprints walk a filter in order;
 * the bits follow from the lower half.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_FILTER_H
#define RSINK_FILTER_H

#include "apply/fingerprint.h"

/* A line of a filter is a cache line. */
#define RSINK_LINE_BYTES 64
#define RSINK_LINE_WORDS (RSINK_LINE_BYTES / sizeof(uint64))

/*
 * Bits of a filter per fingerprint, and how many of them a fingerprint sets. Filters are
 * in the tables, so these may not change.
 */
#define RSINK_FILTER_BITS 12
#define RSINK_FILTER_PROBES 6

/* The number of lines that a filter of so many fingerprints has. */
static inline uint32
rsink_filter_lines(int64 fingerprints)
{
	return (uint32) (fingerprints * RSINK_FILTER_BITS / (8 * RSINK_LINE_BYTES) + 1);
}

/* Which of the lines of a filter a fingerprint belongs to. */
static inline uint32
rsink_filter_line(const RsinkFingerprint *fp, uint32 nlines)
{
	/* the upper 32 bits suffice, as a filter has fewer lines by far */
	return (uint32) (((fp->hi >> 32) * nlines) >> 32);
}

/* Set the bits of a fingerprint in its line. */
static inline void
rsink_filter_set(uint64 *line, const RsinkFingerprint *fp)
{
	uint64		bits = fp->lo;

	for (int i = 0; i < RSINK_FILTER_PROBES; i++, bits >>= 9)
		line[bits >> 6 & 7] |= UINT64CONST(1) << (bits & 63);
}

/*
 * May a fingerprint be among those whose bits are set in its line? The line need not be
 * aligned.
 */
static inline bool
rsink_filter_has(const void *line, const RsinkFingerprint *fp)
{
	uint64		bits = fp->lo;

	for (int i = 0; i < RSINK_FILTER_PROBES; i++, bits >>= 9)
	{
		uint64		word;

		memcpy(&word, (const char *) line + (bits >> 6 & 7) * sizeof(uint64), sizeof(uint64));
		if ((word >> (bits & 63) & 1) == 0)
			return false;
	}
	return true;
}

#endif							/* RSINK_FILTER_H */
