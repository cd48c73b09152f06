/*-------------------------------------------------------------------------
 *
 * events.c
 *	  The events of the benchmark and the soak test, encoded for the wire.
 *
 *-------------------------------------------------------------------------
 */
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "events.h"

/* Seconds from 1970 to PostgreSQL's 2000-01-01. */
#define PG_EPOCH INT64_C(946684800)

/* Built-in types' numbers, which never change. */
#define TEXTOID 25
#define TIMESTAMPTZOID 1184
#define NUMERICOID 1700

static const int type_oid[NARRAYS] = {TEXTOID, TEXTOID, TIMESTAMPTZOID, NUMERICOID};

int64_t		base_epoch;
int64_t		stream_length = 1;
int			minutes = MINUTES;
int			spread = 60 * MINUTES;

/* One step of splitmix64. */
static uint64_t
mix(uint64_t x)
{
	x += UINT64_C(0x9E3779B97F4A7C15);
	x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
	return x ^ (x >> 31);
}

/*
 * Microseconds after the base at which event i happens: the stream goes through
 * its minutes in order, each event up to "spread" late. At a spread of all, in no
 * order whatever.
 */
int64_t
event_offset(int64_t i, uint64_t random)
{
	int64_t		length = (int64_t) minutes * 60000000;
	int64_t		late = (int64_t) spread * 1000000;

	if (late > length)
		late = length;
	return (int64_t) ((double) (i % stream_length) / (double) stream_length * (double) (length - late)) +
		(int64_t) (random % (uint64_t) late);
}

/* Make event i of a set. An order has two events, next to each other in the stream. */
void
event_make(unsigned set, int64_t i, Event *event)
{
	static const char hex[] = "0123456789abcdef";
	static const char base32[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
	uint64_t	seed = (uint64_t) set << 40 | (uint64_t) i;
	uint64_t	order = mix(~((uint64_t) set << 40 | (uint64_t) i / 2));
	uint64_t	half[2] = {mix(2 * seed), mix(2 * seed + 1)};
	uint64_t	rest = mix(half[0] ^ half[1]);
	char	   *out = event->event_id;

	for (int k = 0; k < ORDER_LEN; k++, order >>= 5)
		event->order_id[k] = base32[order & 31];

	half[0] = (half[0] & ~UINT64_C(0xF000)) | 0x4000;
	half[1] = (half[1] & ~(UINT64_C(3) << 62)) | UINT64_C(1) << 63;
	for (int k = 0; k < 32; k++)
	{
		if (k == 8 || k == 12 || k == 16 || k == 20)
			*out++ = '-';
		*out++ = hex[half[k / 16] >> (60 - 4 * (k % 16)) & 15];
	}

	event->time = base_epoch * 1000000 + event_offset(i, rest);
	event->cents = (int64_t) (mix(rest) % 99999) + 1;
	if (mix(rest) >> 58 == 0)
		event->cents = -event->cents;	/* a refund */
}

static char *
put16(char *p, int v)
{
	uint16_t	be = htobe16((uint16_t) v);

	memcpy(p, &be, sizeof(be));
	return p + sizeof(be);
}

static char *
put32(char *p, int v)
{
	uint32_t	be = htobe32((uint32_t) v);

	memcpy(p, &be, sizeof(be));
	return p + sizeof(be);
}

static char *
put_bytes(char *p, const char *bytes, int len)
{
	p = put32(p, len);
	memcpy(p, bytes, len);
	return p + len;
}

static char *
put_time(char *p, int64_t time)
{
	uint64_t	be = htobe64((uint64_t) (time - PG_EPOCH * 1000000));

	return put_bytes(p, (char *) &be, sizeof(be));
}

/* A numeric in binary: digits of base 10000, at most two for us. */
static char *
put_amount(char *p, int64_t cents)
{
	int64_t		abs = cents < 0 ? -cents : cents;
	int			whole = (int) (abs / 100);
	int			fraction = (int) (abs % 100) * 100;
	int			ndigits = (whole != 0) + (fraction != 0);

	p = put32(p, 8 + 2 * ndigits);
	p = put16(p, ndigits);
	p = put16(p, whole != 0 ? 0 : -1);
	p = put16(p, cents < 0 ? 0x4000 : 0);
	p = put16(p, 2);
	if (whole != 0)
		p = put16(p, whole);
	if (fraction != 0)
		p = put16(p, fraction);
	return p;
}

static char *
put_array_header(char *p, int oid, int n)
{
	p = put32(p, 1);			/* dimensions */
	p = put32(p, 0);			/* no nulls */
	p = put32(p, oid);
	p = put32(p, n);
	return put32(p, 1);			/* lower bound */
}

static char *
put_column(char *p, int column, const Event *event)
{
	switch (column)
	{
		case 0:
			return put_bytes(p, event->order_id, ORDER_LEN);
		case 1:
			return put_bytes(p, event->event_id, UUID_LEN);
		case 2:
			return put_time(p, event->time);
		default:
			return put_amount(p, event->cents);
	}
}

/*
 * Empty a batch, which has been zeroed or used before, for so many events at most as
 * it had room for at first.
 */
void
batch_begin(Batch *batch, int room)
{
	batch->n = 0;
	for (int c = 0; c < NARRAYS; c++)
	{
		if (batch->array[c] == NULL)
			batch->array[c] = malloc(ARRAY_HEADER_LEN + (size_t) room * (4 + UUID_LEN));
		batch->array_len[c] = ARRAY_HEADER_LEN;
		put_array_header(batch->array[c], type_oid[c], 0);
	}
}

/* Add an event to the arrays of a batch, which are whole after each event. */
void
batch_add(Batch *batch, const Event *event)
{
	batch->n++;
	for (int c = 0; c < NARRAYS; c++)
	{
		char	   *end = put_column(batch->array[c] + batch->array_len[c], c, event);

		batch->array_len[c] = (int) (end - batch->array[c]);
		put_array_header(batch->array[c], type_oid[c], batch->n);
	}
}

static void
batch_make(Batch *batch, unsigned set, int64_t first, int n, Truth *truth)
{
	static const char header[ROWS_HEADER_LEN] = "PGCOPY\n\377\r\n\0";
	char	   *row;

	batch_begin(batch, n);
	row = batch->rows = malloc(ROWS_HEADER_LEN + (size_t) n * (2 + NARRAYS * 4 + ORDER_LEN + UUID_LEN + 8 + 12) +
							   ROWS_TRAILER_LEN);
	memcpy(row, header, ROWS_HEADER_LEN);
	row += ROWS_HEADER_LEN;
	for (int i = 0; i < n; i++)
	{
		Event		event;
		int			minute;

		event_make(set, first + i, &event);
		minute = (int) (event.time / 60000000 - base_epoch / 60);
		truth->cents[minute] += event.cents;
		truth->events[minute]++;
		batch_add(batch, &event);
		row = put16(row, NARRAYS);
		for (int c = 0; c < NARRAYS; c++)
			row = put_column(row, c, &event);
	}
	row = put16(row, -1);
	batch->rows_len = (size_t) (row - batch->rows);
}

/*
 * Make the events [first, first + n) of a set, in calls of at most so many,
 * and add them to the truth.
 */
Batch *
batches_make(unsigned set, int64_t first, int64_t n, int size, int *nbatches, Truth *truth)
{
	Batch	   *batches;
	int64_t		done = 0;

	*nbatches = (int) ((n + size - 1) / size);
	batches = calloc(*nbatches, sizeof(Batch));
	for (int b = 0; b < *nbatches; b++)
	{
		int			count = (int) (n - done < size ? n - done : size);

		batch_make(&batches[b], set, first + done, count, truth);
		done += count;
	}
	return batches;
}

void
batches_free(Batch *batches, int nbatches)
{
	for (int b = 0; b < nbatches; b++)
	{
		for (int c = 0; c < NARRAYS; c++)
			free(batches[b].array[c]);
		free(batches[b].rows);
	}
	free(batches);
}
