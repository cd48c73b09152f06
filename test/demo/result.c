/*-------------------------------------------------------------------------
 *
 * result.c
 *	  What the sink says, shown and compared with the truth.
 *
 *-------------------------------------------------------------------------
 */
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "result.h"
#include "truth.h"

#define CHART_WIDTH 60
#define CHART_HEIGHT 8
#define SETTLE_SECONDS 60
#define POLL_MS 50
#define MAX_SHOWN 10			/* differences */

const char *
with_commas(long long n)
{
	static char ring[8][32];
	static int	next = 0;
	char	   *out = ring[next++ % 8] + 31;
	unsigned long long rest = n < 0 ? -(unsigned long long) n : (unsigned long long) n;

	*out = '\0';
	for (int digits = 0; digits == 0 || rest > 0; digits++, rest /= 10)
	{
		if (digits > 0 && digits % 3 == 0)
			*--out = ',';
		*--out = (char) ('0' + rest % 10);
	}
	if (n < 0)
		*--out = '-';
	return out;
}

/* Cents are rounded here, for the eye alone. */
static const char *
amount_text(Amount amount)
{
	static char ring[4][64];
	static int	next = 0;
	char	   *out = ring[next++ % 4];
	Amount		cents = (amount < 0 ? -amount : amount) / (AMOUNT_UNIT / 100);

	snprintf(out, sizeof(ring[0]), "%s%s.%02d", amount < 0 ? "-" : "",
			 with_commas((long long) (cents / 100)), (int) (cents % 100));
	return out;
}

/* A numeric as the server prints it, to the last digit. */
static Amount
parse_numeric(const char *text)
{
	const char *p = text;
	Amount		value = 0;
	int			decimals = -1;	/* none before the point */

	if (*p == '-')
		p++;
	for (; *p; p++)
	{
		if (*p == '.' && decimals < 0)
			decimals = 0;
		else if (*p >= '0' && *p <= '9' && decimals < AMOUNT_DECIMALS)
		{
			value = value * 10 + (*p - '0');
			decimals += decimals >= 0;
		}
		else
			die("the fact view has a revenue of \"%s\", which no sum of this log can be", text);
	}
	for (decimals = decimals < 0 ? 0 : decimals; decimals < AMOUNT_DECIMALS; decimals++)
		value *= 10;
	return *text == '-' ? -value : value;
}

static PGresult *
query(PGconn *conn, const char *sql, const char *param)
{
	PGresult   *res = PQexecParams(conn, sql, param ? 1 : 0, NULL, &param, NULL, NULL, 0);

	if (PQresultStatus(res) != PGRES_TUPLES_OK)
		die("%s: %s", sql, PQresultErrorMessage(res));
	return res;
}

/*
 * Deferred events came while a copy of them was in another open transaction.
 * The worker settles them within a second or so; merge() does it now.
 */
static void
settle(PGconn *conn, const char *sink)
{
	for (int waited = 0; waited <= SETTLE_SECONDS * 1000; waited += POLL_MS)
	{
		PGresult   *res;
		bool		settled;

		PQclear(query(conn, "SELECT revenue_sink.merge($1)", sink));
		res = query(conn, "SELECT 1 FROM revenue_sink.deferred WHERE sink = $1 LIMIT 1", sink);
		settled = PQntuples(res) == 0;
		PQclear(res);
		if (settled)
			return;
		poll(NULL, 0, POLL_MS);
	}
	die("events are still deferred after %d seconds", SETTLE_SECONDS);
}

/* The rows of the fact view; they point into the result. */
static int64_t
read_facts(const PGresult *res, Total **facts)
{
	int			n = PQntuples(res);
	Total	   *fact = must_alloc(NULL, ((size_t) n + 1) * sizeof(Total));

	for (int i = 0; i < n; i++)
	{
		fact[i].minute = atoll(PQgetvalue(res, i, 0)) / 60;
		fact[i].group_key = PQgetvalue(res, i, 1);
		fact[i].group_len = PQgetlength(res, i, 1);
		fact[i].revenue = parse_numeric(PQgetvalue(res, i, 2));
		fact[i].events = atoll(PQgetvalue(res, i, 3));
	}
	*facts = fact;
	return n;
}

static void
format_minute(char *out, size_t size, const char *format, int64_t minute)
{
	time_t		seconds = (time_t) (minute * 60);
	struct tm	tm;

	gmtime_r(&seconds, &tm);
	strftime(out, size, format, &tm);
}

/* Upright bars, one a minute, or a few minutes, eight steps to a line. */
static void
show_chart(const Total *fact, int64_t nfacts)
{
	static const char *const block[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
	bool		fine = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
	Amount		column[CHART_WIDTH] = {0};
	Amount		highest = 0;
	int64_t		first = fact[0].minute;
	int64_t		span = fact[nfacts - 1].minute - first + 1;
	int64_t		width = (span + CHART_WIDTH - 1) / CHART_WIDTH;	/* minutes a column */
	int			ncolumns = (int) ((span + width - 1) / width);
	char		from[64];
	char		to[64];
	int			gap;

	for (int64_t i = 0; i < nfacts; i++)
		column[(fact[i].minute - first) / width] += fact[i].revenue;
	for (int c = 0; c < ncolumns; c++)
		if (column[c] > highest)
			highest = column[c];

	if (width == 1)
		printf("\n   revenue per minute, as the fact view has it\n");
	else
		printf("\n   revenue per %s minutes, as the fact view has it\n", with_commas((long long) width));
	for (int row = CHART_HEIGHT - 1; row >= 0; row--)
	{
		printf("%16s |", row == CHART_HEIGHT - 1 ? amount_text(highest) : row == 0 ? "0.00" : "");
		for (int c = 0; c < ncolumns; c++)
		{
			int			steps = 0;

			if (column[c] > 0)
				steps = (int) (column[c] * 8 * CHART_HEIGHT / highest) - 8 * row;
			steps = steps < 0 ? 0 : steps > 8 ? 8 : steps;
			fputs(fine ? block[steps] : steps >= 4 ? "#" : " ", stdout);
		}
		putchar('\n');
	}
	format_minute(from, sizeof(from), "%Y-%m-%d %H:%M", first);
	format_minute(to, sizeof(to), span < 1440 ? "%H:%M" : "%Y-%m-%d %H:%M", first + span - 1);
	gap = ncolumns - (int) (strlen(from) + strlen(to));
	if (gap > 0)
		printf("%16s  %s%*s%s UTC\n\n", "", from, gap, "", to);
	else
		printf("%16s  %s to %s UTC\n\n", "", from, to);
}

/* Counters as the sink itself keeps them. */
static void
show_stat(PGconn *conn, const char *sink)
{
	PGresult   *res = query(conn,
							"SELECT applied, duplicate, deferred, conflict, late, rejected, seen_events,"
							" seen_bytes_disk, seen_bytes_memory, to_char(stats_since, 'HH24:MI:SS')"
							" FROM revenue_sink.stat_sink WHERE sink = $1", sink);

	if (PQntuples(res) != 1)
		die("stat_sink does not show the sink");
	printf("   stat_sink, since %s: %s applied, %s duplicate, %s deferred, %s conflict, %s late, %s rejected\n",
		   PQgetvalue(res, 0, 9), with_commas(atoll(PQgetvalue(res, 0, 0))),
		   with_commas(atoll(PQgetvalue(res, 0, 1))), with_commas(atoll(PQgetvalue(res, 0, 2))),
		   with_commas(atoll(PQgetvalue(res, 0, 3))), with_commas(atoll(PQgetvalue(res, 0, 4))),
		   with_commas(atoll(PQgetvalue(res, 0, 5))));
	printf("   %s events remembered, in %s MB on disk and %s MB of memory\n",
		   with_commas(atoll(PQgetvalue(res, 0, 6))), with_commas(atoll(PQgetvalue(res, 0, 7)) >> 20),
		   with_commas(atoll(PQgetvalue(res, 0, 8)) >> 20));
	PQclear(res);
}

/* The sink's own check of index, pages, revenue and ledger. */
static bool
show_check(PGconn *conn, const char *sink)
{
	PGresult   *res = query(conn, "SELECT problem FROM revenue_sink.check($1)", sink);
	int			n = PQntuples(res);

	for (int i = 0; i < n && i < MAX_SHOWN; i++)
		printf("   check(): %s\n", PQgetvalue(res, i, 0));
	if (n == 0)
		puts("   check(): no disagreement between index, pages, revenue and ledger");
	PQclear(res);
	return n == 0;
}

static void
show_side(const char *name, const Total *total)
{
	if (total)
		printf("%s %s of %s events", name, amount_text(total->revenue), with_commas(total->events));
	else
		printf("%s nothing", name);
}

/* Both lists are sorted; each difference is a minute and group of either. */
static int64_t
compare_totals(const Total *fact, int64_t nfacts, const Truth *truth)
{
	int64_t		ndifferent = 0;
	int64_t		i = 0;
	int64_t		j = 0;

	while (i < nfacts || j < truth->ntotals)
	{
		const Total *ours = i < nfacts ? &fact[i] : NULL;
		const Total *true_one = j < truth->ntotals ? &truth->total[j] : NULL;
		int			order = !ours ? 1 : !true_one ? -1 : total_compare(ours, true_one);
		const Total *at = order <= 0 ? ours : true_one;
		char		minute[64];

		i += order <= 0;
		j += order >= 0;
		if (order == 0 && ours->revenue == true_one->revenue && ours->events == true_one->events)
			continue;
		if (ndifferent++ >= MAX_SHOWN)
			continue;
		format_minute(minute, sizeof(minute), "%Y-%m-%d %H:%M", at->minute);
		printf("   DIFFERENT: %s \"%.*s\": ", minute, at->group_len, at->group_key);
		show_side("sink", order <= 0 ? ours : NULL);
		show_side(", truth", order >= 0 ? true_one : NULL);
		putchar('\n');
	}
	return ndifferent;
}

static int64_t
count_minutes(const Truth *truth)
{
	int64_t		n = 0;

	for (int64_t i = 0; i < truth->ntotals; i++)
		n += i == 0 || truth->total[i].minute != truth->total[i - 1].minute;
	return n;
}

/* Show all; true if the sink is right. */
bool
result_show(PGconn *conn, const char *sink, const char *dir)
{
	Truth		truth;
	Total	   *fact;
	Amount		revenue = 0;
	int64_t		nfacts;
	int64_t		nminutes;
	int64_t		ndifferent;
	PGresult   *res;
	bool		consistent;

	setlocale(LC_CTYPE, "");
	settle(conn, sink);
	res = query(conn, "SELECT extract(epoch FROM minute)::bigint, group_key, revenue, events"
				" FROM fact_revenue_1m ORDER BY minute, group_key COLLATE \"C\"", NULL);
	nfacts = read_facts(res, &fact);
	if (nfacts > 0)
		show_chart(fact, nfacts);
	show_stat(conn, sink);
	consistent = show_check(conn, sink);
	fflush(stdout);

	truth_compute(dir, &truth);
	printf("   truth, from the log alone: %s events, %s distinct, %s with known ids and other contents\n",
		   with_commas(truth.delivered), with_commas(truth.distinct), with_commas(truth.conflicting));
	nminutes = count_minutes(&truth);
	ndifferent = compare_totals(fact, nfacts, &truth);
	for (int64_t i = 0; i < nfacts; i++)
		revenue += fact[i].revenue;
	PQclear(res);

	putchar('\n');
	if (ndifferent > 0)
		printf("%s totals DIFFER from the truth\n", with_commas(ndifferent));
	else if (!consistent)
		printf("the minutes equal the truth, but check() found problems\n");
	else
		printf("all %s minute%s equal%s the truth: %s events, each counted once, revenue %s\n",
			   with_commas(nminutes), nminutes == 1 ? "" : "s", nminutes == 1 ? "s" : "",
			   with_commas(truth.distinct), amount_text(revenue));
	return ndifferent == 0 && consistent;
}
