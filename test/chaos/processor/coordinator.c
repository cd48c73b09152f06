/*-------------------------------------------------------------------------
 *
 * coordinator.c
 *	  Restores a checkpoint, starts the subtasks, sends them barriers.
 *
 * A barrier is a position of the log, every so many lines of each partition.
 * Under two-phase commit a checkpoint is complete when all subtasks have
 * prepared what lies before its barrier: then its file is written, and only
 * then is it committed. Several barriers may be on their way, and several
 * complete checkpoints may be held. A later checkpoint includes those before
 * it, so the last of several may be finished in place of all.
 *
 *-------------------------------------------------------------------------
 */
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "calls.h"
#include "session.h"

typedef struct Barrier
{
	int64_t		number;
	int64_t		target[MAX_PARTITIONS];
	int			nacks;
	char		gid[MAX_SUBTASKS][MAX_GID];
} Barrier;

static Checkpoint checkpoint;	/* the last one written, or restored */
static pid_t child[MAX_SUBTASKS];
static int	channel[MAX_SUBTASKS];
static int	nopened;

static Barrier *barriers;		/* of this incarnation */
static int	issued;
static int	completed;			/* so many, from the first on, have all acks */
static int	finished;			/* so many are committed */
static int	unfinished;			/* subtasks whose MSG_FINISHED is due */
static int64_t line;			/* how far into each partition the last barrier is */

/*
 * Does the server still have all that a checkpoint relies on? It is asked
 * where a failover may have lost some of it.
 */
static bool
is_intact(const Checkpoint *c)
{
	for (int i = 0; i < c->ngids; i++)
	{
		const char *outcome = call_outcome(c->gids[i]);

		if (strcmp(outcome, "committed") != 0 && strcmp(outcome, "in doubt") != 0)
		{
			tell("lacks %s: %s", c->gids[i], outcome);
			return false;
		}
	}
	return true;
}

static void
restore(void)
{
	int			older = config.older;
	bool		found;

	while ((found = checkpoint_load(&checkpoint, older)) && config.failover_loses &&
		   config.two_phase && !is_intact(&checkpoint))
		older++;
	step("restored");
	checkpoint_write(&checkpoint);
	tell("restored %" PRId64 " of %s, attempt %" PRId64, checkpoint.number,
		 found ? "a checkpoint" : "nothing", checkpoint.attempt);
}

static void
start_subtasks(int64_t epoch)
{
	for (int i = 0; i < config.parallel; i++)
	{
		int			pair[2];

		if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) != 0)
			die("could not make a socket pair");
		child[i] = fork();
		if (child[i] < 0)
			die("could not fork");
		if (child[i] == 0)
		{
			char		name[32];

			/* or the subtasks would keep each other's coordinator alive */
			for (int j = 0; j < i; j++)
				close(channel[j]);
			close(pair[0]);
			snprintf(name, sizeof(name), "subtask%d", i);
			steps_of(name);
			subtask(i, pair[1], &checkpoint, epoch);
		}
		close(pair[1]);
		channel[i] = pair[0];
	}
}

static void
send_all(const Message *message)
{
	/* one that has ended is noticed where its answer is waited for */
	for (int i = 0; i < config.parallel; i++)
		(void) message_send(channel[i], message);
}

/* A subtask has ended before its time: the job ends, too, to be restarted. */
static void
fail_job(int index)
{
	int			code = EXIT_RESTART;
	int			status;

	if (waitpid(child[index], &status, 0) == child[index] && WIFEXITED(status) &&
		WEXITSTATUS(status) != EXIT_DONE)
		code = WEXITSTATUS(status);
	for (int i = 0; i < config.parallel; i++)
		if (i != index)
		{
			kill(child[i], SIGKILL);
			waitpid(child[i], &status, 0);
		}
	exit(code);
}

static bool
at_end(void)
{
	for (int p = 0; p < npartitions; p++)
		if (line < partition_length[p])
			return false;
	return true;
}

static void
issue_barrier(void)
{
	Message		message = {.type = MSG_BARRIER};
	Barrier    *b;

	barriers = must_alloc(barriers, (size_t) (issued + 1) * sizeof(Barrier));
	b = &barriers[issued];
	memset(b, 0, sizeof(*b));
	line += config.step;
	b->number = issued > 0 ? barriers[issued - 1].number + 1 :
		config.two_phase ? checkpoint.number + 1 : 1;
	if (config.input_ends && at_end())
		b->number = INT64_MAX;
	for (int p = 0; p < npartitions; p++)
		b->target[p] = line < partition_length[p] ? line : partition_length[p];
	issued++;
	message.number = b->number;
	memcpy(message.positions.next[0], b->target, sizeof(b->target));
	step("barrier");
	tell("barrier %" PRId64, b->number);
	send_all(&message);
}

/* A checkpoint is complete: write its file, then commit it in the sink. */
static void
finish_checkpoint(int upto)
{
	const Barrier *last = &barriers[upto - 1];
	Message		message = {.type = MSG_FINISH, .number = last->number};

	for (int s = 0; s < nshards; s++)
		for (int p = 0; p < npartitions; p++)
			if (checkpoint.positions.next[s][p] < last->target[p])
				checkpoint.positions.next[s][p] = last->target[p];
	for (; finished < upto; finished++)
		for (int i = 0; i < config.parallel; i++)
			checkpoint_add_gid(&checkpoint, barriers[finished].gid[i]);
	checkpoint.number = last->number;
	checkpoint.restores = true;
	checkpoint.sequence++;
	checkpoint_write(&checkpoint);
	step("commit");
	if (config.subtasks_finish)
	{
		unfinished = config.parallel;
		send_all(&message);
		return;
	}
	call_commit_checkpoint(&checkpoint);
	tell("checkpoint %" PRId64, last->number);
	step("committed");
}

static void
take_ack(int index, const Message *message)
{
	Barrier    *b = &barriers[completed];

	while (b < barriers + issued && b->number != message->number)
		b++;
	if (b == barriers + issued)
		die("an acknowledgement of barrier %" PRId64, message->number);
	memcpy(b->gid[index], message->gid, MAX_GID);
	b->nacks++;
	while (completed < issued && barriers[completed].nacks == config.parallel)
	{
		completed++;
		step("complete");
	}
}

/* Wait for a message of any subtask. */
static void
receive(void)
{
	struct pollfd fds[MAX_SUBTASKS];

	for (int i = 0; i < config.parallel; i++)
		fds[i] = (struct pollfd) {.fd = channel[i], .events = POLLIN};
	if (poll(fds, (nfds_t) config.parallel, -1) < 0)
		return;
	for (int i = 0; i < config.parallel; i++)
	{
		Message		message;

		if (fds[i].revents == 0)
			continue;
		if (!message_receive(channel[i], &message))
			fail_job(i);
		if (message.type == MSG_OPENED)
			nopened++;
		else if (message.type == MSG_ACK)
			take_ack(i, &message);
		else if (message.type == MSG_FINISHED)
			unfinished--;
	}
}

/*
 * How far into each partition is the shard that is the least far? Each is as
 * far into all of its partitions; only the end of one comes sooner.
 */
static int64_t
lowest_line(void)
{
	int64_t		lowest = INT64_MAX;
	int64_t		longest = 0;

	for (int s = 0; s < nshards; s++)
	{
		int64_t		reached = 0;
		bool		ended = true;

		for (int p = 0; p < npartitions; p++)
		{
			int64_t		next = checkpoint.positions.next[s][p];

			if (!shard_reads(s, p))
				continue;
			reached = next > reached ? next : reached;
			ended = ended && next == partition_length[p];
		}
		if (!ended && reached < lowest)
			lowest = reached;
	}
	for (int p = 0; p < npartitions; p++)
		longest = partition_length[p] > longest ? partition_length[p] : longest;
	return lowest < longest ? lowest : longest;
}

/* Where to start reading: as the checkpoint says, or the sink. */
static void
start_reading(void)
{
	Message		message = {.type = MSG_START};

	if (!config.two_phase)
	{
		step("offsets");
		call_offsets(&checkpoint.positions);
	}
	line = lowest_line();
	if (!config.two_phase && config.rewind > 0)
	{
		line = line > config.rewind ? line - config.rewind : 0;
		for (int s = 0; s < nshards; s++)
			for (int p = 0; p < npartitions; p++)
				if (checkpoint.positions.next[s][p] > line)
					checkpoint.positions.next[s][p] = line;
	}
	message.positions = checkpoint.positions;
	send_all(&message);
	tell("running from %" PRId64, line);
}

static void
run(void)
{
	while (!at_end() || finished < issued)
	{
		int			ready = completed - config.hold;

		if (at_end() && completed == issued)
			ready = completed;
		if (!config.two_phase)
			finished = completed;
		else if (ready > finished && unfinished == 0)
			finish_checkpoint(ready);
		if (!at_end() && issued < finished + config.inflight + (config.two_phase ? config.hold : 0))
			issue_barrier();
		else if (finished < issued || unfinished > 0)
			receive();
	}
	while (unfinished > 0)
		receive();
}

/* The coordinator's life; returns how it ended. */
int
coordinate(void)
{
	Message		end = {.type = MSG_END};
	int64_t		epoch = 0;

	input_open();
	session_begin(-1);
	restore();
	step("recover");
	if (!config.open_writers)
		epoch = call_recover(&checkpoint);
	step("recovered");
	start_subtasks(epoch);
	while (nopened < config.parallel)
		receive();
	start_reading();
	run();
	step("end");
	send_all(&end);
	for (int i = 0; i < config.parallel; i++)
	{
		int			status;

		if (waitpid(child[i], &status, 0) != child[i] || status != EXIT_DONE)
			die("subtask %d ended with status %d", i, status);
	}
	return EXIT_DONE;
}
