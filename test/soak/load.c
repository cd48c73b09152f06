/*-------------------------------------------------------------------------
 *
 * load.c
 *	  Sending new events over some connections, through crashes of the server.
 *
 * Each connection has a thread, which makes the events of the next call while the
 * server has this one. A call that a crash interrupts is sent again as soon as the
 * server is back: nobody knows whether it was committed, so all of its events must be
 * applied, or all be duplicates. That answer is the first after the crash. After it
 * comes a call of old events from everywhere, all of which must be duplicates.
 *
 *-------------------------------------------------------------------------
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

#define KILL_FD 3				/* where the script is told to kill the server */
#define GIVE_UP_SECONDS 1800	/* without a server */
#define RETRY_NANOSECONDS 5000000
#define MAX_CONNECTIONS 64
#define OLD_EVENTS 1000			/* of the second call after a crash */

#define STATEMENT "SELECT * FROM revenue_sink.apply('soak', $1::text[], $2::text[], $3::timestamptz[], $4::numeric[])"

/* A connection and its thread. */
typedef struct Sender
{
	pthread_t	thread;
	PGconn	   *conn;
	Batch		batch[2];		/* the call that the server has, and the next one */
	int64_t		first[2];		/* their first events */
	int64_t		unanswered;		/* events before it have been answered, if they are this sender's */
} Sender;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int64_t next_event;		/* that nobody has taken yet; atomic */

/* All of this is protected by the lock. */
static Sender senders[MAX_CONNECTIONS];
static int64_t first_event;
static int64_t end_event;
static int64_t committed;		/* events of answered calls */
static int64_t part_size;
static int64_t part_committed;	/* of these, in the current part */
static double part_start;
static double part_down;		/* seconds of it without an answer */
static double part_wal;			/* WAL's position at its start */
static double all_wal;			/* of the parts that have ended */
static Histogram part_calls;
static Histogram all_calls;
static const int64_t *kill_at;
static int	kills_left;
static bool down;				/* the server has crashed, and nothing was answered since */
static double down_since;
static double up_since;			/* when it took a connection again, 0 before */
static int64_t wrong;			/* calls with another answer than wanted */

/* Connect to the server as soon as that is possible. */
static PGconn *
connect_patiently(void)
{
	const struct timespec pause = {.tv_nsec = RETRY_NANOSECONDS};
	double		give_up = now_seconds() + GIVE_UP_SECONDS;
	PGconn	   *conn;

	while (PQstatus(conn = PQconnectdb("")) != CONNECTION_OK)
	{
		if (now_seconds() > give_up)
			fail("%s", PQerrorMessage(conn));
		PQfinish(conn);
		nanosleep(&pause, NULL);
	}
	return conn;
}

static bool
prepare(PGconn *conn)
{
	PGresult   *result = PQprepare(conn, "apply", STATEMENT, 0, NULL);
	bool		ok = PQresultStatus(result) == PGRES_COMMAND_OK;

	PQclear(result);
	return ok;
}

/* A connection on which calls can be sent. */
PGconn *
sink_connect(void)
{
	PGconn	   *conn = connect_patiently();

	if (!prepare(conn))
		fail("%s", PQerrorMessage(conn));
	return conn;
}

/* Add an event to what its minute must come to. */
void
count_truth(const Event *event)
{
	Total	   *total = &truth[event->time / 60000000 - base_epoch / 60];

	__atomic_fetch_add(&total->cents, event->cents, __ATOMIC_RELAXED);
	__atomic_fetch_add(&total->events, 1, __ATOMIC_RELAXED);
}

/* Send a call; false if the connection is lost. Returns when the server has taken it. */
bool
call_send(PGconn *conn, const Batch *batch)
{
	static const int binary[NARRAYS] = {1, 1, 1, 1};

	return PQsendQueryPrepared(conn, "apply", NARRAYS, (const char *const *) batch->array, batch->array_len,
							   binary, 0) == 1;
}

/*
 * Wait for the answer of a call; false if the connection is lost. Any other error is
 * one of the sink, which ends the program.
 */
bool
call_receive(PGconn *conn, int64_t *answers)
{
	PGresult   *result = PQgetResult(conn);
	bool		ok = PQresultStatus(result) == PGRES_TUPLES_OK;
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	if (ok)
	{
		for (int i = 0; i < NANSWERS; i++)
			answers[i] = atoll(PQgetvalue(result, 0, i));
	}
	else if (state != NULL && strncmp(state, "57P", 3) != 0)
		fail("%s", PQresultErrorMessage(result));
	PQclear(result);
	while (ok && (result = PQgetResult(conn)) != NULL)
	{
		ok = PQresultStatus(result) == PGRES_TUPLES_OK;
		PQclear(result);
	}
	return ok;
}

/*
 * The oldest event that is surely known after so many were sent: its time is a dedup
 * window before the newest one, or later.
 */
int64_t
oldest_known(int64_t sent)
{
	double		slack = 3.0 * spread * (double) window_events / 86400;
	int64_t		oldest = sent - window_events + (int64_t) slack + (int64_t) batch_size * nconnections;

	return oldest > 0 ? oldest : 0;
}

void
print_latency(const Histogram *h)
{
	printf("p50 %.2f, p99 %.2f, p99.9 %.2f, worst %.2f ms\n", histogram_quantile(h, 0.5),
		   histogram_quantile(h, 0.99), histogram_quantile(h, 0.999), histogram_quantile(h, 1));
	fflush(stdout);
}

/* Print memory, disk and WAL of the sink; dashes if there is no server. Caller has the lock. */
static void
print_sizes(void)
{
	PGconn	   *conn = PQconnectdb("");
	PGresult   *result = PQexec(conn, "SELECT seen_bytes_memory / nullif(seen_events, 0)::float8, "
								"(SELECT sum(pg_total_relation_size(oid)) FROM pg_class "
								"WHERE relnamespace = 'revenue_sink'::regnamespace AND relkind = 'r') "
								"/ nullif(seen_events, 0)::float8, pg_current_wal_insert_lsn() - '0/0', "
								"seen_events FROM revenue_sink.stat_sink WHERE sink = 'soak'");

	if (PQntuples(result) == 1)
	{
		double		wal = atof(PQgetvalue(result, 0, 2));
		double		wal_each = (wal - part_wal) / (double) part_committed;

		if (part_committed > 0)
		{
			printf(" %7.2f %7.2f %7.2f %14s\n", atof(PQgetvalue(result, 0, 0)), atof(PQgetvalue(result, 0, 1)),
				   wal_each, PQgetvalue(result, 0, 3));
			note("memory", atof(PQgetvalue(result, 0, 0)));
			note("disk", atof(PQgetvalue(result, 0, 1)));
			all_wal += wal - part_wal;
			note("wal", all_wal / (double) committed);
		}
		part_wal = wal;
	}
	else
		printf(" %7s %7s %7s %14s\n", "-", "-", "-", "-");
	PQclear(result);
	PQfinish(conn);
	fflush(stdout);
}

/* Print the line of a part, and begin the next one. Caller has the lock. */
static void
end_part(void)
{
	double		rate = (double) part_committed / (now_seconds() - part_start - part_down);

	printf("%14lld %10.0f %9.2f %8.2f %8.2f %9.2f", (long long) (first_event + committed), rate,
		   histogram_quantile(&part_calls, 0.5), histogram_quantile(&part_calls, 0.99),
		   histogram_quantile(&part_calls, 0.999), histogram_quantile(&part_calls, 1));
	print_sizes();
	note("rate", rate);
	histogram_merge(&all_calls, &part_calls);
	memset(&part_calls, 0, sizeof(part_calls));
	part_committed = 0;
	part_down = 0;
	part_start = now_seconds();
}

/* A call has been answered: count it, and do what is due then. */
static void
call_done(Sender *sender, int b, double seconds, bool again, const int64_t *answers)
{
	int64_t		n = sender->batch[b].n;

	pthread_mutex_lock(&lock);
	if (answers[APPLIED] != n && !(again && answers[DUPLICATE] == n))
	{
		if (wrong++ < 10)
			printf("event %lld and those after it: %lld of %lld applied, %lld duplicates\n",
				   (long long) sender->first[b], (long long) answers[APPLIED], (long long) n,
				   (long long) answers[DUPLICATE]);
	}
	if (!again)
		histogram_add(&part_calls, seconds);
	sender->unanswered = sender->first[1 - b];
	committed += n;
	part_committed += n;
	if (part_committed >= part_size)
		end_part();
	if (kills_left > 0 && first_event + committed >= kill_at[0])
	{
		kill_at++;
		kills_left--;
		if (dprintf(KILL_FD, "kill\n") < 0)
			fail("nobody is there to kill the server");
	}
	pthread_mutex_unlock(&lock);
}

/*
 * The first answer after a crash has come. Ask for old events from everywhere, too.
 * Caller has the lock.
 */
static void
first_answer(PGconn *conn, const int64_t *answers, int64_t n)
{
	double		answered = now_seconds();
	int64_t		newest = end_event;
	int64_t		oldest = oldest_known(__atomic_load_n(&next_event, __ATOMIC_RELAXED));
	int64_t		old[NANSWERS];
	Batch		batch = {0};

	is_right(answers[APPLIED] == n || answers[DUPLICATE] == n,
			 "kill -9 with %lld sent: connections after %.2f s, first answer %.3f s after that",
			 (long long) (first_event + committed), up_since - down_since, answered - up_since);
	note("first_answer", answered - up_since);
	for (int i = 0; i < nconnections; i++)
		if (senders[i].unanswered < newest)
			newest = senders[i].unanswered;
	if (newest - oldest >= OLD_EVENTS)
	{
		batch_begin(&batch, OLD_EVENTS);
		for (int i = 0; i < OLD_EVENTS; i++)
		{
			Event		event;

			event_make(SET_SOAK, oldest + i * ((newest - oldest) / OLD_EVENTS), &event);
			batch_add(&batch, &event);
		}
		if (!call_send(conn, &batch) || !call_receive(conn, old))
			fail("%s", PQerrorMessage(conn));
		is_right(old[DUPLICATE] == OLD_EVENTS,
				 "%lld of %d old events from everywhere are duplicates right after, in %.3f s",
				 (long long) old[DUPLICATE], OLD_EVENTS, now_seconds() - answered);
		for (int c = 0; c < NARRAYS; c++)
			free(batch.array[c]);
	}
	down = false;
	part_down += now_seconds() - down_since;
}

/* The connection was lost: connect again, and send the call that it had. */
static void
send_again(Sender *sender, int b, int64_t *answers)
{
	double		lost = now_seconds();

	pthread_mutex_lock(&lock);
	if (!down)
	{
		down = true;
		down_since = lost;
		up_since = 0;
	}
	pthread_mutex_unlock(&lock);
	do
	{
		PQfinish(sender->conn);
		sender->conn = connect_patiently();
		pthread_mutex_lock(&lock);
		if (up_since == 0)
			up_since = now_seconds();
		pthread_mutex_unlock(&lock);
	} while (!prepare(sender->conn) || !call_send(sender->conn, &sender->batch[b]) ||
			 !call_receive(sender->conn, answers));
	pthread_mutex_lock(&lock);
	if (down)
		first_answer(sender->conn, answers, sender->batch[b].n);
	pthread_mutex_unlock(&lock);
}

/* Take the next events, and make a call of them; without events at the end. */
static void
take_batch(Sender *sender, int b)
{
	Batch	   *batch = &sender->batch[b];
	int64_t		first = __atomic_fetch_add(&next_event, batch_size, __ATOMIC_RELAXED);
	int64_t		n = end_event - first < batch_size ? end_event - first : batch_size;

	sender->first[b] = first;
	batch_begin(batch, batch_size);
	for (int64_t i = first; i < first + n; i++)
	{
		Event		event;

		event_make(SET_SOAK, i, &event);
		count_truth(&event);
		batch_add(batch, &event);
	}
}

static void *
sender_main(void *arg)
{
	Sender	   *sender = arg;

	take_batch(sender, 0);
	for (int b = 0; sender->batch[b].n > 0; b = 1 - b)
	{
		double		start = now_seconds();
		int64_t		answers[NANSWERS];
		bool		sent = call_send(sender->conn, &sender->batch[b]);
		bool		ok;

		take_batch(sender, 1 - b);
		ok = sent && call_receive(sender->conn, answers);
		if (!ok)
			send_again(sender, b, answers);
		call_done(sender, b, now_seconds() - start, !ok, answers);
	}
	PQfinish(sender->conn);
	return NULL;
}

/*
 * Send the events [first, end), print a line for each part of them, and have the server
 * killed when these numbers of events, counted from event 0, are committed.
 */
void
fill(int64_t first, int64_t end, int64_t part, const int64_t *kills, int nkills)
{
	first_event = next_event = first;
	end_event = end;
	part_size = part;
	kill_at = kills;
	kills_left = nkills;
	if (nconnections < 1 || nconnections > MAX_CONNECTIONS || batch_size < 1 || part < 1)
		fail("CONNECTIONS must be 1 to %d; BATCH and PART must be positive", MAX_CONNECTIONS);
	for (int i = 0; i < nconnections; i++)
	{
		senders[i].conn = sink_connect();
		senders[i].unanswered = first;
	}
	part_wal = bench_number(senders[0].conn, "SELECT pg_current_wal_insert_lsn() - '0/0'");
	printf("%14s %10s %9s %8s %8s %9s %7s %7s %7s %14s\n", "events sent", "events/s", "p50 ms", "p99 ms", "p99.9 ms",
		   "worst ms", "mem B", "disk B", "WAL B", "events known");
	part_start = now_seconds();
	for (int i = 0; i < nconnections; i++)
		if (pthread_create(&senders[i].thread, NULL, sender_main, &senders[i]) != 0)
			fail("could not start a thread");
	for (int i = 0; i < nconnections; i++)
		pthread_join(senders[i].thread, NULL);
	if (part_committed > 0)
		end_part();
	printf("latency of %lld calls: ", (long long) all_calls.n);
	print_latency(&all_calls);
	note("worst", histogram_quantile(&all_calls, 1));
	is_right(wrong == 0 && committed == end - first, "%lld new events are applied, %lld calls were answered wrongly",
			 (long long) committed, (long long) wrong);
}
