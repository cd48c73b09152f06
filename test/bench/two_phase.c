/*-------------------------------------------------------------------------
 *
 * two_phase.c
 *	  The benchmark's two-phase commit: what a prepared transaction costs.
 *
 * A cycle is one transaction from BEGIN to the answer of its phase two. The
 * peers insert the same rows, in binary too, into a bare heap without an index,
 * and make up their gids by themselves: the one with a statement for all rows,
 * the other, as batches of JDBC do, with one for each.
 *
 * All sides have a connection each, in pipeline mode, with everything
 * prepared that can be, and go as seldom to the server as their calls permit,
 * with phase two on a trip of its own: a processor waits for its other writers
 * before. That makes two trips for the peers and three for the sink, whose gid
 * has to be fetched.
 *
 * What is compared goes in turns, a few cycles each, so that whatever else the
 * machine does hits all alike.
 *
 *-------------------------------------------------------------------------
 */
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "ways.h"

#define SET_CYCLES 400
#define SET_HELD 500
#define SET_RECOVER 600

#define MAX_GID 200
#define WARM_UP 20				/* cycles of each side before the first timed one */
#define TURNS 6					/* of each side, each as often first among two or three */
#define HELD_TURNS 4
#define HELD 100				/* checkpoints that are in doubt */
#define RECOVER_WRITERS 10
#define RECOVER_CHECKPOINTS 100

#define SINK_APPLY \
	"SELECT * FROM revenue_sink.apply('two_phase', $1::text[], $2::text[], $3::timestamptz[], $4::numeric[])"
#define BARE_TABLE(name) \
	"CREATE TABLE " name " (order_id text COLLATE \"C\", event_id text COLLATE \"C\", " \
	"event_time timestamptz, amount numeric) WITH (autovacuum_enabled = off)"

static const Way way_sink = {
	.name = "two-phase sink",
	.setup = "SELECT revenue_sink.create_sink('two_phase', 'two_phase_fact', 'two_phase_events')",
	.statement = SINK_APPLY,
	.totals = "SELECT extract(epoch FROM minute)::bigint, (sum(revenue) * 100)::bigint, sum(events)::bigint "
	"FROM two_phase_fact GROUP BY 1",
	.teardown = "SELECT revenue_sink.drop_sink('two_phase')"
};

static const Way way_bare = {
	.name = "two-phase bare heap",
	.setup = BARE_TABLE("bare"),
	.statement = "INSERT INTO bare SELECT * FROM "
	"unnest($1::text[], $2::text[], $3::timestamptz[], $4::numeric[])",
	.count = "SELECT count(*) FROM bare",
	.teardown = "DROP TABLE bare"
};

/* A statement per row; for a batch of one nobody would take arrays. */
static const Way way_rows = {
	.name = "two-phase bare heap, row by row",
	.setup = BARE_TABLE("bare_rows"),
	.statement = "INSERT INTO bare_rows VALUES ($1, $2, $3, $4)",
	.count = "SELECT count(*) FROM bare_rows",
	.teardown = "DROP TABLE bare_rows"
};

/* One side of a comparison: a writer with its connection. */
typedef struct Side
{
	const Way  *way;
	PGconn	   *control;		/* for what isn't timed */
	PGconn	   *conn;			/* in pipeline mode */
	char		writer[16];
	char		epoch[24];		/* of the sink; empty for the peer */
	int64_t		number;			/* of the last batch */
	bool		call;			/* phase two by commit_prepared() */
	Truth		truth;			/* what has been committed */
} Side;

/* The cycles of a side that were timed. */
typedef struct Times
{
	int			n;
	double	   *whole;			/* BEGIN sent to phase two answered */
	double	   *commit;			/* PREPARE sent to phase two answered; the sink's only */
	double		seconds;
} Times;

static bool
is_sink(const Side *side)
{
	return side->way == &way_sink;
}

static void
prepare(PGconn *conn, const char *name, const char *sql)
{
	PGresult   *result = PQprepare(conn, name, sql, 0, NULL);

	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		fail("%s: %s", sql, PQerrorMessage(conn));
	PQclear(result);
}

/* A writer of an epoch that recover has opened; the peer ignores both names. */
static void
side_connect(Side *side, const char *writer, const char *epoch)
{
	snprintf(side->writer, sizeof(side->writer), "%s", writer);
	snprintf(side->epoch, sizeof(side->epoch), "%s", epoch);
	side->conn = bench_connect();
	way_prepare(side->conn, side->way);
	prepare(side->conn, "begin", "BEGIN");
	if (is_sink(side))
	{
		prepare(side->conn, "begin_batch",
				"SELECT revenue_sink.begin_batch('two_phase', 'job', $1, $2, $3)");
		prepare(side->conn, "pre_commit", "SELECT revenue_sink.pre_commit('two_phase')");
		prepare(side->conn, "commit_prepared", "CALL revenue_sink.commit_prepared($1)");
	}
	if (!PQenterPipelineMode(side->conn))
		fail("%s", PQerrorMessage(side->conn));
}

static void
side_open(Side *side, const Way *way)
{
	char	   *epoch;

	memset(side, 0, sizeof(Side));
	side->way = way;
	side->control = bench_connect();
	bench_exec(side->control, way->setup);
	epoch = is_sink(side) ? bench_value(side->control, "CALL revenue_sink.recover('two_phase', 'job', NULL)") :
		strdup("");
	side_connect(side, "writer", epoch);
	free(epoch);
}

static void
side_close(Side *side)
{
	way_verify(side->control, side->way, &side->truth);
	PQfinish(side->conn);
	bench_exec(side->control, side->way->teardown);
	PQfinish(side->control);
}

static void
sent(const Side *side, int ok)
{
	if (!ok)
		fail("%s: %s", side->way->name, PQerrorMessage(side->conn));
}

static void
send_prepared(const Side *side, const char *name, int nparams, const char *const *params)
{
	sent(side, PQsendQueryPrepared(side->conn, name, nparams, params, NULL, NULL, 0));
}

static void
send_text(const Side *side, const char *sql)
{
	sent(side, PQsendQueryParams(side->conn, sql, 0, NULL, NULL, NULL, NULL, 0));
}

static void
send_values(const Side *side, const char *const *values, const int *lengths)
{
	static const int binary[NARRAYS] = {1, 1, 1, 1};

	sent(side, PQsendQueryPrepared(side->conn, "apply", NARRAYS, values, lengths, binary, 1));
}

/* The events: as arrays, or the elements of these, a row per statement. */
static void
send_events(const Side *side, const Batch *batch)
{
	const char *value[NARRAYS];
	int			length[NARRAYS] = {0};

	if (side->way != &way_rows)
	{
		send_values(side, (const char *const *) batch->array, batch->array_len);
		return;
	}
	for (int c = 0; c < NARRAYS; c++)
		value[c] = batch->array[c] + ARRAY_HEADER_LEN;
	for (int i = 0; i < batch->n; i++)
	{
		for (int c = 0; c < NARRAYS; c++)
		{
			uint32_t	be;

			value[c] += length[c];
			memcpy(&be, value[c], sizeof(be));
			length[c] = (int) be32toh(be);
			value[c] += sizeof(be);
		}
		send_values(side, value, length);
	}
}

/* Go to the server and back; the last row's first value into "value" if not NULL. */
static void
trip(const Side *side, char *value)
{
	sent(side, PQpipelineSync(side->conn));
	pipeline_answers(side->conn, side->way, value, MAX_GID);
}

/* Phase one, and the gid; returns when its PREPARE began, if that is known. */
static double
hold(Side *side, const Batch *batch, char *gid)
{
	char		sql[MAX_GID + 32];
	char		number[24];
	double		start = 0;

	snprintf(number, sizeof(number), "%lld", (long long) ++side->number);
	send_prepared(side, "begin", 0, NULL);
	if (is_sink(side))
	{
		const char *const params[] = {side->writer, side->epoch, number};

		send_prepared(side, "begin_batch", 3, params);
		send_events(side, batch);
		send_prepared(side, "pre_commit", 0, NULL);
		trip(side, gid);
		start = now_seconds();
	}
	else
	{
		send_events(side, batch);
		snprintf(gid, MAX_GID, "%s %s", side->way->name, number);
	}
	snprintf(sql, sizeof(sql), "PREPARE TRANSACTION '%s'", gid);
	send_text(side, sql);
	trip(side, NULL);
	return start;
}

/* Phase two: a call of the extension, or PostgreSQL's own statement. */
static void
commit(const Side *side, const char *gid)
{
	if (side->call)
	{
		char		outcome[MAX_GID];

		send_prepared(side, "commit_prepared", 1, &gid);
		trip(side, outcome);
		if (strcmp(outcome, "committed") != 0)
			fail("the outcome of \"%s\" is \"%s\"", gid, outcome);
	}
	else
	{
		char		sql[MAX_GID + 32];

		snprintf(sql, sizeof(sql), "COMMIT PREPARED '%s'", gid);
		send_text(side, sql);
		trip(side, NULL);
	}
}

static void
times_make(Times *times, int64_t ncycles)
{
	times->n = 0;
	times->seconds = 0;
	times->whole = calloc((size_t) ncycles, sizeof(double));
	times->commit = calloc((size_t) ncycles, sizeof(double));
}

/* A turn of a side: whole cycles, one after the other. */
static void
cycles(Side *side, const Batch *batches, int64_t n, Times *times)
{
	char		gid[MAX_GID];

	for (int64_t b = 0; b < n; b++)
	{
		double		start = now_seconds();
		double		prepare_start = hold(side, &batches[b], gid);
		double		end;

		commit(side, gid);
		end = now_seconds();
		if (times == NULL)
			continue;
		times->whole[times->n] = end - start;
		times->commit[times->n] = end - prepare_start;
		times->seconds += end - start;
		times->n++;
	}
}

static int
compare_doubles(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return x < y ? -1 : x > y;
}

/* Milliseconds: the least that so many percent of the cycles took no longer than. */
static void
sample_percentiles(const char *name, double *seconds, int n)
{
	static const int percent[] = {50, 99};

	qsort(seconds, (size_t) n, sizeof(double), compare_doubles);
	for (int i = 0; i < 2; i++)
	{
		char		full[64];

		snprintf(full, sizeof(full), "%s_p%d", name, percent[i]);
		sample(full, seconds[((int64_t) n * percent[i] + 99) / 100 - 1] * 1000);
	}
}

static void
sample_rate(const char *what, int size, const Times *times)
{
	char		name[64];

	snprintf(name, sizeof(name), "two_phase_%s_%d", what, size);
	sample(name, (double) times->n * size / times->seconds);
}

static void
times_free(Times *times)
{
	free(times->whole);
	free(times->commit);
}

/* Cycles of a turn: a thousand batches of one take longer than ten of a thousand. */
static int64_t
turn_cycles(int size)
{
	int64_t		n = nevents / (size == 1 ? 4000 : 40000);

	return n < 10 ? 10 : n;
}

/* A way and what its samples are called by. */
typedef struct Named
{
	const Way  *way;
	const char *name;
	bool		call;
} Named;

/* The sink and its peers in turns, who is first changing, too. */
static void
compare(int size, const Named *ways, int nways)
{
	int64_t		n = turn_cycles(size);
	int64_t		ncycles = WARM_UP + TURNS * n;
	Side		sides[3];
	Times		times[3];
	Batch	   *batches[3];
	int			nbatches;

	for (int s = 0; s < nways; s++)
	{
		side_open(&sides[s], ways[s].way);
		sides[s].call = ways[s].call;
		batches[s] = batches_make(SET_CYCLES, 0, ncycles * size, size, &nbatches, &sides[s].truth);
		times_make(&times[s], TURNS * n);
	}
	bench_exec(sides[0].control, "CHECKPOINT");
	for (int s = 0; s < nways; s++)
		cycles(&sides[s], batches[s], WARM_UP, NULL);
	for (int turn = 0; turn < TURNS; turn++)
	{
		for (int i = 0; i < nways; i++)
		{
			int			s = (turn + round_number + i) % nways;

			cycles(&sides[s], batches[s] + WARM_UP + turn * n, n, &times[s]);
		}
	}
	for (int s = 0; s < nways; s++)
	{
		char		name[64];

		sample_rate(ways[s].name, size, &times[s]);
		snprintf(name, sizeof(name), "two_phase_%s_%d_ms", ways[s].name, size);
		sample_percentiles(name, times[s].whole, times[s].n);
		if (is_sink(&sides[s]))
		{
			snprintf(name, sizeof(name), "two_phase_%s_commit_%d_ms", ways[s].name, size);
			sample_percentiles(name, times[s].commit, times[s].n);
		}
		side_close(&sides[s]);
		times_free(&times[s]);
		batches_free(batches[s], nbatches);
	}
}

/*
 * The sink with and without a hundred checkpoints of the same writer held, in
 * turns. Holding and releasing them isn't timed, nor is merging what was held,
 * which would fall into a turn without.
 */
static void
compare_held(int size)
{
	int64_t		n = turn_cycles(size);
	int64_t		ncycles = WARM_UP + 2 * HELD_TURNS * n;
	Side		side;
	Times		times[2];
	int			nbatches;
	int			nheld;
	Batch	   *next;
	Batch	   *batches;
	Batch	   *held;

	side_open(&side, &way_sink);
	side.call = true;
	batches = batches_make(SET_CYCLES, 0, ncycles * size, size, &nbatches, &side.truth);
	held = batches_make(SET_HELD, 0, (int64_t) HELD_TURNS * HELD * size, size, &nheld, &side.truth);
	bench_exec(side.control, "CHECKPOINT");
	cycles(&side, batches, WARM_UP, NULL);
	next = batches + WARM_UP;
	for (int i = 0; i < 2; i++)
		times_make(&times[i], HELD_TURNS * n);
	for (int turn = 0; turn < HELD_TURNS; turn++)
	{
		for (int i = 0; i < 2; i++)
		{
			int			holding = (turn + round_number + i) % 2;

			if (holding)
			{
				char		gid[MAX_GID];

				for (int h = 0; h < HELD; h++)
					hold(&side, &held[turn * HELD + h], gid);
			}
			cycles(&side, next, n, &times[holding]);
			next += n;
			if (holding)
			{
				char		sql[128];

				snprintf(sql, sizeof(sql), "CALL revenue_sink.commit_checkpoint('two_phase', 'job', %lld)",
						 (long long) side.number);
				bench_exec(side.control, sql);
				bench_exec(side.control, "SELECT revenue_sink.merge('two_phase')");
			}
		}
	}
	sample_rate("none_held", size, &times[0]);
	sample_rate("held", size, &times[1]);
	side_close(&side);
	for (int i = 0; i < 2; i++)
		times_free(&times[i]);
	batches_free(batches, nbatches);
	batches_free(held, nheld);
}

void
group_two_phase(void)
{
	static const Named ways_1[] = {{&way_sink, "sink", false}, {&way_rows, "bare", false}};
	static const Named ways_1000[] = {{&way_sink, "sink", false}, {&way_bare, "bare", false}, {&way_rows, "rows", false}};
	static const Named call[] = {{&way_sink, "call", true}};

	compare(1, ways_1, 2);
	compare(1000, ways_1000, 3);
	compare(1, call, 1);
	compare(1000, call, 1);
	compare_held(1);
	compare_held(1000);
}

/*
 * A job that comes back while its last incarnation's thousand transactions are
 * prepared: half of them up to its checkpoint, to be committed, half after it.
 */
void
group_recover(void)
{
	Side		side;
	Truth		rolled_back = {0};
	char	   *epoch;
	char	   *left;
	char		sql[128];
	double		start;

	side_open(&side, &way_sink);
	PQfinish(side.conn);
	epoch = strdup(side.epoch);
	for (int w = 0; w < RECOVER_WRITERS; w++)
	{
		const int	half = RECOVER_CHECKPOINTS / 2;
		char		writer[16];
		int			n;

		snprintf(writer, sizeof(writer), "writer%d", w);
		side_connect(&side, writer, epoch);
		side.number = 0;
		for (int part = 0; part < 2; part++)
		{
			Batch	   *batches = batches_make(SET_RECOVER, (int64_t) (2 * w + part) * half * 10, half * 10, 10,
											   &n, part == 0 ? &side.truth : &rolled_back);
			char		gid[MAX_GID];

			for (int b = 0; b < n; b++)
				hold(&side, &batches[b], gid);
			batches_free(batches, n);
		}
		if (w < RECOVER_WRITERS - 1)
			PQfinish(side.conn);
	}
	free(epoch);
	bench_exec(side.control, "CHECKPOINT");
	snprintf(sql, sizeof(sql), "CALL revenue_sink.recover('two_phase', 'job', %d)", RECOVER_CHECKPOINTS / 2);
	start = now_seconds();
	bench_exec(side.control, sql);
	sample("two_phase_recover_ms", (now_seconds() - start) * 1000);
	left = bench_value(side.control, "SELECT count(*) FROM pg_prepared_xacts");
	if (strcmp(left, "0") != 0)
		fail("recover has left %s transactions prepared", left);
	free(left);
	side_close(&side);
}
