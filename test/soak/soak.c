/*-------------------------------------------------------------------------
 *
 * soak.c
 *	  The client of the soak test.
 *
 *		soak fill FROM TO PART [KILL...]	new events, and a line for each PART of them
 *		soak replay FROM N EVERY			events that were sent before; one out of EVERY
 *											has another amount, none if EVERY is 0
 *		soak late FROM N					events that have expired
 *		soak pace RATE SECONDS WARM			new calls at a fixed rate, the first WARM
 *											seconds of which aren't measured
 *		soak oldest SENT					print which is the oldest known event
 *		soak compare						the sink's revenue with what was sent
 *
 * The script "run" calls these and explains what the environment has. What is right
 * and what is not is printed in lines that begin with "ok" and "not ok"; figures that
 * the script needs go to descriptor FIGURES_FD. An event is a function of its number
 * (events.h), so none is kept.
 *
 *-------------------------------------------------------------------------
 */
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

#define FIGURES_FD 4

Total	   *truth;
int			batch_size;
int			nconnections;
int64_t		window_events;

/* Tell the script a figure. */
void
note(const char *name, double value)
{
	bool		whole = value == (double) (int64_t) value;

	if (dprintf(FIGURES_FD, "%s %.*f\n", name, whole ? 0 : 3, value) < 0)
		fail("could not write to descriptor %d", FIGURES_FD);
}

/*
 * Print whether something is as it should be, which the text, as by printf, says, and
 * have the script count it.
 */
bool
is_right(bool right, const char *fmt,...)
{
	va_list		args;

	printf("%s - ", right ? "ok" : "not ok");
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
	note(right ? "passed" : "failed", 1);
	return right;
}

/*
 * Send the events [first, first + n), one call after another. Sums up the answers, and
 * returns the events per second.
 */
static double
send_old(int64_t first, int64_t n, int64_t every, int64_t *sums)
{
	PGconn	   *conn = sink_connect();
	Batch		batches[2] = {0};
	Histogram	calls = {0};
	double		start = now_seconds();
	double		seconds;
	int64_t		next = first;

	memset(sums, 0, NANSWERS * sizeof(int64_t));
	for (int b = 0; next < first + n || batches[1 - b].n > 0; b = 1 - b)
	{
		Batch	   *batch = &batches[b];
		const Batch *running = &batches[1 - b];
		int64_t		answers[NANSWERS];
		double		sent = now_seconds();

		if (running->n > 0 && !call_send(conn, running))
			fail("%s", PQerrorMessage(conn));
		batch_begin(batch, batch_size);
		for (; batch->n < batch_size && next < first + n; next++)
		{
			Event		event;

			event_make(SET_SOAK, next, &event);
			if (every > 0 && next % every == 0)
				event.cents++;
			batch_add(batch, &event);
		}
		if (running->n == 0)
			continue;
		if (!call_receive(conn, answers))
			fail("%s", PQerrorMessage(conn));
		histogram_add(&calls, now_seconds() - sent);
		for (int i = 0; i < NANSWERS; i++)
			sums[i] += answers[i];
	}
	seconds = now_seconds() - start;
	PQfinish(conn);
	printf("%.0f events/s, ", (double) n / seconds);
	print_latency(&calls);
	return (double) n / seconds;
}

/* Are the sums of answers these, and are there no others? */
static void
check_sums(const char *what, const int64_t *sums, int64_t duplicate, int64_t conflict, int64_t late)
{
	bool		right = sums[DUPLICATE] == duplicate && sums[CONFLICT] == conflict && sums[LATE] == late &&
		sums[APPLIED] == 0 && sums[DEFERRED] == 0 && sums[REJECTED] == 0;

	is_right(right, "%s: %lld duplicates, %lld conflicts, %lld late, %lld others", what,
			 (long long) sums[DUPLICATE], (long long) sums[CONFLICT], (long long) sums[LATE],
			 (long long) (sums[APPLIED] + sums[DEFERRED] + sums[REJECTED]));
}

static void
replay(int64_t first, int64_t n, int64_t every)
{
	int64_t		sums[NANSWERS];
	int64_t		altered = every > 0 ? (first + n + every - 1) / every - (first + every - 1) / every : 0;

	note("replay_rate", send_old(first, n, every, sums));
	note("conflicts", (double) altered);
	check_sums(every > 0 ? "another amount is found as a conflict" : "old events are duplicates",
			   sums, n - altered, altered, 0);
}

static void
send_late(int64_t first, int64_t n)
{
	int64_t		sums[NANSWERS];

	send_old(first, n, 0, sums);
	check_sums("expired events are late", sums, 0, 0, n);
}

/* Wait until a moment of now_seconds(). */
static void
wait_until(double moment)
{
	double		left;

	while ((left = moment - now_seconds()) > 0)
	{
		struct timespec pause = {.tv_sec = (time_t) left};

		pause.tv_nsec = (long) ((left - (double) pause.tv_sec) * 1e9);
		nanosleep(&pause, NULL);
	}
}

/*
 * Send calls when they are due, at a rate of so many events a second. A call's latency
 * is measured from when it is sent, and its delay from when it was due, so that the
 * calls that wait behind a slow one count, too.
 */
static void
pace(double rate, double seconds, double warm)
{
	PGconn	   *conn = sink_connect();
	Batch		batch = {0};
	Histogram	calls = {0};
	Histogram	delays = {0};
	int64_t		ncalls = (int64_t) (rate * seconds / batch_size);
	int64_t		wrong = 0;
	double		start = now_seconds();
	double		took;

	for (int64_t k = 0; k < ncalls; k++)
	{
		double		due = start + (double) k * batch_size / rate;
		double		sent;
		double		end;
		int64_t		answers[NANSWERS];

		batch_begin(&batch, batch_size);
		for (int i = 0; i < batch_size; i++)
		{
			Event		event;

			event_make(SET_SOAK, k * batch_size + i, &event);
			count_truth(&event);
			batch_add(&batch, &event);
		}
		wait_until(due);
		sent = now_seconds();
		if (!call_send(conn, &batch) || !call_receive(conn, answers))
			fail("%s", PQerrorMessage(conn));
		end = now_seconds();
		wrong += answers[APPLIED] != batch_size;
		if (due - start < warm)
			continue;
		histogram_add(&calls, end - sent);
		histogram_add(&delays, end - due);
	}
	took = now_seconds() - start;
	PQfinish(conn);
	printf("latency of %lld calls, ", (long long) calls.n);
	print_latency(&calls);
	printf("the same from when they were due, ");
	print_latency(&delays);
	note("p999", histogram_quantile(&calls, 0.999));
	note("delay_p999", histogram_quantile(&delays, 0.999));
	note("sent", (double) ncalls * batch_size);
	is_right(wrong == 0, "all events of %lld calls are applied", (long long) ncalls);
	is_right(took < 1.05 * seconds, "the sink keeps pace with %.0f events/s: %.1f s for those of %.0f", rate, took,
			 seconds);
}

/* Compare each minute of the fact view with what was sent. */
static void
compare(void)
{
	PGconn	   *conn = bench_connect();
	PGresult   *result = PQexec(conn, "SELECT extract(epoch FROM minute)::bigint, (revenue * 100)::bigint, events "
								"FROM soak_fact");
	Total		sum = {0};
	int64_t		differ = 0;
	int64_t		there = 0;
	int			nonempty = 0;

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		fail("%s", PQerrorMessage(conn));
	for (int m = 0; m < minutes; m++)
	{
		sum.cents += truth[m].cents;
		sum.events += truth[m].events;
		nonempty += truth[m].events > 0;
	}
	for (int i = 0; i < PQntuples(result); i++)
	{
		int64_t		m = (atoll(PQgetvalue(result, i, 0)) - base_epoch) / 60;

		there += atoll(PQgetvalue(result, i, 2));
		if (m < 0 || m >= minutes || truth[m].cents != atoll(PQgetvalue(result, i, 1)) ||
			truth[m].events != atoll(PQgetvalue(result, i, 2)))
			differ++;
	}
	note("counted", (double) there);
	is_right(differ == 0 && PQntuples(result) == nonempty,
			 "revenue: %lld events and %.2f were sent in %d minutes; %d minutes are there, %lld of them differ",
			 (long long) sum.events, (double) sum.cents / 100, nonempty, PQntuples(result), (long long) differ);
	PQclear(result);
	PQfinish(conn);
}

/* An integer in the environment that must be there. */
static int64_t
setting(const char *name)
{
	const char *value = getenv(name);

	if (value == NULL)
		fail("%s is not set", name);
	return atoll(value);
}

/* Map the totals of all events that were sent, which are in a file. */
static void
map_truth(void)
{
	const char *name = getenv("TRUTH");
	int			fd = name != NULL ? open(name, O_RDWR | O_CREAT, 0600) : -1;
	size_t		size = (size_t) minutes * sizeof(Total);

	if (fd < 0 || ftruncate(fd, (off_t) size) != 0)
		fail("could not open the file TRUTH");
	truth = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (truth == MAP_FAILED)
		fail("could not map the file TRUTH");
	close(fd);
}

int
main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	int64_t		number[16] = {0};

	for (int i = 2; i < argc && i < 18; i++)
		number[i - 2] = atoll(argv[i]);
	signal(SIGPIPE, SIG_IGN);
	base_epoch = setting("BASE");
	stream_length = setting("TOTAL");
	minutes = (int) setting("MINUTES");
	spread = (int) setting("SPREAD");
	batch_size = (int) setting("BATCH");
	nconnections = (int) setting("CONNECTIONS");
	window_events = setting("WINDOW");
	map_truth();
	if (strcmp(what, "fill") == 0 && argc >= 5 && argc < 18)
		fill(number[0], number[1], number[2], number + 3, argc - 5);
	else if (strcmp(what, "replay") == 0 && argc == 5)
		replay(number[0], number[1], number[2]);
	else if (strcmp(what, "late") == 0 && argc == 4)
		send_late(number[0], number[1]);
	else if (strcmp(what, "pace") == 0 && argc == 5)
		pace(atof(argv[2]), atof(argv[3]), atof(argv[4]));
	else if (strcmp(what, "oldest") == 0 && argc == 3)
		printf("%lld\n", (long long) oldest_known(number[0]));
	else if (strcmp(what, "compare") == 0 && argc == 2)
		compare();
	else
		fail("the head of soak.c says how to call this program");
	return 0;
}
