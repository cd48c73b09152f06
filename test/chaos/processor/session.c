/*-------------------------------------------------------------------------
 *
 * session.c
 *	  The connection of a process, which may be lost at any moment.
 *
 * What is lost on the way is asked again, by whoever knows what that means. An
 * error that no new try can mend ends the process, a lock timeout above all:
 * nobody in here may ever wait for another transaction.
 *
 *-------------------------------------------------------------------------
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "processor.h"
#include "session.h"

#define RETRY_MS 10
#define PATIENCE 60				/* seconds of new tries without any answer */

static PGconn *conn;
static int	lifeline = -1;		/* closed when the coordinator is gone */
static time_t answered;

static bool
one_of(const char *state, const char *const *states)
{
	for (; *states; states++)
		if (strncmp(state, *states, strlen(*states)) == 0)
			return true;
	return false;
}

/* Returns if it's worth another try. */
static void
judge(const char *sql, const PGresult *res)
{
	static const char *const again[] = {"08", "57P01", "57P02", "57P03", "40001", "25006", NULL};
	static const char *const lost[] = {"25000", "55000", "42704", "22023", NULL};
	const char *state = res ? PQresultErrorField(res, PG_DIAG_SQLSTATE) : NULL;

	if (PQstatus(conn) != CONNECTION_OK || state == NULL || one_of(state, again))
		return;
	if (strcmp(state, "RS001") == 0)
	{
		tell("fenced");
		exit(EXIT_FENCED);
	}
	if (config.failover_loses && one_of(state, lost))
	{
		tell("refused %s", state);
		exit(EXIT_RESTART);
	}
	die("%s: %s: %s", sql, state, PQresultErrorMessage(res));
}

/* Wait a little; no longer than whoever needs our work. */
static void
pause_between_tries(void)
{
	struct pollfd fd = {.fd = lifeline};

	if (poll(&fd, lifeline >= 0, RETRY_MS) > 0 && (fd.revents & (POLLHUP | POLLERR)))
		exit(EXIT_RESTART);
	if (time(NULL) - answered > PATIENCE)
		die("no answer for %d seconds; the last was: %s", PATIENCE, PQerrorMessage(conn));
}

static void
try_to_connect(void)
{
	PQfinish(conn);
	conn = PQconnectdb(config.conninfo);
}

static void
connect_at_last(void)
{
	try_to_connect();
	while (PQstatus(conn) != CONNECTION_OK)
	{
		pause_between_tries();
		try_to_connect();
	}
}

void
session_begin(int fd)
{
	lifeline = fd;
	answered = time(NULL);
	connect_at_last();
}

/* A child leaves its parent's connection alone, and doesn't keep it open. */
void
session_forget(void)
{
	close(PQsocket(conn));
	conn = NULL;
}

int
session_backend(void)
{
	return PQbackendPID(conn);
}

void
session_again(void)
{
	if (PQstatus(conn) == CONNECTION_OK && PQtransactionStatus(conn) != PQTRANS_IDLE)
		PQclear(PQexec(conn, "ROLLBACK"));
	if (PQstatus(conn) == CONNECTION_OK)
	{
		pause_between_tries();
		return;
	}
	tell("lost");
	if (config.restarts)
		exit(EXIT_RESTART);
	connect_at_last();
}

static PGresult *
judged(const char *sql, PGresult *res)
{
	if (PQresultStatus(res) == PGRES_TUPLES_OK || PQresultStatus(res) == PGRES_COMMAND_OK ||
		PQresultStatus(res) == PGRES_COPY_IN)
	{
		answered = time(NULL);
		return res;
	}
	judge(sql, res);
	PQclear(res);
	return NULL;
}

PGresult *
session_ask(const char *sql, int nparams, const char *const *params)
{
	return judged(sql, PQexecParams(conn, sql, nparams, NULL, params, NULL, NULL, 0));
}

PGresult *
session_ask_binary(const char *sql, int nparams, const Oid *types, const char *const *params,
				   const int *lengths, const int *formats)
{
	return judged(sql, PQexecParams(conn, sql, nparams, types, params, lengths, formats, 0));
}

bool
session_do(const char *sql)
{
	PGresult   *res = session_ask(sql, 0, NULL);

	/* the answer to COMMIT in a failed transaction is ROLLBACK */
	if (res && strcmp(sql, "COMMIT") == 0 && strcmp(PQcmdStatus(res), "COMMIT") != 0)
		die("COMMIT was answered with %s", PQcmdStatus(res));
	PQclear(res);
	return res != NULL;
}

bool
session_copy(const char *sql, const char *data, int len, int64_t rows)
{
	PGresult   *res = session_ask(sql, 0, NULL);

	if (res == NULL)
		return false;
	PQclear(res);
	PQputCopyData(conn, data, len);
	PQputCopyEnd(conn, NULL);
	res = judged(sql, PQgetResult(conn));
	if (res == NULL)
		return false;
	if (atoll(PQcmdTuples(res)) != rows)
		die("%s: \"%s\" for %lld rows", sql, PQcmdStatus(res), (long long) rows);
	PQclear(res);
	while ((res = PQgetResult(conn)) != NULL)
		PQclear(res);
	return true;
}

PGresult *
session_insist(const char *sql, int nparams, const char *const *params)
{
	PGresult   *res;

	while ((res = session_ask(sql, nparams, params)) == NULL)
		session_again();
	return res;
}
