/*-------------------------------------------------------------------------
 *
 * stream.c
 *	  The demo's stream processor: an order log in, revenue per minute out.
 *
 *		stream generate DIR EVENTS SEED BASE	make up a log
 *		stream import DIR FILE.csv				make a log of one's own events
 *		stream run DIR							stream it into the sink
 *		stream compare DIR						compare the sink with the truth
 *
 * "run" forks WRITERS processes. Each has its own partitions and does what any
 * processor with transactions of its own does, see write_stream():
 *
 *		CALL open_writer			a new epoch, which fences whatever was before
 *		SELECT offsets				seek
 *		repeat
 *			BEGIN
 *			SELECT begin_batch		false: committed before, skip it
 *			SELECT apply			10,000 events
 *			SELECT store_offsets	where to go on, with the events
 *			COMMIT
 *
 * When the connection is lost, a writer connects again and starts over, some
 * events before the stored offset: sources deliver again, and it must not
 * matter. At half of the log, "run" writes a line to descriptor HALF_FD, for the
 * script that then kills the server.
 *
 * The connection is the environment's (PGHOST and so on).
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "arrays.h"
#include "libpq-fe.h"
#include "log.h"
#include "result.h"

#define SINK "orders"
#define JOB "demo"
#define SOURCE "order-log"

#define WRITERS 4
#define OWN (PARTITIONS / WRITERS)	/* partitions of a writer */
#define BATCH 10000
#define MIN_SECONDS 5			/* a short log is slowed down to so many */
#define REPLAY_BATCHES 2		/* delivered again after a reconnect */
#define RETRY_MS 50
#define GIVE_UP_SECONDS 60		/* without a server */
#define TICK_MS 10
#define HALF_FD 3
#define NCOUNTS 6

static const char *const count_name[NCOUNTS] =
{"applied", "duplicate", "deferred", "conflict", "late", "rejected"};

typedef enum State
{
	CONNECTING, STREAMING, DONE
} State;

/* What a writer tells its parent, in shared memory. */
typedef struct Progress
{
	_Atomic int state;
	_Atomic int64_t position;	/* events of the log up to which it got */
	_Atomic int64_t committed;	/* events in committed batches, replay included */
	int64_t		count[NCOUNTS]; /* of the answers of committed batches */
	int64_t		batches;
	int64_t		replayed;
} Progress;

/* A partition, as its writer reads it. */
typedef struct Source
{
	Partition	log;
	const char *at;				/* the event at offset "next" */
	int64_t		next;
	int64_t		furthest;		/* offset up to which it ever committed */
} Source;

typedef struct Writer
{
	char		name[32];
	int			first_partition;
	Source		source[OWN];
	int			quota;			/* events of a source in a batch */
	double		events_a_second;	/* 0: as fast as it can */
	double		started;
	Progress   *progress;
	PGconn	   *conn;
	char		epoch[32];
	int64_t		number;			/* of the batch, within the epoch */
	Arrays		arrays;
	int64_t		answer[NCOUNTS];	/* of the batch */
	bool		in_doubt;		/* COMMIT was sent, but not answered */
} Writer;

static double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}

/*
 * Take a result; false if the connection is lost. Any other error than those
 * of a server that stops is a bug of this program or of the sink: give up.
 */
static bool
took(Writer *w, const char *step, PGresult *res, ExecStatusType wanted, PGresult **out)
{
	const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);

	if (PQresultStatus(res) == wanted)
	{
		if (out)
			*out = res;
		else
			PQclear(res);
		return true;
	}
	if (PQstatus(w->conn) == CONNECTION_OK && (state == NULL || strncmp(state, "57P", 3) != 0))
		die("%s: %s failed: %s", w->name, step, PQresultErrorMessage(res));
	PQclear(res);
	return false;
}

static bool
command(Writer *w, const char *sql)
{
	return took(w, sql, PQexec(w->conn, sql), PGRES_COMMAND_OK, NULL);
}

/* Poll until the server answers. */
static void
connect_writer(Writer *w)
{
	double		patience = now() + GIVE_UP_SECONDS;

	atomic_store(&w->progress->state, CONNECTING);
	for (;;)
	{
		w->conn = PQconnectdb("dbname=postgres");
		if (PQstatus(w->conn) == CONNECTION_OK)
			break;
		if (now() > patience)
			die("%s: %s", w->name, PQerrorMessage(w->conn));
		PQfinish(w->conn);
		poll(NULL, 0, RETRY_MS);
	}
}

static bool
begin_batch(Writer *w, bool *fresh)
{
	char		number[32];
	const char *params[] = {SINK, JOB, w->name, w->epoch, number};
	PGresult   *res;

	snprintf(number, sizeof(number), "%" PRId64, w->number);
	if (!took(w, "begin_batch", PQexecParams(w->conn, "SELECT revenue_sink.begin_batch($1, $2, $3, $4, $5)",
											 5, NULL, params, NULL, NULL, 0), PGRES_TUPLES_OK, &res))
		return false;
	*fresh = PQgetvalue(res, 0, 0)[0] == 't';
	PQclear(res);
	return true;
}

/* A new epoch: whoever else was this writer can't commit from here on. */
static bool
open_writer(Writer *w)
{
	const char *params[] = {SINK, JOB, w->name};
	PGresult   *res;

	if (!took(w, "open_writer", PQexecParams(w->conn, "CALL revenue_sink.open_writer($1, $2, $3, NULL, NULL)",
											 3, NULL, params, NULL, NULL, 0), PGRES_TUPLES_OK, &res))
		return false;
	snprintf(w->epoch, sizeof(w->epoch), "%s", PQgetvalue(res, 0, 0));
	PQclear(res);
	w->number = 0;
	return true;
}

/* Go to the stored offsets, or some way before them, as a source would. */
static bool
seek(Writer *w)
{
	const char *params[] = {SINK, SOURCE};
	PGresult   *res;

	if (!took(w, "offsets", PQexecParams(w->conn,
										 "SELECT partition, next_offset FROM revenue_sink.offsets($1, $2)",
										 2, NULL, params, NULL, NULL, 0), PGRES_TUPLES_OK, &res))
		return false;
	for (int i = 0; i < OWN; i++)
		w->source[i].next = 0;
	for (int row = 0; row < PQntuples(res); row++)
	{
		int			i = atoi(PQgetvalue(res, row, 0)) - w->first_partition;

		if (i >= 0 && i < OWN)
			w->source[i].next = atoll(PQgetvalue(res, row, 1));
	}
	PQclear(res);
	for (int i = 0; i < OWN; i++)
	{
		Source	   *source = &w->source[i];

		source->next -= REPLAY_BATCHES * w->quota;
		if (source->next < 0)
			source->next = 0;
		source->at = log_seek(&source->log, source->next);
	}
	return true;
}

/* The next events of each partition; false at the end of all. */
static bool
read_batch(Writer *w)
{
	arrays_reset(&w->arrays);
	for (int i = 0; i < OWN; i++)
	{
		Source	   *source = &w->source[i];
		Event		event;

		for (int n = 0; n < w->quota && source->next < source->log.nevents; n++, source->next++)
		{
			source->at = log_read(source->at, &event);
			arrays_add(&w->arrays, &event);
		}
	}
	arrays_finish(&w->arrays);
	return w->arrays.nevents > 0;
}

static bool
apply(Writer *w)
{
	const char *params[NARRAYS + 1] = {SINK};
	int			lengths[NARRAYS + 1] = {0};
	static const int formats[NARRAYS + 1] = {0, 1, 1, 1, 1, 1};
	PGresult   *res;

	for (int i = 0; i < NARRAYS; i++)
	{
		params[i + 1] = w->arrays.array[i].data;
		lengths[i + 1] = (int) w->arrays.array[i].len;
	}
	if (!w->arrays.grouped)
		params[NARRAYS] = NULL;
	if (!took(w, "apply", PQexecParams(w->conn,
									   "SELECT applied, duplicate, deferred, conflict, late, rejected"
									   " FROM revenue_sink.apply($1, $2::text[], $3::text[],"
									   " $4::timestamptz[], $5::numeric[], $6::text[])",
									   NARRAYS + 1, NULL, params, lengths, formats, 0), PGRES_TUPLES_OK, &res))
		return false;
	for (int i = 0; i < NCOUNTS; i++)
		w->answer[i] = atoll(PQgetvalue(res, 0, i));
	PQclear(res);
	return true;
}

static bool
store_offsets(Writer *w)
{
	char		partitions[64] = "{";
	char		offsets[256] = "{";
	const char *params[] = {SINK, SOURCE, partitions, offsets};

	for (int i = 0; i < OWN; i++)
	{
		size_t		p = strlen(partitions);
		size_t		o = strlen(offsets);
		const char *after = i < OWN - 1 ? "," : "}";

		snprintf(partitions + p, sizeof(partitions) - p, "%d%s", w->first_partition + i, after);
		snprintf(offsets + o, sizeof(offsets) - o, "%" PRId64 "%s", w->source[i].next, after);
	}
	return took(w, "store_offsets", PQexecParams(w->conn,
												 "SELECT revenue_sink.store_offsets($1, $2, $3::int[], $4::bigint[])",
												 4, NULL, params, NULL, NULL, 0), PGRES_TUPLES_OK, NULL);
}

/* The batch is committed: count its answers. */
static void
account(Writer *w)
{
	Progress   *progress = w->progress;
	int64_t		new = 0;

	for (int i = 0; i < OWN; i++)
	{
		Source	   *source = &w->source[i];

		if (source->next > source->furthest)
		{
			new += source->next - source->furthest;
			source->furthest = source->next;
		}
	}
	for (int i = 0; i < NCOUNTS; i++)
		progress->count[i] += w->answer[i];
	progress->batches++;
	progress->replayed += w->arrays.nevents - new;
	atomic_fetch_add(&progress->position, new);
	atomic_fetch_add(&progress->committed, w->arrays.nevents);
	w->in_doubt = false;
}

/* One batch in one transaction; false if the connection is lost. */
static bool
send_batch(Writer *w)
{
	bool		fresh;

	if (!command(w, "BEGIN") || !begin_batch(w, &fresh))
		return false;
	if (!fresh)
		return command(w, "ROLLBACK");
	if (!apply(w) || !store_offsets(w))
		return false;
	w->in_doubt = true;
	if (!command(w, "COMMIT"))
		return false;
	account(w);
	return true;
}

/*
 * The connection went away between COMMIT and its answer: was it committed?
 * The epoch is still ours, and begin_batch tells.
 */
static bool
ask_after_commit(Writer *w)
{
	bool		fresh;

	if (!command(w, "BEGIN") || !begin_batch(w, &fresh) || !command(w, "ROLLBACK"))
		return false;
	if (!fresh)
		account(w);
	w->in_doubt = false;
	return true;
}

/* A short log takes MIN_SECONDS: wait until the next batch is due. */
static void
keep_pace(const Writer *w)
{
	double		ahead;

	if (w->events_a_second <= 0)
		return;
	ahead = w->started + (double) w->progress->position / w->events_a_second - now();
	if (ahead > 0)
		poll(NULL, 0, (int) (ahead * 1000) + 1);
}

/* The whole life of a writer on one connection; false if it is lost. */
static bool
write_stream(Writer *w)
{
	if (w->in_doubt && !ask_after_commit(w))
		return false;
	if (!open_writer(w) || !seek(w))
		return false;
	atomic_store(&w->progress->state, STREAMING);
	for (; read_batch(w); w->number++)
	{
		keep_pace(w);
		if (!send_batch(w))
			return false;
	}
	return true;
}

/* Batches are smaller where the log is short, so that there are some. */
static int
batch_quota(int64_t total)
{
	int64_t		quota = total / (PARTITIONS * 20);

	return (int) (quota < 1 ? 1 : quota > BATCH / OWN ? BATCH / OWN : quota);
}

static void __attribute__((noreturn))
run_writer(int id, const char *dir, int64_t total, Progress *progress)
{
	Writer		w = {0};
	int64_t		own = 0;
	bool		finished;

	snprintf(w.name, sizeof(w.name), "writer-%d", id + 1);
	w.progress = progress;
	w.first_partition = id * OWN;
	w.quota = batch_quota(total);
	for (int i = 0; i < OWN; i++)
	{
		log_open(dir, w.first_partition + i, &w.source[i].log);
		own += w.source[i].log.nevents;
	}
	if (w.quota < BATCH / OWN)
		w.events_a_second = (double) own / MIN_SECONDS;
	w.started = now();

	do
	{
		connect_writer(&w);
		finished = write_stream(&w);
		PQfinish(w.conn);
	} while (!finished);
	atomic_store(&progress->state, DONE);
	exit(0);
}

static void
show_progress(const Progress *progress, double seconds, int64_t total, int64_t rate)
{
	int			n[DONE + 1] = {0};
	int64_t		position = 0;

	for (int i = 0; i < WRITERS; i++)
	{
		n[progress[i].state]++;
		position += progress[i].position;
	}
	printf("   %5.1f s %11s of %s events %4.0f %% %10s/s   ", seconds, with_commas(position),
		   with_commas(total), 100.0 * (double) position / (double) total, with_commas(rate));
	if (n[CONNECTING] > 0)
		printf("writers: %d, %d waiting for a server\n", n[STREAMING], n[CONNECTING]);
	else if (n[STREAMING] > 0)
		printf("writers: %d\n", n[STREAMING]);
	else
		puts("done");
	fflush(stdout);
}

static void
show_counts(const Progress *progress, double seconds, double down)
{
	Progress	sum = {0};

	for (int i = 0; i < WRITERS; i++)
	{
		for (int k = 0; k < NCOUNTS; k++)
			sum.count[k] += progress[i].count[k];
		sum.committed += progress[i].committed;
		sum.batches += progress[i].batches;
		sum.replayed += progress[i].replayed;
	}
	printf("\n   %s events in %s committed transactions, %s of them delivered again after the crash,\n",
		   with_commas(sum.committed), with_commas(sum.batches), with_commas(sum.replayed));
	printf("   in %.1f s, %.1f s of it without a server: %s events/s while it was up. The sink answered:\n",
		   seconds, down, with_commas((long long) ((double) sum.committed / (seconds - down))));
	for (int k = 0; k < NCOUNTS; k++)
		printf("   %-9s %12s\n", count_name[k], with_commas(sum.count[k]));
	fflush(stdout);
}

/* Has a writer ended? One that failed takes the others with it. */
static int
reap(int wanted)
{
	int			ended = 0;
	int			status;

	while (ended < wanted && waitpid(-1, &status, WNOHANG) > 0)
	{
		if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
			die("a writer failed");
		ended++;
	}
	return ended;
}

static void
run(const char *dir)
{
	Progress   *progress = mmap(NULL, WRITERS * sizeof(Progress), PROT_READ | PROT_WRITE,
								MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	double		started = now();
	double		shown = started;
	double		tick = started;
	double		down = 0;		/* seconds in which no writer had a connection */
	int64_t		total = 0;
	int64_t		committed_then = 0;
	int			alive = WRITERS;
	bool		half_told = false;

	if (progress == MAP_FAILED)
		die("out of memory");
	for (int p = 0; p < PARTITIONS; p++)
	{
		Partition	log;

		log_open(dir, p, &log);
		total += log.nevents;
		log_unmap(&log);
	}
	if (batch_quota(total) < BATCH / OWN)
		printf("   (a short log: slowed down to take %d seconds)\n", MIN_SECONDS);
	fflush(stdout);

	for (int i = 0; i < WRITERS; i++)
	{
		pid_t		pid = fork();

		if (pid < 0)
			die("could not fork: %s", strerror(errno));
		if (pid == 0)
		{
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			close(HALF_FD);
			run_writer(i, dir, total, &progress[i]);
		}
	}

	while (alive > 0)
	{
		int64_t		position = 0;
		int64_t		committed = 0;
		double		last_tick = tick;
		double		elapsed;
		int			connecting = 0;

		poll(NULL, 0, TICK_MS);
		alive -= reap(alive);
		for (int i = 0; i < WRITERS; i++)
		{
			position += progress[i].position;
			committed += progress[i].committed;
			connecting += progress[i].state == CONNECTING;
		}
		tick = now();
		if (connecting > 0 && connecting == alive)
			down += tick - last_tick;
		if (!half_told && position >= (total + 1) / 2)
		{
			half_told = true;
			if (write(HALF_FD, "half\n", 5) < 0 && errno != EBADF)
				die("could not tell that half is done: %s", strerror(errno));
		}
		elapsed = tick - shown;
		if (elapsed >= 1 || alive == 0)
		{
			show_progress(progress, tick - started, total,
						  (int64_t) ((double) (committed - committed_then) / elapsed));
			shown += elapsed;
			committed_then = committed;
		}
	}
	show_counts(progress, now() - started, down);
}

static int
compare(const char *dir)
{
	PGconn	   *conn = PQconnectdb("dbname=postgres");
	bool		right;

	if (PQstatus(conn) != CONNECTION_OK)
		die("%s", PQerrorMessage(conn));
	right = result_show(conn, SINK, dir);
	PQfinish(conn);
	return right ? 0 : 1;
}

int
main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";

	signal(SIGPIPE, SIG_IGN);
	if (strcmp(what, "generate") == 0 && argc == 6)
		generate(argv[2], atoll(argv[3]), strtoull(argv[4], NULL, 10), atoll(argv[5]));
	else if (strcmp(what, "import") == 0 && argc == 4)
		import_csv(argv[2], argv[3]);
	else if (strcmp(what, "run") == 0 && argc == 3)
		run(argv[2]);
	else if (strcmp(what, "compare") == 0 && argc == 3)
		return compare(argv[2]);
	else
		die("usage: stream generate DIR EVENTS SEED BASE | import DIR FILE | run DIR | compare DIR");
	return 0;
}
