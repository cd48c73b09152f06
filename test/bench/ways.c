/*-------------------------------------------------------------------------
 *
 * ways.c
 *	  The ways to get order events into revenue per minute, ours and others'.
 *
 * The others are written as their best users would: identifiers in the C
 * collation, one statement and one transaction per call, prepared, with binary
 * arrays, in a pipeline, rows inserted in the order of the index; a table of
 * minutes with room for HOT updates; no autovacuum on tables that only grow.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ways.h"

#define COPY_CHUNK 65536

#define EVENT_COLUMNS \
	"(order_id text COLLATE \"C\", event_id text COLLATE \"C\", event_time timestamptz, amount numeric"
#define GROWS ") WITH (autovacuum_enabled = off)"
#define FACT_TABLE \
	"CREATE TABLE hand_fact (minute timestamptz PRIMARY KEY, revenue numeric NOT NULL, " \
	"events bigint NOT NULL) WITH (fillfactor = 20)"
#define TOTALS(fact) \
	"SELECT extract(epoch FROM minute)::bigint, (sum(revenue) * 100)::bigint, sum(events)::bigint FROM " \
	fact " GROUP BY 1"
#define UNNEST "unnest($1::text[], $2::text[], $3::timestamptz[], $4::numeric[])"
#define UPSERT_FRESH \
	"INSERT INTO hand_fact AS f SELECT date_trunc('minute', event_time), sum(amount), count(*) " \
	"FROM fresh GROUP BY 1 ORDER BY 1 " \
	"ON CONFLICT (minute) DO UPDATE SET revenue = f.revenue + excluded.revenue, " \
	"events = f.events + excluded.events"

const Way	way_apply = {
	.name = "apply",
	.setup = "SELECT revenue_sink.create_sink('bench', 'bench_fact', 'bench_events')",
	.statement = "SELECT * FROM revenue_sink.apply('bench', $1::text[], $2::text[], "
	"$3::timestamptz[], $4::numeric[])",
	.totals = TOTALS("bench_fact"),
	.teardown = "SELECT revenue_sink.drop_sink('bench')"
};

const Way	way_apply_each = {
	.name = "apply_each",
	.setup = "SELECT revenue_sink.create_sink('bench', 'bench_fact', 'bench_events')",
	.statement = "SELECT revenue_sink.apply_each('bench', $1::text[], $2::text[], "
	"$3::timestamptz[], $4::numeric[])",
	.totals = TOTALS("bench_fact"),
	.teardown = "SELECT revenue_sink.drop_sink('bench')"
};

const Way	way_apply_rows = {
	.name = "apply_rows",
	.setup = "SELECT revenue_sink.create_sink('bench', 'bench_fact', 'bench_events')",
	.statement = "SELECT * FROM revenue_sink.apply_rows('bench', $1::bytea)",
	.rows = true,
	.totals = TOTALS("bench_fact"),
	.teardown = "SELECT revenue_sink.drop_sink('bench')"
};

const Way	way_ingest = {
	.name = "ingest",
	.setup = "SELECT revenue_sink.create_sink('bench', 'bench_fact', 'bench_events')",
	.statement = "COPY bench_events (order_id, event_id, event_time, amount) FROM STDIN (FORMAT binary)",
	.totals = TOTALS("bench_fact"),
	.teardown = "SELECT revenue_sink.drop_sink('bench')"
};

const Way	way_ingest_single = {
	.name = "ingest_single",
	.setup = "SELECT revenue_sink.create_sink('bench', 'bench_fact', 'bench_events')",
	.statement = "COPY bench_events (order_id, event_id, event_time, amount) FROM STDIN (FORMAT binary)",
	.single = true,
	.totals = TOTALS("bench_fact"),
	.teardown = "SELECT revenue_sink.drop_sink('bench')"
};

const Way	way_hand = {
	.name = "hand",
	.setup = FACT_TABLE ";"
	"CREATE TABLE hand_event " EVENT_COLUMNS ", PRIMARY KEY (order_id, event_id)" GROWS,
	.statement = "WITH fresh AS (INSERT INTO hand_event SELECT * FROM " UNNEST " AS u (o, e, t, a) "
	"ORDER BY o COLLATE \"C\", e COLLATE \"C\" ON CONFLICT DO NOTHING "
	"RETURNING event_time, amount) " UPSERT_FRESH,
	.totals = TOTALS("hand_fact"),
	.teardown = "DROP TABLE hand_event, hand_fact"
};

/* The key as a hash of 16 bytes. */
const Way	way_hand_hash = {
	.name = "hand_hash",
	.setup = FACT_TABLE ";"
	"CREATE TABLE hand_event (id uuid PRIMARY KEY, event_time timestamptz, amount numeric" GROWS,
	.statement = "WITH fresh AS (INSERT INTO hand_event SELECT md5(o || ' ' || e)::uuid, t, a FROM "
	UNNEST " AS u (o, e, t, a) ORDER BY 1 ON CONFLICT DO NOTHING "
	"RETURNING event_time, amount) " UPSERT_FRESH,
	.totals = TOTALS("hand_fact"),
	.teardown = "DROP TABLE hand_event, hand_fact"
};

const Way	way_pk = {
	.name = "pk",
	.setup = "CREATE TABLE keyed " EVENT_COLUMNS ", PRIMARY KEY (order_id, event_id)" GROWS,
	.statement = "COPY keyed FROM STDIN (FORMAT binary)",
	.count = "SELECT count(*) FROM keyed",
	.teardown = "DROP TABLE keyed"
};

const Way	way_pk_single = {
	.name = "pk_single",
	.setup = "CREATE TABLE keyed " EVENT_COLUMNS ", PRIMARY KEY (order_id, event_id)" GROWS,
	.statement = "COPY keyed FROM STDIN (FORMAT binary)",
	.single = true,
	.count = "SELECT count(*) FROM keyed",
	.teardown = "DROP TABLE keyed"
};

const Way	way_heap = {
	.name = "heap",
	.setup = "CREATE TABLE bare " EVENT_COLUMNS GROWS,
	.statement = "COPY bare FROM STDIN (FORMAT binary)",
	.count = "SELECT count(*) FROM bare",
	.teardown = "DROP TABLE bare"
};

const Way	way_heap_single = {
	.name = "heap_single",
	.setup = "CREATE TABLE bare " EVENT_COLUMNS GROWS,
	.statement = "COPY bare FROM STDIN (FORMAT binary)",
	.single = true,
	.count = "SELECT count(*) FROM bare",
	.teardown = "DROP TABLE bare"
};

/* A sink that has seen little. */
const Way	way_few = {
	.name = "few",
	.setup = "SELECT revenue_sink.create_sink('few', 'few_fact', 'few_events')",
	.statement = "SELECT * FROM revenue_sink.apply('few', $1::text[], $2::text[], "
	"$3::timestamptz[], $4::numeric[])",
	.totals = TOTALS("few_fact"),
	.teardown = "SELECT revenue_sink.drop_sink('few')"
};

/* A sink that has seen a lot; it stays from round to round. */
const Way	way_big = {
	.name = "seen_big",
	.setup = "SELECT revenue_sink.create_sink('big', 'big_fact', 'big_events')",
	.statement = "SELECT * FROM revenue_sink.apply('big', $1::text[], $2::text[], "
	"$3::timestamptz[], $4::numeric[])",
	.totals = TOTALS("big_fact")
};

/* Call this once for each connection, before way_run(). */
void
way_prepare(PGconn *conn, const Way *way)
{
	PGresult   *result;

	if (strncmp(way->statement, "COPY", 4) == 0)
		return;
	result = PQprepare(conn, "apply", way->statement, 0, NULL);
	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		fail("%s: %s", way->statement, PQerrorMessage(conn));
	PQclear(result);
}

/*
 * Wait in a pipeline for all answers up to a sync; the last row's first value, if
 * it's text, into "value" if that isn't NULL.
 */
void
pipeline_answers(PGconn *conn, const Way *way, char *value, size_t size)
{
	bool		synced = false;

	while (!synced)
	{
		PGresult   *result = PQgetResult(conn);

		switch (PQresultStatus(result))
		{
			case PGRES_TUPLES_OK:
				if (value != NULL && PQfformat(result, 0) == 0)
					snprintf(value, size, "%s", PQgetvalue(result, 0, 0));
				break;
			case PGRES_COMMAND_OK:
				break;
			case PGRES_PIPELINE_SYNC:
				synced = true;
				break;
			default:
				if (result != NULL)
					fail("%s: %s", way->name, PQresultErrorMessage(result));
		}
		PQclear(result);
	}
}

/* Send a call of a prepared statement in a pipeline. */
static bool
send_batch(PGconn *conn, const Way *way, const Batch *batch)
{
	static const int binary[NARRAYS] = {1, 1, 1, 1};
	const char *rows = batch->rows;
	int			rows_len = (int) batch->rows_len;

	if (way->rows)
		return PQsendQueryPrepared(conn, "apply", 1, &rows, &rows_len, binary, 1) == 1;
	return PQsendQueryPrepared(conn, "apply", NARRAYS, (const char *const *) batch->array,
							   batch->array_len, binary, 1) == 1;
}

/* A pipeline: the next call is on its way while the server has this one. */
static void
run_prepared(PGconn *conn, const Way *way, const Batch *batches, int nbatches)
{
	bool		ok = PQenterPipelineMode(conn) == 1;

	for (int b = 0; ok && b < nbatches; b++)
	{
		ok = send_batch(conn, way, &batches[b]) && PQpipelineSync(conn);
		if (ok && b > 0)
			pipeline_answers(conn, way, NULL, 0);
	}
	if (ok && nbatches > 0)
		pipeline_answers(conn, way, NULL, 0);
	if (!ok || PQexitPipelineMode(conn) != 1)
		fail("%s: %s", way->name, PQerrorMessage(conn));
}

static void
copy_send(PGconn *conn, const Way *way, const char *data, size_t len)
{
	while (len > 0)
	{
		int			chunk = len < COPY_CHUNK ? (int) len : COPY_CHUNK;

		if (PQputCopyData(conn, data, chunk) != 1)
			fail("%s: %s", way->name, PQerrorMessage(conn));
		data += chunk;
		len -= (size_t) chunk;
	}
}

static void
run_copy(PGconn *conn, const Way *way, const Batch *batches, int nbatches)
{
	PGresult   *result = PQexec(conn, way->statement);

	if (PQresultStatus(result) != PGRES_COPY_IN)
		fail("%s: %s", way->name, PQerrorMessage(conn));
	PQclear(result);
	for (int b = 0; b < nbatches; b++)
	{
		size_t		from = b == 0 ? 0 : ROWS_HEADER_LEN;
		size_t		to = batches[b].rows_len - (b == nbatches - 1 ? 0 : ROWS_TRAILER_LEN);

		copy_send(conn, way, batches[b].rows + from, to - from);
	}
	if (PQputCopyEnd(conn, NULL) != 1)
		fail("%s: %s", way->name, PQerrorMessage(conn));
	while ((result = PQgetResult(conn)) != NULL)
	{
		if (PQresultStatus(result) != PGRES_COMMAND_OK)
			fail("%s: %s", way->name, PQerrorMessage(conn));
		PQclear(result);
	}
}

/* Send all calls, each in its transaction; returns the seconds it took. */
double
way_run(PGconn *conn, const Way *way, const Batch *batches, int nbatches)
{
	bool		copy = strncmp(way->statement, "COPY", 4) == 0;
	double		start = now_seconds();

	if (copy && way->single)
		run_copy(conn, way, batches, nbatches);
	else if (copy)
	{
		for (int b = 0; b < nbatches; b++)
			run_copy(conn, way, &batches[b], 1);
	}
	else
		run_prepared(conn, way, batches, nbatches);
	return now_seconds() - start;
}

/* The minutes in the way's own table. */
void
way_totals(PGconn *conn, const Way *way, Truth *totals)
{
	PGresult   *result = PQexec(conn, way->totals);

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		fail("%s: %s", way->totals, PQerrorMessage(conn));
	memset(totals, 0, sizeof(Truth));
	for (int i = 0; i < PQntuples(result); i++)
	{
		int64_t		minute = (atoll(PQgetvalue(result, i, 0)) - base_epoch) / 60;

		if (minute < 0 || minute >= MINUTES)
			fail("%s: a minute that no event is in: %s", way->name, PQgetvalue(result, i, 0));
		totals->cents[minute] = atoll(PQgetvalue(result, i, 1));
		totals->events[minute] = atoll(PQgetvalue(result, i, 2));
	}
	PQclear(result);
}

/* Fail unless the way has arrived at the truth. */
void
way_verify(PGconn *conn, const Way *way, const Truth *truth)
{
	if (way->totals != NULL)
	{
		Truth		totals;

		way_totals(conn, way, &totals);
		for (int m = 0; m < MINUTES; m++)
		{
			if (totals.cents[m] != truth->cents[m] || totals.events[m] != truth->events[m])
				fail("%s: minute %d has %lld events and %lld cents, in truth %lld and %lld", way->name, m,
					 (long long) totals.events[m], (long long) totals.cents[m],
					 (long long) truth->events[m], (long long) truth->cents[m]);
		}
	}
	else
	{
		char	   *count = bench_value(conn, way->count);
		int64_t		events = 0;

		for (int m = 0; m < MINUTES; m++)
			events += truth->events[m];
		if (atoll(count) != events)
			fail("%s: %s rows, in truth %lld", way->name, count, (long long) events);
		free(count);
	}
}
