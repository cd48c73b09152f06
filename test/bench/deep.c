/*-------------------------------------------------------------------------
 *
 * deep.c
 *	  A sink that has seen SEEN events, most of them in sealed slices.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"
#include "ways.h"

#define SET_DEEP 5000
#define SET_DEEP_FRESH 6000		/* a round adds its number */
#define SET_FEW 7000

/* How many events the small sink has seen before. */
#define FEW_SEEN 1000000

/* How many events the big sink sees before the rounds, which bring some more. */
static int64_t
seed(void)
{
	const char *rounds = getenv("ROUNDS");
	const char *seen = getenv("SEEN");
	int64_t		all = seen != NULL ? atoll(seen) : 50 * nevents;
	int64_t		later = (rounds != NULL ? atoll(rounds) : 5) * (nevents + FEW_SEEN);

	return all > later + nevents ? (all - later) / nevents * nevents : nevents;
}

/* Fill the big sink, and print the rate of each part on the way. */
void
group_seed_deep(void)
{
	PGconn	   *conn = open_way(&way_big, true);

	for (int64_t first = 0; first < seed(); first += nevents)
		measure(conn, &way_big, "deep_seed", SET_DEEP, first, nevents, BATCH);
	PQfinish(conn);
}

/* Sample the quotient of two columns of the big sink. */
static void
sample_big(PGconn *conn, const char *name, const char *value)
{
	char		sql[200];

	snprintf(sql, sizeof(sql), "SELECT (%s)::numeric FROM revenue_sink.stat_sink WHERE sink = 'big'", value);
	sample(name, bench_number(conn, sql));
}

/*
 * Fresh events in a sink that has seen a million others. This comes before the big sink
 * is filled, which leaves no memory to others.
 */
void
group_few(void)
{
	PGconn	   *conn = open_way(&way_few, true);

	measure(conn, &way_few, NULL, SET_FEW, 0, FEW_SEEN, BATCH);
	measure(conn, &way_few, "deep_few", SET_DEEP_FRESH + (unsigned) round_number, 0, nevents, BATCH);
	close_way(conn, &way_few);
}

/* Fresh events in the big sink, and a replay of old ones, at another place in each round. */
void
group_deep(void)
{
	PGconn	   *conn = open_way(&way_big, false);
	int64_t		parts = seed() / nevents;

	measure(conn, &way_big, NULL, SET_DEEP_FRESH + 100 + (unsigned) round_number, 0, FEW_SEEN, BATCH);
	measure(conn, &way_big, "deep", SET_DEEP_FRESH + (unsigned) round_number, 0, nevents, BATCH);
	measure_replay(conn, &way_big, "deep_replay", SET_DEEP,
				   round_number * 7 % (parts / 2 + 1) * nevents, nevents);
	sample_big(conn, "deep_seen", "seen_events");
	sample_big(conn, "deep_memory", "seen_bytes_memory / seen_events::numeric");
	sample_big(conn, "deep_disk", "seen_bytes_disk / seen_events::numeric");
	PQfinish(conn);
}
