/*-------------------------------------------------------------------------
 *
 * batch.c
 *	  Events as they come in, and what became of them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "batch.h"

const char *const rsink_status_name[RSINK_NSTATUS] = {
	"applied", "duplicate", "deferred", "conflict", "late", "rejected"
};

#define RADIX_BITS	 11
#define RADIX_SIZE	 (1 << RADIX_BITS)
#define RADIX_PASSES 3
#define SMALL_SORT	 64

static inline bool
key_precedes(const RsinkKey *a, const RsinkKey *b)
{
	int			cmp = rsink_fingerprint_cmp(&a->fp, &b->fp);

	return cmp < 0 || (cmp == 0 && a->position < b->position);
}

static void
insertion_sort(RsinkKey *keys, int n)
{
	for (int i = 1; i < n; i++)
	{
		RsinkKey	key = keys[i];
		int			j = i;

		for (; j > 0 && key_precedes(&key, &keys[j - 1]); j--)
			keys[j] = keys[j - 1];
		keys[j] = key;
	}
}

/*
 * Sort by fingerprint, equal ones by position. Returns the sorted array, which
 * is keys or scratch (of the same size).
 *
 * Fingerprints are uniform, so a radix sort of their upper 33 bits leaves
 * nearly nothing out of order, and an insertion sort does the rest.
 */
RsinkKey *
rsink_sort_keys(RsinkKey *keys, RsinkKey *scratch, int n)
{
	if (n > SMALL_SORT)
	{
		for (int pass = 0; pass < RADIX_PASSES; pass++)
		{
			int			shift = 64 - RADIX_BITS * (RADIX_PASSES - pass);
			uint32		start[RADIX_SIZE] = {0};
			uint32		sum = 0;
			RsinkKey   *swap = keys;

			for (int i = 0; i < n; i++)
				start[(keys[i].fp.hi >> shift) & (RADIX_SIZE - 1)]++;
			for (int i = 0; i < RADIX_SIZE; i++)
			{
				uint32		count = start[i];

				start[i] = sum;
				sum += count;
			}
			for (int i = 0; i < n; i++)
				scratch[start[(keys[i].fp.hi >> shift) & (RADIX_SIZE - 1)]++] = keys[i];
			keys = scratch;
			scratch = swap;
		}
	}
	insertion_sort(keys, n);
	return keys;
}
