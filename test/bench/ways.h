/*-------------------------------------------------------------------------
 *
 * ways.h
 *	  The ways to get order events into revenue per minute, ours and others'.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BENCH_WAYS_H
#define BENCH_WAYS_H

#include <stdbool.h>

#include "client.h"
#include "events.h"

typedef struct Way
{
	const char *name;
	const char *setup;			/* SQL before */
	const char *statement;		/* COPY, or a statement with four parameters */
	bool		single;			/* one COPY for everything */
	bool		rows;			/* the statement has one parameter, COPY BINARY */
	const char *totals;			/* of minutes: epoch, cents, events; or NULL */
	const char *count;			/* of events, where there are no totals */
	const char *teardown;		/* SQL after */
} Way;

extern const Way way_apply;
extern const Way way_apply_each;
extern const Way way_apply_rows;
extern const Way way_ingest;
extern const Way way_ingest_single;
extern const Way way_hand;
extern const Way way_hand_hash;
extern const Way way_pk;
extern const Way way_pk_single;
extern const Way way_heap;
extern const Way way_heap_single;
extern const Way way_big;
extern const Way way_few;

extern void pipeline_answers(PGconn *conn, const Way *way, char *value, size_t size);
extern void way_prepare(PGconn *conn, const Way *way);
extern double way_run(PGconn *conn, const Way *way, const Batch *batches, int nbatches);
extern void way_totals(PGconn *conn, const Way *way, Truth *totals);
extern void way_verify(PGconn *conn, const Way *way, const Truth *truth);

#endif							/* BENCH_WAYS_H */
