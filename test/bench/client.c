/*-------------------------------------------------------------------------
 *
 * client.c
 *	  What the clients of the benchmark and of the soak test share.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client.h"

/* Print a message, as by printf, and end the program. */
void
fail(const char *fmt,...)
{
	va_list		args;

	fflush(stdout);
	fprintf(stderr, "%s: ", program_invocation_short_name);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fprintf(stderr, "\n");
	exit(1);
}

double
now_seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}

/* Connect as the environment says. */
PGconn *
bench_connect(void)
{
	PGconn	   *conn = PQconnectdb("");

	if (PQstatus(conn) != CONNECTION_OK)
		fail("%s", PQerrorMessage(conn));
	bench_exec(conn, "SET timezone = 'UTC'; SET client_min_messages = warning");
	return conn;
}

void
bench_exec(PGconn *conn, const char *sql)
{
	PGresult   *result = PQexec(conn, sql);

	if (PQresultStatus(result) != PGRES_COMMAND_OK && PQresultStatus(result) != PGRES_TUPLES_OK)
		fail("%s: %s", sql, PQerrorMessage(conn));
	PQclear(result);
}

/* The only value that a query returns, allocated. */
char *
bench_value(PGconn *conn, const char *sql)
{
	PGresult   *result = PQexec(conn, sql);
	char	   *value;

	if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1)
		fail("%s: %s", sql, PQerrorMessage(conn));
	value = strdup(PQgetvalue(result, 0, 0));
	PQclear(result);
	return value;
}

/* The only value that a query returns, as a number. */
double
bench_number(PGconn *conn, const char *sql)
{
	char	   *value = bench_value(conn, sql);
	double		result = atof(value);

	free(value);
	return result;
}
