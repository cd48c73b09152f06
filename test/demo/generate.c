/*-------------------------------------------------------------------------
 *
 * generate.c
 *	  Order events of an hour, made up from a seed.
 *
 * Event i of a seed is a function of (seed, i), so that any event can be
 * delivered again at any time. Each DUPLICATE_EVERY-th delivery is one that
 * was there before, as a producer's retry makes it: soon after in the same
 * partition, soon after in another one, or anywhere, however long after.
 *
 *-------------------------------------------------------------------------
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "log.h"

#define MINUTES 60
#define DUPLICATE_EVERY 20
#define EVENTS_AN_ORDER 3
#define DISORDER_SECONDS 40
#define ORDER_ID_LEN 12
#define UUID_LEN 36

typedef struct Generator
{
	uint64_t	seed;
	int64_t		base;			/* seconds since 1970, a full minute */
	int64_t		ndistinct;
	int64_t		load[MINUTES + 1];	/* parts of the stream before each minute */
} Generator;

static uint64_t
hash_pair(uint64_t a, uint64_t b)
{
	uint64_t	pair[2] = {a, b};

	return hash_bytes(0, pair, sizeof(pair));
}

/* An hour with an ebb, a flow and a rush in it. */
static void
shape_hour(Generator *g)
{
	g->load[0] = 0;
	for (int m = 0; m < MINUTES; m++)
	{
		int			weight = 40 + 2 * (m < 36 ? m : 72 - m);

		if (m >= 22 && m < 27)
			weight += 60;
		g->load[m + 1] = g->load[m] + weight;
	}
}

/* Microseconds from the base at which event i of the stream happens. */
static int64_t
event_offset(const Generator *g, int64_t i, uint64_t random)
{
	int64_t		hour = INT64_C(60000000) * MINUTES;
	double		place = (double) i / (double) g->ndistinct * (double) g->load[MINUTES];
	int64_t		offset;
	int			m = 0;

	while (place >= (double) g->load[m + 1])
		m++;
	offset = (int64_t) (((double) m + (place - (double) g->load[m]) /
						 (double) (g->load[m + 1] - g->load[m])) * 60000000);
	offset += (int64_t) (random % (DISORDER_SECONDS * UINT64_C(1000000))) -
		DISORDER_SECONDS * INT64_C(500000);
	if (offset < 0)
		return -offset;
	return offset < hour ? offset : 2 * hour - 1 - offset;
}

static void
make_uuid(char *out, uint64_t high, uint64_t low)
{
	static const char hex[] = "0123456789abcdef";
	uint64_t	half[2];

	half[0] = (high & ~UINT64_C(0xF000)) | 0x4000;	/* version 4 */
	half[1] = (low & ~(UINT64_C(3) << 62)) | UINT64_C(1) << 63;
	for (int k = 0; k < 32; k++)
	{
		if (k == 8 || k == 12 || k == 16 || k == 20)
			*out++ = '-';
		*out++ = hex[half[k / 16] >> (60 - 4 * (k % 16)) & 15];
	}
}

/* Event i, its strings in the buffer. */
static void
make_event(const Generator *g, int64_t i, char *buffer, Event *event)
{
	uint64_t	random = hash_pair(g->seed, 2 * (uint64_t) i);
	uint64_t	more = hash_pair(g->seed, 2 * (uint64_t) i + 1);
	int64_t		order = i / EVENTS_AN_ORDER;
	int64_t		cents = (int64_t) (more % 20000) + 1;

	memset(event, 0, sizeof(*event));
	event->order_id = buffer;
	event->order_len = ORDER_ID_LEN;
	event->event_id = buffer + ORDER_ID_LEN;
	event->event_len = UUID_LEN;
	event->group_key = "";

	memcpy(buffer, "ord-00000000", ORDER_ID_LEN);
	for (int k = ORDER_ID_LEN - 1; order > 0 && k >= 4; k--, order /= 10)
		buffer[k] = (char) ('0' + order % 10);
	make_uuid(buffer + ORDER_ID_LEN, random, more);

	event->time = g->base * 1000000 + event_offset(g, i, random);
	if (random >> 59 == 0)
		cents = -cents;			/* a refund, one of 32 */
	event->amount = cents * (AMOUNT_UNIT / 100);
}

void
generate(const char *dir, int64_t nevents, uint64_t seed, int64_t base)
{
	LogWriter  *log = log_create(dir);
	Generator	g = {.seed = seed, .base = base};
	int64_t		next = 0;
	char		buffer[ORDER_ID_LEN + UUID_LEN];
	Event		event;

	g.ndistinct = nevents - nevents / DUPLICATE_EVERY;
	shape_hour(&g);
	for (int64_t k = 1; k <= nevents; k++)
	{
		uint64_t	random = hash_pair(~seed, (uint64_t) k);
		uint64_t	kind = random % 8;
		int64_t		back;
		int			partition;

		if (k % DUPLICATE_EVERY != 0)
		{
			make_event(&g, next++, buffer, &event);
			log_append(log, log_partition_of(event.order_id, event.order_len), &event);
			continue;
		}

		random >>= 8;
		back = kind < 5 ? 100 : next;	/* soon after, or however long after */
		if (back > next)
			back = next;
		make_event(&g, next - 1 - (int64_t) (random % (uint64_t) back), buffer, &event);
		partition = log_partition_of(event.order_id, event.order_len);
		if (kind % 2 == 1)
			partition = (partition + 1 + (int) (random >> 32) % (PARTITIONS - 1)) % PARTITIONS;
		log_append(log, partition, &event);
	}
	log_close(log);
	printf("%" PRId64 " %d\n", nevents, MINUTES * 60);
}
