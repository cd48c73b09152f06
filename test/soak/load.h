/*-------------------------------------------------------------------------
 *
 * load.h
 *	  Sending events to the sink, and what came of it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SOAK_LOAD_H
#define SOAK_LOAD_H

#include <stdbool.h>

#include "client.h"
#include "events.h"
#include "histogram.h"

/* Every event is of this set. */
#define SET_SOAK 1

/* The six answers, in the order in which apply() counts them. */
enum
{
	APPLIED, DUPLICATE, DEFERRED, CONFLICT, LATE, REJECTED, NANSWERS
};

/* What a minute must add up to; such totals are in a file, for all runs of the program. */
typedef struct Total
{
	int64_t		cents;
	int64_t		events;
} Total;

extern Total *truth;			/* of each of "minutes" */
extern int	batch_size;
extern int	nconnections;
extern int64_t window_events;	/* how many events come in a dedup window */

extern bool is_right(bool right, const char *fmt,...) __attribute__((format(printf, 2, 3)));
extern void note(const char *name, double value);

extern PGconn *sink_connect(void);
extern void count_truth(const Event *event);
extern bool call_send(PGconn *conn, const Batch *batch);
extern bool call_receive(PGconn *conn, int64_t *answers);
extern int64_t oldest_known(int64_t sent);

extern void fill(int64_t first, int64_t end, int64_t part, const int64_t *kills, int nkills);
extern void print_latency(const Histogram *h);

#endif							/* SOAK_LOAD_H */
