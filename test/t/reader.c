/*-------------------------------------------------------------------------
 *
 * reader.c
 *	  The reader that watches a sink while the crash tests run.
 *
 * Looks at the fact view over and over, with one query that gives rows (key,
 * a, b): what a key's markers add up to in two different minutes. Each batch
 * carries both, so that at every look
 *
 *	a = b					a transaction is seen whole or not at all,
 *	a is never less			what was seen once doesn't vanish, nor does the key.
 *
 * Crashes and restarts of the server in between change nothing of that. Runs
 * until SIGTERM, then tells the number of looks. Exit status 1: a look was
 * wrong, told on stderr.
 *
 *-------------------------------------------------------------------------
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libpq-fe.h"

#define MAX_KEYS 64
#define PAUSE_MS 5

typedef struct Seen
{
	char		key[64];
	long long	sum;
	int			look;			/* the last one that had it */
} Seen;

static Seen seen[MAX_KEYS];
static int	nseen;
static volatile sig_atomic_t stop;

static void
on_term(int sig)
{
	stop = 1;
}

/* The place of a key in seen[], which is made if it is new. */
static Seen *
find(const char *key)
{
	int			i;

	for (i = 0; i < nseen; i++)
		if (strcmp(seen[i].key, key) == 0)
			return &seen[i];
	if (nseen == MAX_KEYS)
	{
		fprintf(stderr, "reader: too many keys\n");
		exit(1);
	}
	snprintf(seen[nseen].key, sizeof(seen[nseen].key), "%s", key);
	return &seen[nseen++];
}

static int
check_look(const PGresult *res, int look)
{
	int			wrong = 0;
	int			i;

	for (i = 0; i < PQntuples(res); i++)
	{
		Seen	   *s = find(PQgetvalue(res, i, 0));
		long long	a = atoll(PQgetvalue(res, i, 1));
		long long	b = atoll(PQgetvalue(res, i, 2));

		if (a != b)
		{
			fprintf(stderr, "reader: look %d: %s is %lld in one minute, %lld in the other\n",
					look, s->key, a, b);
			wrong = 1;
		}
		if (a < s->sum)
		{
			fprintf(stderr, "reader: look %d: %s was %lld and is %lld\n",
					look, s->key, s->sum, a);
			wrong = 1;
		}
		s->sum = a;
		s->look = look;
	}
	for (i = 0; i < nseen; i++)
		if (seen[i].look != look)
		{
			fprintf(stderr, "reader: look %d: %s was %lld and is gone\n",
					look, seen[i].key, seen[i].sum);
			wrong = 1;
		}
	return wrong;
}

int
main(int argc, char **argv)
{
	PGconn	   *conn = NULL;
	int			looks = 0;

	if (argc != 3)
	{
		fprintf(stderr, "usage: reader CONNINFO QUERY\n");
		return 2;
	}
	signal(SIGTERM, on_term);
	signal(SIGPIPE, SIG_IGN);

	while (!stop)
	{
		if (conn == NULL)
			conn = PQconnectdb(argv[1]);
		if (PQstatus(conn) == CONNECTION_OK)
		{
			PGresult   *res = PQexec(conn, argv[2]);

			if (PQresultStatus(res) == PGRES_TUPLES_OK)
			{
				if (check_look(res, ++looks) != 0)
					return 1;
			}
			else if (PQstatus(conn) == CONNECTION_OK)
			{
				/* terminated while it waited, perhaps: then it ends just now */
				PQconsumeInput(conn);
				if (PQstatus(conn) == CONNECTION_OK &&
					strncmp(PQresultErrorField(res, PG_DIAG_SQLSTATE), "57", 2) != 0)
				{
					fprintf(stderr, "reader: %s", PQerrorMessage(conn));
					return 1;
				}
			}
			PQclear(res);
		}
		if (PQstatus(conn) != CONNECTION_OK)
		{
			PQfinish(conn);
			conn = NULL;
		}
		poll(NULL, 0, PAUSE_MS);
	}
	PQfinish(conn);
	printf("looks %d\n", looks);
	return 0;
}
