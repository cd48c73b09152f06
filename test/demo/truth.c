/*-------------------------------------------------------------------------
 *
 * truth.c
 *	  What the minutes of a log must add up to, computed without the sink.
 *
 * Reads the whole log once and knows nothing of PostgreSQL: events are told
 * apart by comparing their ids in full, through a plain hash table that points
 * into the log, and added up as integers.
 *
 *-------------------------------------------------------------------------
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "truth.h"

#define MINUTE INT64_C(60000000)

/* A slot holds the address of a record and, above it, some bits of its hash. */
#define ADDRESS_BITS 48
#define ADDRESS_MASK ((UINT64_C(1) << ADDRESS_BITS) - 1)

typedef struct Known
{
	uint64_t   *slot;
	uint64_t	mask;
} Known;

typedef struct Totals
{
	Total	   *slot;			/* free where events is 0 */
	uint64_t	mask;
	int64_t		n;
} Totals;

static uint64_t
power_of_two_above(uint64_t n)
{
	uint64_t	size = 1024;

	while (size < n)
		size *= 2;
	return size;
}

static void *
zero_alloc(uint64_t n, size_t size)
{
	void	   *p = calloc(n, size);

	if (p == NULL)
		die("out of memory");
	return p;
}

static bool
same_ids(const Event *a, const Event *b)
{
	return a->order_len == b->order_len && a->event_len == b->event_len &&
		memcmp(a->order_id, b->order_id, (size_t) a->order_len) == 0 &&
		memcmp(a->event_id, b->event_id, (size_t) a->event_len) == 0;
}

static bool
same_contents(const Event *a, const Event *b)
{
	return a->time == b->time && a->amount == b->amount && a->group_len == b->group_len &&
		memcmp(a->group_key, b->group_key, (size_t) a->group_len) == 0;
}

/* Was there an event with these ids before? If not, this one is known now. */
static bool
known_before(Known *known, const char *at, const Event *event, Event *first)
{
	uint64_t	hash = hash_bytes((uint64_t) event->order_len, event->event_id, (size_t) event->event_len) ^
		hash_bytes(1, event->order_id, (size_t) event->order_len);
	uint64_t	tag = hash & ~ADDRESS_MASK;
	uint64_t	i;

	for (i = hash & known->mask; known->slot[i] != 0; i = (i + 1) & known->mask)
	{
		if ((known->slot[i] & ~ADDRESS_MASK) != tag)
			continue;
		log_read((const char *) (uintptr_t) (known->slot[i] & ADDRESS_MASK), first);
		if (same_ids(event, first))
			return true;
	}
	known->slot[i] = tag | (uint64_t) (uintptr_t) at;
	return false;
}

static Total *
find_total(Totals *totals, int64_t minute, const char *group_key, int group_len)
{
	uint64_t	i = hash_bytes((uint64_t) minute, group_key, (size_t) group_len) & totals->mask;
	Total	   *total;

	for (;; i = (i + 1) & totals->mask)
	{
		total = &totals->slot[i];
		if (total->events == 0)
			break;
		if (total->minute == minute && total->group_len == group_len &&
			memcmp(total->group_key, group_key, (size_t) group_len) == 0)
			break;
	}
	return total;
}

static void
grow(Totals *totals)
{
	Totals		old = *totals;

	totals->mask = 2 * old.mask + 1;
	totals->slot = zero_alloc(totals->mask + 1, sizeof(Total));
	for (uint64_t i = 0; i <= old.mask; i++)
	{
		Total	   *total = &old.slot[i];

		if (total->events > 0)
			*find_total(totals, total->minute, total->group_key, total->group_len) = *total;
	}
	free(old.slot);
}

static void
add(Totals *totals, const Event *event)
{
	int64_t		minute = event->time / MINUTE - (event->time % MINUTE < 0);
	Total	   *total = find_total(totals, minute, event->group_key, event->group_len);

	if (total->events == 0)
	{
		total->minute = minute;
		total->group_key = event->group_key;
		total->group_len = event->group_len;
		totals->n++;
	}
	total->revenue += event->amount;
	total->events++;
	if ((uint64_t) totals->n > totals->mask / 2)
		grow(totals);
}

/* By minute, then by the bytes of the group key, as COLLATE "C" sorts. */
int
total_compare(const void *a, const void *b)
{
	const Total *x = a;
	const Total *y = b;
	int			shorter = x->group_len < y->group_len ? x->group_len : y->group_len;
	int			order;

	if (x->minute != y->minute)
		return x->minute < y->minute ? -1 : 1;
	order = memcmp(x->group_key, y->group_key, (size_t) shorter);
	return order != 0 ? order : x->group_len - y->group_len;
}

void
truth_compute(const char *dir, Truth *truth)
{
	Partition	partition[PARTITIONS];
	Known		known;
	Totals		totals = {zero_alloc(1024, sizeof(Total)), 1023, 0};

	memset(truth, 0, sizeof(*truth));
	for (int p = 0; p < PARTITIONS; p++)
	{
		log_open(dir, p, &partition[p]);
		truth->delivered += partition[p].nevents;
	}
	known.mask = power_of_two_above((uint64_t) truth->delivered * 3 / 2) - 1;
	known.slot = zero_alloc(known.mask + 1, sizeof(uint64_t));

	for (int p = 0; p < PARTITIONS; p++)
	{
		const char *at = partition[p].data;

		while (at < partition[p].end)
		{
			Event		event;
			Event		first;
			const char *next = log_read(at, &event);

			if (!known_before(&known, at, &event, &first))
			{
				truth->distinct++;
				add(&totals, &event);
			}
			else if (!same_contents(&event, &first))
				truth->conflicting++;
			at = next;
		}
	}
	free(known.slot);

	/* The used slots to the front, in order. */
	for (uint64_t i = 0; i <= totals.mask; i++)
		if (totals.slot[i].events > 0)
			totals.slot[truth->ntotals++] = totals.slot[i];
	truth->total = totals.slot;
	qsort(truth->total, (size_t) truth->ntotals, sizeof(Total), total_compare);
}
