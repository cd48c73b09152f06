/*-------------------------------------------------------------------------
 *
 * writer.c
 *	  One writer of an order event stream, for the crash tests.
 *
 * Streams the lines of a file, order_id,event_id,event_time,amount,group_key,
 * as a consumer with at-least-once delivery does: opens its epoch, seeks to
 * the stored offset (and often some lines before it, as a replay would), then
 * sends batches, each in one transaction with the offset that follows it.
 * Every batch takes another door in: arrays, COPY, INSERT, jsonb.
 *
 * A lost connection is made again. Then the writer either opens a new epoch
 * and seeks, or, as one that only lost the answer, keeps its epoch and asks
 * begin_batch() whether the very same batch is in already.
 *
 * Lines are grouped in blocks, whose lines must appear together for readers,
 * so that a batch is always whole blocks.
 *
 * A test may ask for a pause after each batch, and for a gate: the second half of
 * the stream waits until a file exists.
 *
 * Each step is told on stdout, "<step> <offset>", for the test that decides
 * when to pull which plug: "open" (with the server's process id in place of
 * the offset), "begin", "applied", "commit" (before it is sent), "done",
 * "skipped" (begin_batch said no) and "lost". Exit status 0: the whole
 * stream up to the end asked for is committed. 1: an error that no new try
 * can mend, told on stderr.
 *
 *-------------------------------------------------------------------------
 */
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libpq-fe.h"

#define BLOCK 100
#define MAX_BLOCKS 4			/* in a batch */
#define MAX_REWIND 5			/* blocks replayed after a seek, less one */
#define HANG_UP 20				/* of so many batches, one answer isn't heard */
#define NFIELDS 5
#define RETRY_MS 20
#define PATIENCE_MS 120000		/* of retries without any progress */

typedef struct Line
{
	char	   *field[NFIELDS];
} Line;

typedef struct Buffer
{
	char	   *data;
	size_t		len;
	size_t		size;
} Buffer;

typedef enum Outcome
{
	DONE,						/* committed */
	SKIPPED,					/* had been committed before */
	LOST						/* connection or transaction lost */
} Outcome;

static const char *conninfo;
static const char *sink;
static const char *ingest;
static const char *job;
static const char *name;
static const char *partition = "0";
static const char *gate;		/* closes the second half of the stream */
static int	pause_ms;			/* after each batch */
static uint64_t rng;

static Line *lines;
static int64_t nlines;

static void __attribute__((format(printf, 1, 2), noreturn))
fail(const char *fmt,...)
{
	va_list		ap;

	fprintf(stderr, "writer %s: ", name ? name : "?");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

static void
tell(const char *step, int64_t what)
{
	printf("%s %" PRId64 "\n", step, what);
	fflush(stdout);
}

/* xorshift64*: the same choices for the same seed, everywhere. */
static int
choose(int below)
{
	rng ^= rng >> 12;
	rng ^= rng << 25;
	rng ^= rng >> 27;
	return (int) ((rng * UINT64_C(2685821657736338717) >> 33) % (uint64_t) below);
}

static void
append(Buffer *buf, const char *text)
{
	size_t		n = strlen(text);

	if (buf->len + n + 1 > buf->size)
	{
		buf->size = (buf->len + n + 1) * 2;
		buf->data = realloc(buf->data, buf->size);
		if (buf->data == NULL)
			fail("out of memory");
	}
	memcpy(buf->data + buf->len, text, n + 1);
	buf->len += n;
}

/* Plain fields, without quotes, commas or backslashes, make parsing trivial. */
static void
read_stream(const char *path, int64_t end)
{
	FILE	   *file = fopen(path, "r");
	char		text[1024];

	if (file == NULL)
		fail("could not open \"%s\"", path);
	lines = calloc(end + 1, sizeof(Line));
	if (lines == NULL)
		fail("out of memory");
	while (nlines < end && fgets(text, sizeof(text), file))
	{
		char	   *rest = text;
		int			i;

		text[strcspn(text, "\n")] = '\0';
		for (i = 0; i < NFIELDS; i++)
		{
			char	   *field = strsep(&rest, ",");

			if (field == NULL)
				fail("line %" PRId64 " of \"%s\" is short", nlines + 1, path);
			lines[nlines].field[i] = strdup(field);
		}
		nlines++;
	}
	if (nlines < end)
		fail("\"%s\" ends at %" PRId64, path, nlines);
	fclose(file);
}

/*
 * Is it worth another try? Connections lost, servers that start or stop,
 * serialization failures, deadlocks, locks and objects in use.
 */
static bool
may_retry(PGconn *conn, const PGresult *res)
{
	const char *state = res ? PQresultErrorField(res, PG_DIAG_SQLSTATE) : NULL;

	if (PQstatus(conn) != CONNECTION_OK || state == NULL)
		return true;
	return strncmp(state, "08", 2) == 0 || strncmp(state, "40", 2) == 0 ||
		strncmp(state, "55", 2) == 0 || strncmp(state, "57", 2) == 0 ||
		strcmp(state, "25006") == 0;
}

/* Run a statement; NULL if the transaction or the connection is lost. */
static PGresult *
run(PGconn *conn, ExecStatusType wanted, const char *sql, int nparams,
	const char *const *params)
{
	PGresult   *res = PQexecParams(conn, sql, nparams, NULL, params, NULL, NULL, 0);

	if (PQresultStatus(res) == wanted)
		return res;
	if (!may_retry(conn, res))
		fail("%s: %s", sql, PQresultErrorMessage(res));
	PQclear(res);
	return NULL;
}

static bool
command(PGconn *conn, const char *sql)
{
	PGresult   *res = run(conn, PGRES_COMMAND_OK, sql, 0, NULL);

	PQclear(res);
	return res != NULL;
}

/* The column of some lines as an array literal. */
static char *
column_array(int field, int64_t from, int64_t to)
{
	Buffer		buf = {0};
	int64_t		i;

	append(&buf, "{");
	for (i = from; i < to; i++)
	{
		append(&buf, i > from ? ",\"" : "\"");
		append(&buf, lines[i].field[field]);
		append(&buf, "\"");
	}
	append(&buf, "}");
	return buf.data;
}

static char *
json_array(int64_t from, int64_t to)
{
	static const char *const key[NFIELDS] =
	{"order_id", "event_id", "event_time", "amount", "group_key"};
	Buffer		buf = {0};
	int64_t		i;
	int			f;

	append(&buf, "[");
	for (i = from; i < to; i++)
	{
		append(&buf, i > from ? ",{" : "{");
		for (f = 0; f < NFIELDS; f++)
		{
			/* an amount is a number, so without quotes */
			append(&buf, f > 0 ? ",\"" : "\"");
			append(&buf, key[f]);
			append(&buf, f == 3 ? "\":" : "\":\"");
			append(&buf, lines[i].field[f]);
			append(&buf, f == 3 ? "" : "\"");
		}
		append(&buf, "}");
	}
	append(&buf, "]");
	return buf.data;
}

/* The six counts must be those of the events given. */
static bool
check_counts(PGresult *res, int64_t given)
{
	int64_t		sum = 0;
	int			i;

	if (res == NULL)
		return false;
	if (PQntuples(res) != 1 || PQnfields(res) != 6)
		fail("apply() gave %d rows of %d", PQntuples(res), PQnfields(res));
	for (i = 0; i < 6; i++)
		sum += atoll(PQgetvalue(res, 0, i));
	if (sum != given)
		fail("apply() accounts for %" PRId64 " of %" PRId64 " events", sum, given);
	PQclear(res);
	return true;
}

static bool
check_tag(PGresult *res, int64_t given)
{
	if (res == NULL)
		return false;
	if (atoll(PQcmdTuples(res)) != given)
		fail("command tag says %s of %" PRId64 " events", PQcmdTuples(res), given);
	PQclear(res);
	return true;
}

static bool
apply_copy(PGconn *conn, int64_t from, int64_t to)
{
	char		sql[512];
	Buffer		buf = {0};
	PGresult   *res;
	int64_t		i;
	int			f;

	snprintf(sql, sizeof(sql), "COPY %s FROM STDIN (FORMAT csv)", ingest);
	res = run(conn, PGRES_COPY_IN, sql, 0, NULL);
	if (res == NULL)
		return false;
	PQclear(res);
	for (i = from; i < to; i++)
		for (f = 0; f < NFIELDS; f++)
		{
			append(&buf, lines[i].field[f]);
			append(&buf, f == NFIELDS - 1 ? "\n" : ",");
		}
	PQputCopyData(conn, buf.data, (int) buf.len);
	free(buf.data);
	PQputCopyEnd(conn, NULL);

	res = PQgetResult(conn);
	if (PQresultStatus(res) != PGRES_COMMAND_OK)
	{
		if (!may_retry(conn, res))
			fail("%s: %s", sql, PQresultErrorMessage(res));
		PQclear(res);
		return false;
	}
	PQclear(PQgetResult(conn));
	return check_tag(res, to - from);
}

static bool
apply_arrays(PGconn *conn, bool by_insert, int64_t from, int64_t to)
{
	char		sql[512];
	const char *params[NFIELDS + 1];
	bool		ok;
	int			f;

	for (f = 0; f < NFIELDS; f++)
		params[f] = column_array(f, from, to);
	params[NFIELDS] = sink;

	if (by_insert)
	{
		snprintf(sql, sizeof(sql),
				 "INSERT INTO %s SELECT * FROM unnest($1::text[], $2::text[],"
				 " $3::timestamptz[], $4::numeric[], $5::text[])", ingest);
		ok = check_tag(run(conn, PGRES_COMMAND_OK, sql, NFIELDS, params), to - from);
	}
	else
		ok = check_counts(run(conn, PGRES_TUPLES_OK,
							  "SELECT * FROM revenue_sink.apply($6, $1::text[],"
							  " $2::text[], $3::timestamptz[], $4::numeric[],"
							  " $5::text[])", NFIELDS + 1, params), to - from);
	for (f = 0; f < NFIELDS; f++)
		free((char *) params[f]);
	return ok;
}

static bool
apply_json(PGconn *conn, int64_t from, int64_t to)
{
	char	   *json = json_array(from, to);
	const char *params[2] = {sink, json};
	bool		ok;

	ok = check_counts(run(conn, PGRES_TUPLES_OK,
						  "SELECT * FROM revenue_sink.apply($1, $2::jsonb)",
						  2, params), to - from);
	free(json);
	return ok;
}

/* One batch, lines from .. to - 1, in one transaction. */
static Outcome
send_batch(PGconn *conn, const char *epoch, int64_t number, int64_t from, int64_t to)
{
	char		number_text[32];
	char		next[32];
	const char *begin[5] = {sink, job, name, epoch, number_text};
	const char *offset[4] = {sink, "orders", partition, next};
	PGresult   *res;
	bool		is_new;
	bool		ok;

	snprintf(number_text, sizeof(number_text), "%" PRId64, number);
	snprintf(next, sizeof(next), "%" PRId64, to);

	if (!command(conn, "BEGIN"))
		return LOST;
	res = run(conn, PGRES_TUPLES_OK,
			  "SELECT revenue_sink.begin_batch($1, $2, $3, $4, $5)", 5, begin);
	if (res == NULL)
		return LOST;
	is_new = PQgetvalue(res, 0, 0)[0] == 't';
	PQclear(res);
	if (!is_new)
		return command(conn, "COMMIT") ? SKIPPED : LOST;
	tell("begin", from);

	switch (choose(4))
	{
		case 0:
			ok = apply_copy(conn, from, to);
			break;
		case 1:
			ok = apply_json(conn, from, to);
			break;
		case 2:
			ok = apply_arrays(conn, true, from, to);
			break;
		default:
			ok = apply_arrays(conn, false, from, to);
			break;
	}
	if (!ok)
		return LOST;
	tell("applied", from);

	res = run(conn, PGRES_TUPLES_OK,
			  "SELECT revenue_sink.store_offsets($1, $2, ARRAY[$3::int], ARRAY[$4::bigint])",
			  4, offset);
	if (res == NULL)
		return LOST;
	PQclear(res);
	tell("commit", from);

	/* Now and then hang up without waiting for the answer. */
	if (choose(HANG_UP) == 0)
	{
		PQsendQuery(conn, "COMMIT");
		return LOST;
	}
	return command(conn, "COMMIT") ? DONE : LOST;
}

/* A new epoch; fences whatever is left of this writer. */
static bool
open_epoch(PGconn *conn, char *epoch, size_t size)
{
	const char *params[3] = {sink, job, name};
	PGresult   *res = run(conn, PGRES_TUPLES_OK,
						  "CALL revenue_sink.open_writer($1, $2, $3)", 3, params);

	if (res == NULL)
		return false;
	snprintf(epoch, size, "%s", PQgetvalue(res, 0, 0));
	PQclear(res);
	return true;
}

/* Where the stream goes on, -1 if the connection is lost. */
static int64_t
seek(PGconn *conn)
{
	const char *params[2] = {sink, partition};
	PGresult   *res = run(conn, PGRES_TUPLES_OK,
						  "SELECT next_offset FROM revenue_sink.offsets($1, 'orders')"
						  " WHERE partition = $2", 2, params);
	int64_t		position;

	if (res == NULL)
		return -1;
	position = PQntuples(res) > 0 ? atoll(PQgetvalue(res, 0, 0)) : 0;
	PQclear(res);
	return position;
}

/*
 * Connect, again and again if need be, and bring the writer's place in the
 * stream up to date.
 */
static void
stream(void)
{
	PGconn	   *conn = NULL;
	char		epoch[32] = "";
	int64_t		number = 0;
	int64_t		from = 0;
	int64_t		to = 0;			/* > from: a batch whose answer is missing */
	int			waited = 0;

	for (;;)
	{
		/* (Re)connect. */
		if (conn == NULL)
		{
			conn = PQconnectdb(conninfo);
			if (PQstatus(conn) != CONNECTION_OK)
			{
				if (waited > PATIENCE_MS)
					fail("%s", PQerrorMessage(conn));
				PQfinish(conn);
				conn = NULL;
				poll(NULL, 0, RETRY_MS);
				waited += RETRY_MS;
				continue;
			}
			tell("open", PQbackendPID(conn));

			/* Keep the epoch only to ask after a batch that is in doubt. */
			if (to == from || choose(2) > 0)
			{
				int64_t		position;

				/* Whether or not its answer gets lost, no way back from here. */
				to = from;
				if (!open_epoch(conn, epoch, sizeof(epoch)))
					goto lost;
				number = 0;		/* only now: numbers are those of an epoch */
				position = seek(conn);
				if (position < 0)
					goto lost;
				from = position - (int64_t) BLOCK * choose(MAX_REWIND);
				if (from < 0)
					from = 0;
				to = from;
			}
		}

		if (to == from)
		{
			if (from >= nlines)
				break;
			if (from >= nlines / 2 && gate && access(gate, F_OK) != 0)
			{
				poll(NULL, 0, RETRY_MS);
				continue;
			}
			to = from + (int64_t) BLOCK * (1 + choose(MAX_BLOCKS));
			if (to > nlines)
				to = nlines;
		}

		switch (send_batch(conn, epoch, number, from, to))
		{
			case DONE:
				tell("done", to);
				break;
			case SKIPPED:
				tell("skipped", to);
				break;
			case LOST:
				goto lost;
		}
		number++;
		from = to;
		waited = 0;
		poll(NULL, 0, pause_ms);
		continue;

lost:
		tell("lost", from);
		if (waited > PATIENCE_MS)
			fail("no progress at %" PRId64 ": %s", from, PQerrorMessage(conn));
		PQfinish(conn);
		conn = NULL;
		poll(NULL, 0, RETRY_MS);
		waited += RETRY_MS;
	}
	PQfinish(conn);
}

int
main(int argc, char **argv)
{
	const char *path = NULL;
	int64_t		end = 0;
	int			c;

	while ((c = getopt(argc, argv, "d:s:i:j:w:p:f:e:r:g:m:")) != -1)
	{
		switch (c)
		{
			case 'd':
				conninfo = optarg;
				break;
			case 's':
				sink = optarg;
				break;
			case 'i':
				ingest = optarg;
				break;
			case 'j':
				job = optarg;
				break;
			case 'w':
				name = optarg;
				break;
			case 'p':
				partition = optarg;
				break;
			case 'g':
				gate = optarg;
				break;
			case 'm':
				pause_ms = atoi(optarg);
				break;
			case 'f':
				path = optarg;
				break;
			case 'e':
				end = atoll(optarg);
				break;
			case 'r':
				rng = strtoull(optarg, NULL, 10);
				break;
			default:
				return 2;
		}
	}
	if (!conninfo || !sink || !ingest || !job || !name || !path || !end || !rng)
		fail("all of -d -s -i -j -w -f -e -r are needed");
	signal(SIGPIPE, SIG_IGN);
	read_stream(path, end);
	stream();
	return 0;
}
