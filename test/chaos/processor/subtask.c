/*-------------------------------------------------------------------------
 *
 * subtask.c
 *	  One of the processor's parallel writers.
 *
 * It owns the shards whose number, modulo the parallelism, is its own. At a
 * barrier it takes its shards to the barrier's positions, as one batch of its
 * own. Under two-phase commit it goes on to the next barrier while the earlier
 * batches are held. If the connection is lost on the way, it repeats what it
 * has no answer to.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "calls.h"
#include "session.h"

/* A batch that is prepared, and not yet finished. */
typedef struct Held
{
	int64_t		number;
	char		gid[MAX_GID];
} Held;

static int	self;
static char writer[32];
static int64_t epoch;
static Positions position;
static bool owned[MAX_SHARDS];
static Held *held;
static int	nheld;

bool
message_send(int fd, const Message *message)
{
	return send(fd, message, sizeof(*message), MSG_NOSIGNAL) == sizeof(*message);
}

/* False: whoever is at the other end has ended. */
bool
message_receive(int fd, Message *message)
{
	ssize_t		n;

	while ((n = recv(fd, message, sizeof(*message), 0)) < 0 && errno == EINTR)
		;
	return n == sizeof(*message);
}

/*
 * Open our writer; and the writers of former subtasks that no longer exist, for
 * what they have left behind.
 */
static void
open_writers(const Checkpoint *restored)
{
	for (int w = self; w < restored->writers; w += config.parallel)
	{
		char		name[32];
		int64_t		opened;

		snprintf(name, sizeof(name), "writer %d", w);
		step("open");
		opened = call_open_writer(name, restored);
		step("opened");
		if (w == self)
			epoch = opened;
	}
}

/* Where a shard will be after the barrier. */
static void
reached(int shard, const int64_t *target, int64_t *next)
{
	for (int p = 0; p < npartitions; p++)
		next[p] = target[p] > position.next[shard][p] ? target[p] : position.next[shard][p];
}

/* Events in the order of their partitions, a few a call. */
static bool
send_events(const int64_t *target)
{
	const Event **events = must_alloc(NULL, (size_t) config.chunk * sizeof(*events));
	bool		done = true;
	int			n = 0;

	for (int p = 0; p < npartitions && done; p++)
		for (int64_t offset = 0; offset < target[p] && done; offset++)
		{
			const Event *event = input_event(p, offset);

			for (int s = 0; s < nshards; s++)
				if (owned[s] && offset >= position.next[s][p] && shard_has(s, p, event))
					events[n++] = event;
			if (n == config.chunk)
			{
				step("apply");
				done = call_apply(events, n);
				step("applied");
				n = 0;
			}
		}
	if (done && n > 0)
	{
		step("apply");
		done = call_apply(events, n);
		step("applied");
	}
	free(events);
	return done;
}

static bool
send_totals(const int64_t *target)
{
	bool		done;

	step("apply");
	done = call_upsert(&position, target, owned);
	step("applied");
	return done;
}

static bool
send_offsets(const int64_t *target)
{
	if (config.two_phase && !config.store)
		return true;
	step("store");
	for (int s = 0; s < nshards; s++)
	{
		int64_t		next[MAX_PARTITIONS];

		if (!owned[s])
			continue;
		reached(s, target, next);
		if (!call_store_offsets(s, next))
			return false;
	}
	step("stored");
	return true;
}

/* False from begin_batch is believed only if we have tried to end the batch. */
static bool
skip_batch(int64_t number, bool ending)
{
	if (!ending)
		die("batch %" PRId64 " of epoch %" PRId64 " is known before it was sent", number, epoch);
	tell("skipped %" PRId64, number);
	return session_do("COMMIT");
}

/*
 * One try at a batch; false: to be tried again. "ending" becomes true when the
 * statement is sent that makes it durable, so that its answer may be lost.
 */
static bool
try_batch(int64_t number, const int64_t *target, bool *ending, char *gid)
{
	bool		is_new;

	step("begin");
	if (!session_do("BEGIN") || !call_begin_batch(writer, epoch, number, &is_new))
		return false;
	step("begun");
	if (!is_new)
		return skip_batch(number, *ending);
	if (!(config.totals ? send_totals(target) : send_events(target)) || !send_offsets(target))
		return false;
	if (!config.two_phase)
	{
		step("commit");
		*ending = true;
		return session_do("COMMIT");
	}
	step("pre_commit");
	if (!call_pre_commit(gid))
		return false;
	step("prepare");
	*ending = true;
	return call_prepare(gid);
}

/* After a lost answer to PREPARE: is it prepared? Waits while it is still open. */
static bool
is_prepared(const char *gid)
{
	const char *outcome;

	while (strcmp(outcome = call_outcome(gid), "open") == 0)
		session_again();
	tell("found %s", outcome);
	return strcmp(outcome, "in doubt") == 0 || strcmp(outcome, "committed") == 0;
}

static void
do_batch(int fd, const Message *barrier)
{
	const int64_t *target = barrier->positions.next[0];
	Message		ack = {.type = MSG_ACK, .number = barrier->number};
	bool		ending = false;

	while (!try_batch(barrier->number, target, &ending, ack.gid))
	{
		session_again();
		if (config.two_phase && ending && config.ask_outcome && is_prepared(ack.gid))
			break;
	}
	if (config.two_phase)
	{
		tell("prepared %" PRId64 " %s", barrier->number, ack.gid);
		held = must_alloc(held, (size_t) (nheld + 1) * sizeof(Held));
		held[nheld].number = barrier->number;
		memcpy(held[nheld++].gid, ack.gid, MAX_GID);
		step("prepared");
	}
	else
	{
		tell("committed %" PRId64, barrier->number);
		step("committed");
	}
	for (int s = 0; s < nshards; s++)
		if (owned[s])
			reached(s, target, position.next[s]);
	if (!message_send(fd, &ack))
		exit(EXIT_RESTART);
	step("acknowledged");
}

/* Phase two, in which each subtask finishes its own batch. */
static void
finish(int fd, int64_t number)
{
	Message		finished = {.type = MSG_FINISHED, .number = number};
	int			kept = 0;

	for (int i = 0; i < nheld; i++)
	{
		if (held[i].number > number)
		{
			held[kept++] = held[i];
			continue;
		}
		step("finish");
		call_commit_prepared(held[i].gid);
		tell("finished %s", held[i].gid);
		step("finished");
	}
	nheld = kept;
	if (!message_send(fd, &finished))
		exit(EXIT_RESTART);
}

/* The whole life of a subtask. */
void
subtask(int index, int fd, const Checkpoint *restored, int64_t job_epoch)
{
	Message		message = {.type = MSG_OPENED};

	self = index;
	epoch = job_epoch;
	snprintf(writer, sizeof(writer), "writer %d", self);
	for (int s = 0; s < nshards; s++)
		owned[s] = s % config.parallel == self;
	session_forget();
	session_begin(fd);
	if (config.open_writers)
		open_writers(restored);
	if (!message_send(fd, &message))
		exit(EXIT_RESTART);
	while (message_receive(fd, &message))
	{
		switch (message.type)
		{
			case MSG_START:
				position = message.positions;
				break;
			case MSG_BARRIER:
				do_batch(fd, &message);
				break;
			case MSG_FINISH:
				finish(fd, message.number);
				break;
			case MSG_END:
				exit(EXIT_DONE);
			default:
				die("a subtask got message %d", (int) message.type);
		}
	}
	exit(EXIT_RESTART);
}
