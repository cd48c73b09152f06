/*-------------------------------------------------------------------------
 *
 * arrays.c
 *	  Events as the binary arrays that revenue_sink.apply() takes.
 *
 * Text would do as well; binary spares the server the parsing. An array on
 * the wire is a header and, for each element, its length and its bytes, all
 * in network byte order.
 *
 *-------------------------------------------------------------------------
 */
#include <endian.h>
#include <string.h>

#include "arrays.h"

/* Microseconds from 1970 to PostgreSQL's 2000-01-01. */
#define PG_EPOCH INT64_C(946684800000000)

/* Built-in types' numbers, which never change. */
#define TEXTOID 25
#define TIMESTAMPTZOID 1184
#define NUMERICOID 1700

#define NBASE 10000				/* a digit of a numeric is less than this */
#define NUMERIC_DIGITS 5		/* an amount has three before the point, two after */
#define NUMERIC_NEG 0x4000

static const uint32_t element_type[NARRAYS] =
{TEXTOID, TEXTOID, TIMESTAMPTZOID, NUMERICOID, TEXTOID};

static char *
reserve(Array *array, size_t more)
{
	if (array->len + more > array->size)
	{
		array->size = 2 * (array->len + more);
		array->data = must_alloc(array->data, array->size);
	}
	array->len += more;
	return array->data + array->len - more;
}

static void
put16(char **p, int value)
{
	uint16_t	be = htobe16((uint16_t) value);

	memcpy(*p, &be, sizeof(be));
	*p += sizeof(be);
}

static void
put32(char **p, uint32_t value)
{
	uint32_t	be = htobe32(value);

	memcpy(*p, &be, sizeof(be));
	*p += sizeof(be);
}

static void
add_text(Array *array, const char *text, int len)
{
	char	   *p = reserve(array, 4 + (size_t) len);

	put32(&p, (uint32_t) len);
	memcpy(p, text, (size_t) len);
}

static void
add_time(Array *array, int64_t time)
{
	char	   *p = reserve(array, 12);
	uint64_t	be = htobe64((uint64_t) (time - PG_EPOCH));

	put32(&p, 8);
	memcpy(p, &be, sizeof(be));
}

/* All five digits each time: the server drops zeros at either end. */
static void
add_amount(Array *array, int64_t amount)
{
	char	   *p = reserve(array, 12 + 2 * NUMERIC_DIGITS);
	uint64_t	rest = amount < 0 ? -(uint64_t) amount : (uint64_t) amount;
	int			digit[NUMERIC_DIGITS];

	for (int i = NUMERIC_DIGITS - 1; i >= 0; i--, rest /= NBASE)
		digit[i] = (int) (rest % NBASE);

	put32(&p, 8 + 2 * NUMERIC_DIGITS);
	put16(&p, NUMERIC_DIGITS);
	put16(&p, 2);				/* weight of the first digit */
	put16(&p, amount < 0 ? NUMERIC_NEG : 0);
	put16(&p, digit[4] == 0 && digit[3] % 100 == 0 ? 2 : AMOUNT_DECIMALS);	/* decimals shown */
	for (int i = 0; i < NUMERIC_DIGITS; i++)
		put16(&p, digit[i]);
}

/* Empty them, room left for the headers. */
void
arrays_reset(Arrays *arrays)
{
	arrays->nevents = 0;
	arrays->grouped = false;
	for (int i = 0; i < NARRAYS; i++)
	{
		arrays->array[i].len = 0;
		reserve(&arrays->array[i], 20);
	}
}

void
arrays_add(Arrays *arrays, const Event *event)
{
	add_text(&arrays->array[0], event->order_id, event->order_len);
	add_text(&arrays->array[1], event->event_id, event->event_len);
	add_time(&arrays->array[2], event->time);
	add_amount(&arrays->array[3], event->amount);
	add_text(&arrays->array[4], event->group_key, event->group_len);
	arrays->grouped |= event->group_len > 0;
	arrays->nevents++;
}

/* The headers: one dimension, no NULLs, type, length, lower bound. */
void
arrays_finish(Arrays *arrays)
{
	for (int i = 0; i < NARRAYS; i++)
	{
		char	   *p = arrays->array[i].data;

		put32(&p, 1);
		put32(&p, 0);
		put32(&p, element_type[i]);
		put32(&p, (uint32_t) arrays->nevents);
		put32(&p, 1);
	}
}
