/*-------------------------------------------------------------------------
 *
 * events.h
 *	  The events of the benchmark and the soak test, encoded for the wire.
 *
 * Event i of set s is a function of (s, i), so the same data can be had again
 * by every process of a run: an order id of 12 bytes, a UUID, a time in the
 * minutes from the base on and an amount.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BENCH_EVENTS_H
#define BENCH_EVENTS_H

#include <stddef.h>
#include <stdint.h>

#define MINUTES 60
#define NARRAYS 4				/* order_id, event_id, event_time, amount */
#define ARRAY_HEADER_LEN 20		/* of a binary array, before its first element */
#define ROWS_HEADER_LEN 19		/* of COPY BINARY, before the first row */
#define ROWS_TRAILER_LEN 2

#define ORDER_LEN 12
#define UUID_LEN 36

typedef struct Event
{
	char		order_id[ORDER_LEN];
	char		event_id[UUID_LEN];
	int64_t		time;			/* microseconds since 1970 */
	int64_t		cents;
} Event;

/* Events of one call, each a transaction, in both shapes that go over the wire. */
typedef struct Batch
{
	int			n;
	char	   *array[NARRAYS]; /* binary arrays, as parameters */
	int			array_len[NARRAYS];
	char	   *rows;			/* COPY BINARY, with header and trailer; or NULL */
	size_t		rows_len;
} Batch;

/* What the minutes must add up to. */
typedef struct Truth
{
	int64_t		cents[MINUTES];
	int64_t		events[MINUTES];
} Truth;

extern int64_t base_epoch;		/* seconds since 1970, a full hour */
extern int64_t stream_length;	/* events of all minutes; then they begin again */
extern int	minutes;			/* events fall into so many; at most MINUTES if there is a Truth */
extern int	spread;				/* seconds of disorder, at least 1 */

extern int64_t event_offset(int64_t i, uint64_t random);
extern void event_make(unsigned set, int64_t i, Event *event);
extern void batch_begin(Batch *batch, int room);
extern void batch_add(Batch *batch, const Event *event);
extern Batch *batches_make(unsigned set, int64_t first, int64_t n, int size, int *nbatches,
						   Truth *truth);
extern void batches_free(Batch *batches, int nbatches);

#endif							/* BENCH_EVENTS_H */
