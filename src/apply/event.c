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

/* A radix sort has two passes, so that its result is where the keys were. */
#define RADIX_BITS	 11
#define RADIX_SIZE	 (1 << RADIX_BITS)
#define RADIX_PASSES 2
#define SMALL_SORT	 64

/* Many keys are sorted in so many parts. */
#define PART_BITS	 8
#define NPARTS		 (1 << PART_BITS)

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
 * "scratch" is another array of n keys.
 *
 * Fingerprints are uniform, so a radix sort of their upper 22 bits leaves little out
 * of order, and an insertion sort does the rest.
 */
void
rsink_sort_keys(RsinkKey *keys, RsinkKey *scratch, int n)
{
	for (int pass = 0; pass < RADIX_PASSES && n > SMALL_SORT; pass++)
	{
		int			shift = 64 - RADIX_BITS * (RADIX_PASSES - pass);
		const RsinkKey *from = pass == 0 ? keys : scratch;
		RsinkKey   *to = pass == 0 ? scratch : keys;
		uint32		start[RADIX_SIZE] = {0};
		uint32		sum = 0;

		for (int i = 0; i < n; i++)
			start[(from[i].fp.hi >> shift) & (RADIX_SIZE - 1)]++;
		for (int i = 0; i < RADIX_SIZE; i++)
		{
			uint32		count = start[i];

			start[i] = sum;
			sum += count;
		}
		for (int i = 0; i < n; i++)
			to[start[(from[i].fp.hi >> shift) & (RADIX_SIZE - 1)]++] = from[i];
	}
	insertion_sort(keys, n);
}

/* The part that a key is put into before each part is sorted. */
static inline uint32
part_of(const RsinkKey *key)
{
	return (uint32) (key->fp.hi >> (64 - PART_BITS));
}

/*
 * Sort so many keys that the CPU's caches can't hold them. The keys are first moved,
 * within the array, into parts that the caches can hold.
 */
void
rsink_sort_many_keys(RsinkKey *keys, int n)
{
	int			next[NPARTS] = {0};
	int			end[NPARTS];
	int			sum = 0;
	int			largest = 0;
	RsinkKey   *scratch;

	for (int i = 0; i < n; i++)
		next[part_of(&keys[i])]++;
	for (int part = 0; part < NPARTS; part++)
	{
		int			count = next[part];

		largest = Max(largest, count);
		next[part] = sum;
		end[part] = sum += count;
	}
	for (uint32 part = 0; part < NPARTS; part++)
	{
		while (next[part] < end[part])
		{
			RsinkKey	key = keys[next[part]];
			uint32		home;

			/* each key that is put where it belongs frees the next one's place */
			while ((home = part_of(&key)) != part)
			{
				RsinkKey	other = keys[next[home]];

				keys[next[home]++] = key;
				key = other;
			}
			keys[next[part]++] = key;
		}
	}
	scratch = palloc(largest * sizeof(RsinkKey));
	for (int part = 0, from = 0; part < NPARTS; from = end[part++])
		rsink_sort_keys(keys + from, scratch, end[part] - from);
	pfree(scratch);
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
