/*-------------------------------------------------------------------------
 *
 * read.c
 *	  Reading: the fact view against a plain table of the same rows.
 *
 * A year of minutes in four groups, with hardly a delta, with a thousand of the
 * last ten minutes, a thousand of all the year, and a million of the last day.
 * Table and view are vacuumed and analyzed. Each query is sent in a session that
 * has sent it before, by the simple protocol, so it is planned each time.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "ways.h"

#define TIMES 5

typedef struct Query
{
	const char *name;
	const char *sql;			/* %s: the view or the table */
} Query;

static const Query queries[] = {
	{"latest", "SELECT * FROM %s ORDER BY minute DESC LIMIT 5"},
	{"one", "SELECT * FROM %s WHERE minute = '2025-06-01 10:00+00' AND group_key = 'b'"},
	{"day", "SELECT sum(revenue) FROM %s WHERE minute >= '2025-06-01 00:00+00' AND minute < '2025-06-02 00:00+00'"},
	{"days", "SELECT date_trunc('day', minute), sum(revenue) FROM %s "
	"WHERE minute >= '2025-03-01 00:00+00' AND minute < '2025-05-20 00:00+00' GROUP BY 1"},
	{"all", "SELECT sum(revenue) FROM %s"},
	{"max", "SELECT max(minute) FROM %s"}
};

#define NQUERIES ((int) (sizeof(queries) / sizeof(queries[0])))

static int
compare_doubles(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return x < y ? -1 : x > y;
}

/* The median, in milliseconds, of a few times that a query takes. */
static double
median_ms(PGconn *conn, const char *sql)
{
	double		ms[TIMES];

	bench_exec(conn, sql);
	for (int i = 0; i < TIMES; i++)
	{
		double		from = now_seconds();

		bench_exec(conn, sql);
		ms[i] = (now_seconds() - from) * 1000;
	}
	qsort(ms, TIMES, sizeof(double), compare_doubles);
	return ms[TIMES / 2];
}

/* Measure the queries of a name, or all queries, in a state of the deltas. */
static void
measure_queries(PGconn *conn, const char *relation, const char *state, const char *only)
{
	for (int i = 0; i < NQUERIES; i++)
	{
		char		sql[512];
		char		name[64];

		if (only != NULL && strcmp(only, queries[i].name) != 0)
			continue;
		snprintf(sql, sizeof(sql), queries[i].sql, relation);
		snprintf(name, sizeof(name), "read_%s_%s", state, queries[i].name);
		sample(name, median_ms(conn, sql));
	}
}

/* The view and the table must show the same. */
static void
verify(PGconn *conn)
{
	char	   *wrong = bench_value(conn,
									"SELECT count(*) FROM read_fact f FULL JOIN (SELECT minute, group_key, "
									"  sum(revenue) AS revenue, sum(events) AS events FROM read_truth GROUP BY 1, 2) AS t "
									"USING (minute, group_key) "
									"WHERE (f.revenue, f.events) IS DISTINCT FROM (t.revenue, t.events)");

	if (strcmp(wrong, "0") != 0)
		fail("%s minutes are wrong", wrong);
	free(wrong);
}

static void
vacuum_all(PGconn *conn)
{
	bench_exec(conn, "VACUUM (ANALYZE)");
}

/* The sink, its totals put where merging puts them, and the plain table. */
void
group_seed_read(void)
{
	PGconn	   *conn = bench_connect();

	bench_exec(conn, "SELECT revenue_sink.create_sink('read', 'read_fact', 'read_events', dedup_window => '10000 days', "
			   "max_future => '10000 days')");
	bench_exec(conn, "DO $$ BEGIN EXECUTE format("
			   "'INSERT INTO %s SELECT m, g, (random() * 1000)::numeric(12, 2), 10 FROM generate_series("
			   "  timestamptz ''2025-01-01 00:00+00'', ''2025-12-31 23:59+00'', ''1 minute'') m, unnest(''{a,b,c,d}''::text[]) g', "
			   "revenue_sink.relation_of('read', 'total')); END $$");
	bench_exec(conn, "CREATE TABLE read_plain (minute timestamptz NOT NULL, group_key text COLLATE \"C\" NOT NULL, "
			   "revenue numeric NOT NULL, events bigint NOT NULL, PRIMARY KEY (minute, group_key))");
	bench_exec(conn, "INSERT INTO read_plain SELECT * FROM read_fact");
	bench_exec(conn, "CREATE TABLE read_truth AS SELECT * FROM read_plain");
	/* calls of events, one for each key, and what the truth gets of them */
	bench_exec(conn, "CREATE PROCEDURE read_pay(calls int, keys text) LANGUAGE plpgsql AS $$ BEGIN "
			   "FOR c IN 1 .. calls LOOP "
			   "  EXECUTE format('SELECT applied FROM (SELECT array_agg(gen_random_uuid()::text), array_agg(''e''::text), array_agg(m), "
			   "    array_agg(1.5), array_agg(g) FROM (%s) AS k (m, g)) AS a (o, e, m, r, g), "
			   "    revenue_sink.apply(''read'', o, e, m, r, g)', keys); "
			   "  EXECUTE format('INSERT INTO read_truth SELECT m, g, 1.5, 1 FROM (%s) AS k (m, g)', keys); "
			   "  COMMIT; "
			   "END LOOP; END $$");
	PQfinish(conn);
}

void
group_read(void)
{
	PGconn	   *conn = bench_connect();

	bench_exec(conn, "SELECT revenue_sink.merge('read')");
	vacuum_all(conn);
	measure_queries(conn, "read_plain", "plain", NULL);
	measure_queries(conn, "read_fact", "none", NULL);

	bench_exec(conn, "CALL read_pay(25, $$ SELECT '2025-12-31 23:50+00'::timestamptz + i * interval '1 minute', g "
			   "FROM generate_series(0, 9) i, unnest('{a,b,c,d}'::text[]) g $$)");
	vacuum_all(conn);
	measure_queries(conn, "read_fact", "last", NULL);
	verify(conn);
	bench_exec(conn, "SELECT revenue_sink.merge('read')");

	bench_exec(conn, "CALL read_pay(1, $$ SELECT '2025-01-01 00:00+00'::timestamptz + i * interval '525 minutes', 'b' "
			   "FROM generate_series(0, 999) i $$)");
	vacuum_all(conn);
	measure_queries(conn, "read_fact", "year", NULL);
	verify(conn);
	bench_exec(conn, "SELECT revenue_sink.merge('read')");

	bench_exec(conn, "BEGIN");
	bench_exec(conn, "SELECT revenue_sink.apply('read', 'held', gen_random_uuid()::text, '2025-12-31 12:00+00', 1)");
	bench_exec(conn, "PREPARE TRANSACTION 'held'");
	bench_exec(conn, "CALL read_pay(174, $$ SELECT '2025-12-31 00:00+00'::timestamptz + i * interval '1 minute', g "
			   "FROM generate_series(0, 1439) i, unnest('{a,b,c,d}'::text[]) g $$)");
	vacuum_all(conn);
	measure_queries(conn, "read_fact", "million", NULL);
	verify(conn);
	bench_exec(conn, "ROLLBACK PREPARED 'held'");
	bench_exec(conn, "SELECT revenue_sink.merge('read')");
	PQfinish(conn);
}
