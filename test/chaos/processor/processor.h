/*-------------------------------------------------------------------------
 *
 * processor.h
 *	  A checkpointing stream processor that writes to a sink.
 *
 * A coordinator and its subtasks, each a process. See processor.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CHAOS_PROCESSOR_H
#define CHAOS_PROCESSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "../../demo/log.h"

#define MAX_PARTITIONS 4
#define MAX_SHARDS 8
#define MAX_SUBTASKS 8
#define MAX_GID 200

/* How a process ends. */
#define EXIT_DONE 0				/* all of the log is in */
#define EXIT_BROKEN 1			/* an error, told on stderr */
#define EXIT_RESTART 3			/* the job is to be restarted from its last checkpoint */
#define EXIT_FENCED 4			/* a later incarnation has taken over */

/* What a run is asked to do; see config_set() for the names. */
typedef struct Config
{
	const char *log;			/* directory of the partitions */
	const char *state;			/* directory of the checkpoints */
	const char *conninfo;
	const char *sink;
	const char *ingest;
	const char *job;
	bool		two_phase;
	bool		totals;			/* upsert totals instead of applying events */
	bool		versions;		/* with versions of the totals */
	bool		keyed;			/* shards by key, instead of by partition */
	int			parallel;		/* subtasks */
	int			step;			/* lines of a partition between two barriers */
	int			chunk;			/* events a call */
	int			inflight;		/* barriers on their way at a time */
	int			hold;			/* checkpoints that stay prepared */
	bool		copy;			/* COPY, instead of arrays */
	bool		open_writers;	/* open_writer by each subtask, instead of recover */
	bool		own_epoch;		/* our own number as the epoch */
	bool		subtasks_finish;	/* commit_prepared, instead of commit_checkpoint */
	bool		gids;			/* commit_checkpoint with all gids */
	bool		ask_outcome;	/* of a lost PREPARE, instead of begin_batch again */
	bool		restarts;		/* a lost connection restarts the job */
	bool		store;			/* offsets in the sink, too, under two-phase commit */
	bool		input_ends;		/* the last checkpoint has the largest number */
	bool		failover_loses;	/* what was answered may be gone */
	int			older;			/* restore a checkpoint that many before the last */
	int			rewind;			/* one-phase: start that many lines before the offsets */
	int64_t		oldest;			/* event times before it are late */
} Config;

/*
 * Where each shard is: the next offset of each partition. A shard is what a
 * subtask can own: a partition, or a group of keys, which reads all of them.
 */
typedef struct Positions
{
	int64_t		next[MAX_SHARDS][MAX_PARTITIONS];
} Positions;

/* Which checkpoint: none if the attempt is 0. */
typedef struct Name
{
	int64_t		attempt;
	int64_t		sequence;
} Name;

/* A checkpoint as it is on disk. */
typedef struct Checkpoint
{
	int64_t		attempt;		/* the incarnation that wrote it */
	int64_t		sequence;		/* its number in that incarnation; 0 is the restored one */
	Name		copy_of;		/* what the attempt has restored */
	bool		restores;		/* false: the job starts from nothing */
	int64_t		number;
	int			writers;		/* the most subtasks there have been */
	Positions	positions;
	int			ngids;
	char	  (*gids)[MAX_GID]; /* of all batches so far */
} Checkpoint;

/* What coordinator and subtasks tell each other. */
typedef enum MessageType
{
	MSG_OPENED = 1,				/* the subtask is ready */
	MSG_START,					/* with positions */
	MSG_BARRIER,				/* with number, and targets in next[0] */
	MSG_ACK,					/* with number and gid */
	MSG_FINISH,					/* commit what was prepared up to number */
	MSG_FINISHED,
	MSG_END
} MessageType;

typedef struct Message
{
	MessageType type;
	int64_t		number;
	Positions	positions;
	char		gid[MAX_GID];
} Message;

extern Config config;

/* input.c */
extern int	npartitions;
extern int	nshards;
extern int64_t partition_length[MAX_PARTITIONS];
extern void input_open(void);
extern const Event *input_event(int partition, int64_t offset);
extern bool shard_reads(int shard, int partition);
extern bool shard_has(int shard, int partition, const Event *event);
extern const char *shard_source(int shard);

/* windows.c */
extern int	windows_changed(const Positions *from, const int64_t *to, const bool *owned,
							char **minutes, char **revenues, char **groups);

/* state.c */
extern bool checkpoint_load(Checkpoint *checkpoint, int older);
extern void checkpoint_write(const Checkpoint *checkpoint);
extern void checkpoint_add_gid(Checkpoint *checkpoint, const char *gid);

/* steps.c */
extern void steps_of(const char *name);
extern void steps_fault(const char *spec);
extern void step(const char *name);
extern void tell(const char *fmt,...) __attribute__((format(printf, 1, 2)));

/* coordinator.c, subtask.c */
extern int	coordinate(void);
extern void subtask(int index, int fd, const Checkpoint *restored, int64_t epoch)
			__attribute__((noreturn));
extern bool message_send(int fd, const Message *message);
extern bool message_receive(int fd, Message *message);

#endif							/* CHAOS_PROCESSOR_H */
