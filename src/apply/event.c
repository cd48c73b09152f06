/*-------------------------------------------------------------------------
 *
 * event.c
 *	  Events, their statuses, and sorting them by fingerprint.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "apply/event.h"
#include "apply/fingerprint.h"
#include "core/compat.h"

/* The names of the statuses in SQL. */
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
 * Sort n keys by fingerprint, and keys with equal fingerprints by position.
 * "scratch" is another array of n keys. Returns the sorted array, which is either
 * keys or scratch.
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

static Datum
text_datum(const char *string, int len, bool *isnull)
{
	*isnull = string == NULL;
	return *isnull ? (Datum) 0 : PointerGetDatum(cstring_to_text_with_len(string, len));
}

/*
 * Values for the five columns order_id, event_id, event_time, amount and group_key,
 * which the tables of deferred events and of dead letters have in common.
 */
void
rsink_event_values(const RsinkEvent *event, Datum *values, bool *nulls)
{
	values[0] = text_datum(event->order_id, event->order_len, &nulls[0]);
	values[1] = text_datum(event->event_id, event->event_len, &nulls[1]);
	values[2] = TimestampTzGetDatum(event->event_time);
	nulls[2] = event->time_isnull;
	values[3] = NumericGetDatum(event->amount);
	nulls[3] = event->amount == NULL;
	values[4] = text_datum(event->group_key ? event->group_key : "", event->group_len, &nulls[4]);
}
