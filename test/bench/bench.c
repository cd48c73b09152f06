/*-------------------------------------------------------------------------
 *
 * bench.c
 *	  The benchmark: measures, and prints one sample per line.
 *
 *		bench GROUP ROUND
 *
 * A sample is a name and a value: events per second, bytes per event, or
 * milliseconds. The script "run" calls the groups in rounds, so that whatever
 * else the machine does hits all ways alike, and "report" makes ratios of the
 * medians. Each round begins with another way, for the first one after a pause
 * may be at an advantage or not. Data is generated and encoded outside of what
 * is timed, for every way; each timed run starts on empty tables (or on the
 * same number of events) right after a checkpoint. Each run's minutes must
 * equal the truth, or the program fails.
 *
 * The connection is the environment's (PGHOST and so on), and so are EVENTS,
 * BASE (the hour that the events are in, in seconds since 1970) and SPREAD (how
 * many seconds of it a call may have events from).
 *
 *-------------------------------------------------------------------------
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench.h"
#include "ways.h"

#define SMALL_BATCH 100

/* Sets of events; a round adds its number. */
#define SET_MAIN 1
#define SET_BIG 2
#define SET_WARM 3
#define SET_SEEN 100
#define SET_BOUND 200
#define SET_WARM_BIG 1000		/* in addition to SET_SEEN */

/* A bound index must be out of its bounds: the least memory holds fewer. */
#define BOUND_MIN_SEEN 250000

typedef struct Group
{
	const char *name;
	void		(*run) (void);
} Group;

int64_t		nevents;
int			round_number;

void
sample(const char *name, double value)
{
	printf("%s %.3f\n", name, value);
	fflush(stdout);
	fprintf(stderr, "\t%-20s %.*f\n", name, value < 1000 ? 2 : 0, value);
}

/*
 * Time a way over n events from the first one of a set on, in calls of some
 * size, and verify that its minutes have moved by just as much.
 */
void
measure(PGconn *conn, const Way *way, const char *name,
		unsigned set, int64_t first, int64_t n, int size)
{
	Truth		truth = {0};
	int			nbatches;
	double		seconds;
	Batch	   *batches;

	if (way->totals != NULL)
		way_totals(conn, way, &truth);
	batches = batches_make(set, first, n, size, &nbatches, &truth);
	bench_exec(conn, "CHECKPOINT");
	seconds = way_run(conn, way, batches, nbatches);
	way_verify(conn, way, &truth);
	batches_free(batches, nbatches);
	if (name != NULL)
		sample(name, (double) n / seconds);
}

/* Time a way over events that it has all seen before. */
void
measure_replay(PGconn *conn, const Way *way, const char *name,
			   unsigned set, int64_t first, int64_t n)
{
	Truth		ignored = {0};
	Truth		truth;
	int			nbatches;
	Batch	   *batches = batches_make(set, first, n, BATCH, &nbatches, &ignored);
	double		seconds;

	way_totals(conn, way, &truth);
	bench_exec(conn, "CHECKPOINT");
	seconds = way_run(conn, way, batches, nbatches);
	way_verify(conn, way, &truth);
	batches_free(batches, nbatches);
	sample(name, (double) n / seconds);
}

/* A connection on which the way is ready, with nothing in its tables. */
PGconn *
open_way(const Way *way, bool create)
{
	PGconn	   *conn = bench_connect();

	if (create)
		bench_exec(conn, way->setup);
	way_prepare(conn, way);
	return conn;
}

void
close_way(PGconn *conn, const Way *way)
{
	if (way->teardown != NULL)
		bench_exec(conn, way->teardown);
	PQfinish(conn);
}

static void
measure_alone(const Way *way, const char *name, int64_t n, int size)
{
	PGconn	   *conn = open_way(way, true);

	measure(conn, way, name, SET_MAIN, 0, n, size);
	close_way(conn, way);
}

static const Way *const load_ways[] = {
	&way_apply, &way_apply_each, &way_apply_rows, &way_ingest, &way_ingest_single, &way_heap, &way_heap_single,
	&way_pk, &way_pk_single, &way_hand, &way_hand_hash
};

#define NLOAD_WAYS ((int) (sizeof(load_ways) / sizeof(load_ways[0])))

/*
 * Every way once, not timed, so that none is the first to touch the server's
 * memory.
 */
static void
group_warm_up(void)
{
	for (int i = 0; i < NLOAD_WAYS; i++)
		measure_alone(load_ways[i], NULL, nevents / 4, BATCH);
}

/* All events in calls of 10,000, and then their replay. */
static void
group_load(void)
{
	for (int i = 0; i < NLOAD_WAYS; i++)
	{
		const Way  *way = load_ways[(round_number + i) % NLOAD_WAYS];
		PGconn	   *conn = open_way(way, true);

		measure(conn, way, way->name, SET_MAIN, 0, nevents, BATCH);
		if (way == &way_apply)
		{
			measure_replay(conn, way, "replay", SET_MAIN, 0, nevents);
			measure_replay(conn, way, "replay_shifted", SET_MAIN, BATCH / 2, nevents - BATCH / 2);
		}
		close_way(conn, way);
	}
}

/* All events in calls of 100. */
static void
group_small(void)
{
	static const Way *const ways[] = {&way_apply, &way_hand, &way_hand_hash, &way_heap};

	for (int i = 0; i < 4; i++)
	{
		const Way  *way = ways[(round_number + i) % 4];
		char		name[64];

		snprintf(name, sizeof(name), "%s_%d", way->name, SMALL_BATCH);
		measure_alone(way, name, nevents / 10, SMALL_BATCH);
	}
}

/* A sink that has seen ten times the events, for the groups seen and rebuild. */
static void
group_seed_big(void)
{
	PGconn	   *conn = open_way(&way_big, true);

	for (int i = 0; i < 10; i++)
		measure(conn, &way_big, NULL, SET_BIG, i * nevents, nevents, BATCH);
	close_way(conn, &way_big);
}

/*
 * Fresh events where few or many have been seen. On both sinks as many others
 * come first, which aren't timed. The small one has to be filled, and does so
 * on the connection that is measured then, which has mapped all pages of the
 * index by the end of it. A fresh connection to the big sink would have to map
 * its many more pages while it is timed.
 */
static void
group_seen(void)
{
	unsigned	set = SET_SEEN + (unsigned) round_number;

	for (int i = 0; i < 2; i++)
	{
		bool		big = (round_number + i) % 2 == 0;
		const Way  *way = big ? &way_big : &way_apply;
		PGconn	   *conn = open_way(way, !big);

		measure(conn, way, NULL, big ? set + SET_WARM_BIG : SET_MAIN, 0, nevents / 2, BATCH);
		measure(conn, way, big ? "seen_big" : "seen_small", set, 0, nevents / 4, BATCH);
		close_way(conn, way);
	}
}

typedef struct Writer
{
	pthread_t	thread;
	pthread_barrier_t *barrier;
	PGconn	   *conn;
	Batch	   *batches;
	int			nbatches;
	double		end;
} Writer;

static void *
writer_main(void *arg)
{
	Writer	   *writer = arg;

	pthread_barrier_wait(writer->barrier);
	way_run(writer->conn, &way_apply, writer->batches, writer->nbatches);
	writer->end = now_seconds();
	return NULL;
}

/* The same events by one writer or by several at once. */
static void
measure_writers(int nwriters, const char *name)
{
	PGconn	   *conn = open_way(&way_apply, true);
	Truth		truth = {0};
	pthread_barrier_t barrier;
	Writer		writers[2];
	double		start;
	double		end = 0;

	pthread_barrier_init(&barrier, NULL, (unsigned) nwriters + 1);
	for (int w = 0; w < nwriters; w++)
	{
		int64_t		share = nevents / nwriters;

		writers[w].barrier = &barrier;
		writers[w].conn = open_way(&way_apply, false);
		writers[w].batches = batches_make(SET_MAIN, w * share, share, BATCH,
										  &writers[w].nbatches, &truth);
		pthread_create(&writers[w].thread, NULL, writer_main, &writers[w]);
	}
	bench_exec(conn, "CHECKPOINT");
	pthread_barrier_wait(&barrier);
	start = now_seconds();
	for (int w = 0; w < nwriters; w++)
	{
		pthread_join(writers[w].thread, NULL);
		end = writers[w].end > end ? writers[w].end : end;
		PQfinish(writers[w].conn);
		batches_free(writers[w].batches, writers[w].nbatches);
	}
	way_verify(conn, &way_apply, &truth);
	close_way(conn, &way_apply);
	sample(name, (double) (nevents / nwriters * nwriters) / (end - start));
}

/* One writer and two, everything in one minute. */
static void
group_writers(void)
{
	minutes = 1;
	for (int i = 0; i < 2; i++)
	{
		if ((round_number + i) % 2 == 0)
			measure_writers(2, "writers_2");
		else
			measure_writers(1, "writers_1");
	}
}

static double
wal_position(PGconn *conn)
{
	return bench_number(conn, "SELECT pg_current_wal_insert_lsn() - '0/0'");
}

/* WAL of the calls alone: the server runs without a worker's rounds. */
static void
group_wal(void)
{
	PGconn	   *conn = open_way(&way_apply, true);
	double		before;

	measure(conn, &way_apply, NULL, SET_WARM, 0, 5 * BATCH, BATCH);
	before = wal_position(conn);
	measure(conn, &way_apply, NULL, SET_MAIN, 0, nevents, BATCH);
	sample("wal_call", (wal_position(conn) - before) / (double) nevents);
	close_way(conn, &way_apply);
}

/*
 * From the call to the expiry, with a checkpoint in between, so that what is
 * deleted makes full-page images: WAL of it all. Disk and memory at its height.
 */
static void
group_life(void)
{
	static const char tables[] =
		"FROM pg_class WHERE relnamespace = 'revenue_sink'::regnamespace AND relkind = 'r'";
	PGconn	   *conn = open_way(&way_apply, true);
	double		before;
	double		disk_before;
	char		sql[256];
	PGresult   *result;

	bench_exec(conn, "SELECT revenue_sink.alter_sink('bench', dedup_window => '70 minutes')");
	snprintf(sql, sizeof(sql), "SELECT sum(pg_total_relation_size(oid)) %s", tables);
	before = wal_position(conn);
	disk_before = bench_number(conn, sql);
	measure(conn, &way_apply, NULL, SET_MAIN, 0, nevents, BATCH);
	bench_exec(conn, "SELECT revenue_sink.merge('bench')");
	sample("disk", (bench_number(conn, sql) - disk_before) / (double) nevents);
	sample("memory", bench_number(conn, "SELECT seen_bytes_memory::numeric / seen_events "
								  "FROM revenue_sink.stat_sink WHERE sink = 'bench'"));

	bench_exec(conn, "CHECKPOINT");
	bench_exec(conn, "SELECT revenue_sink.apply('bench', 'closing', 'closing', now(), 0)");
	while (bench_number(conn, "SELECT seen_events FROM revenue_sink.stat_sink WHERE sink = 'bench'") > 1)
		bench_exec(conn, "SELECT revenue_sink.expire('bench')");
	snprintf(sql, sizeof(sql), "SELECT format('VACUUM %%s', oid::regclass) %s", tables);
	result = PQexec(conn, sql);
	for (int i = 0; i < PQntuples(result); i++)
		bench_exec(conn, PQgetvalue(result, i, 0));
	PQclear(result);
	sample("wal_life", (wal_position(conn) - before) / (double) nevents);
	close_way(conn, &way_apply);
}

/*
 * Right after a crash, while the server is still recovering: from the first
 * connection that it takes to the first answer about an event, which needs
 * the whole index, events per second.
 */
static void
group_rebuild(void)
{
	const struct timespec pause = {.tv_nsec = 1000000};
	double		give_up = now_seconds() + 300;
	PGconn	   *conn;
	double		start;
	double		seconds;
	char	   *state;

	while (PQstatus(conn = PQconnectdb("")) != CONNECTION_OK)
	{
		if (now_seconds() > give_up)
			fail("%s", PQerrorMessage(conn));
		PQfinish(conn);
		nanosleep(&pause, NULL);
	}
	start = now_seconds();
	bench_exec(conn, "SELECT revenue_sink.seen('big', 'nothing', 'nothing')");
	seconds = now_seconds() - start;
	state = bench_value(conn, "SELECT index_state FROM revenue_sink.stat_sink WHERE sink = 'big'");
	if (strcmp(state, "built") != 0)
		fail("the index is \"%s\" after a call that needs it", state);
	free(state);
	sample("rebuild", bench_number(conn, "SELECT seen_events FROM revenue_sink.stat_sink WHERE sink = 'big'") /
		   seconds);
	PQfinish(conn);
}

static int64_t
bound_seen(void)
{
	return nevents > BOUND_MIN_SEEN ? nevents : BOUND_MIN_SEEN;
}

/* Fill the index past its bound, and the tables of the hand-written SQL. */
static void
group_seed_bound(void)
{
	static const Way *const ways[] = {&way_apply, &way_hand};

	for (int i = 0; i < 2; i++)
	{
		PGconn	   *conn = open_way(ways[i], true);

		measure(conn, ways[i], NULL, SET_MAIN, 0, bound_seen(), BATCH);
		PQfinish(conn);
	}
}

/* Fresh events, and old ones again, when the index is past its bound. */
static void
group_bound(void)
{
	PGconn	   *conn = open_way(&way_apply, false);
	unsigned	set = SET_BOUND + (unsigned) round_number;
	char	   *state;

	measure(conn, &way_apply, "bound", set, 0, nevents / 4, BATCH);
	measure_replay(conn, &way_apply, "bound_replay", SET_MAIN, BATCH / 2, nevents / 4);
	state = bench_value(conn, "SELECT index_state FROM revenue_sink.stat_sink WHERE sink = 'bench'");
	if (strcmp(state, "overflowed") != 0)
		fail("the index is \"%s\", not past its bound", state);
	free(state);
	PQfinish(conn);
	conn = open_way(&way_hand, false);
	measure(conn, &way_hand, "bound_hand", set, 0, nevents / 4, BATCH);
	PQfinish(conn);
}

int
main(int argc, char **argv)
{
	static const Group groups[] = {
		{"warm_up", group_warm_up}, {"load", group_load}, {"small", group_small},
		{"seed_big", group_seed_big}, {"seen", group_seen},
		{"seed_deep", group_seed_deep}, {"few", group_few}, {"deep", group_deep},
		{"writers", group_writers}, {"wal", group_wal}, {"life", group_life},
		{"rebuild", group_rebuild}, {"two_phase", group_two_phase}, {"recover", group_recover},
		{"seed_bound", group_seed_bound}, {"bound", group_bound},
		{"seed_read", group_seed_read}, {"read", group_read}
	};
	const char *events = getenv("EVENTS");
	const char *base = getenv("BASE");
	const char *seconds = getenv("SPREAD");

	if (argc != 3 || events == NULL || base == NULL || seconds == NULL)
		fail("usage: EVENTS=... BASE=... SPREAD=... bench GROUP ROUND");
	nevents = stream_length = atoll(events);
	base_epoch = atoll(base);
	spread = atoi(seconds);
	round_number = atoi(argv[2]);
	if (nevents < 2 * BATCH || base_epoch % 3600 != 0 || spread < 1)
		fail("EVENTS must be at least %d, BASE a full hour, SPREAD positive", 2 * BATCH);
	for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
	{
		if (strcmp(groups[i].name, argv[1]) == 0)
		{
			groups[i].run();
			return 0;
		}
	}
	fail("no group \"%s\"", argv[1]);
}
