/*-------------------------------------------------------------------------
 *
 * processor.c
 *	  A checkpointing stream processor that writes to a sink.
 *
 * It reads a log that can be replayed with several subtasks, and writes to a
 * sink of revenue_sink with one-phase or two-phase commit, events or totals.
 * This is one incarnation of its job: it starts from the last completed
 * checkpoint (or, with one-phase commit, from the sink's offsets), with any
 * parallelism, and ends when all of the log is in. If it ends sooner, somebody
 * starts the next one. All it needs to know is in its checkpoints' directory,
 * the log, and the sink.
 *
 *	processor name=value...		names: see settings[]
 *	fault=who:step:nth:what		see steps.c
 *
 * On stdout it tells what the driver of the faults wants to know.
 *
 *-------------------------------------------------------------------------
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "processor.h"

typedef enum SettingType
{
	TEXT,
	NUMBER,
	BIG_NUMBER,
	FLAG
} SettingType;

static const struct
{
	const char *name;
	SettingType type;
	size_t		offset;
}			settings[] =
{
	{"log", TEXT, offsetof(Config, log)},
	{"state", TEXT, offsetof(Config, state)},
	{"conninfo", TEXT, offsetof(Config, conninfo)},
	{"sink", TEXT, offsetof(Config, sink)},
	{"ingest", TEXT, offsetof(Config, ingest)},
	{"job", TEXT, offsetof(Config, job)},
	{"two_phase", FLAG, offsetof(Config, two_phase)},
	{"totals", FLAG, offsetof(Config, totals)},
	{"versions", FLAG, offsetof(Config, versions)},
	{"keyed", FLAG, offsetof(Config, keyed)},
	{"parallel", NUMBER, offsetof(Config, parallel)},
	{"step", NUMBER, offsetof(Config, step)},
	{"chunk", NUMBER, offsetof(Config, chunk)},
	{"inflight", NUMBER, offsetof(Config, inflight)},
	{"hold", NUMBER, offsetof(Config, hold)},
	{"copy", FLAG, offsetof(Config, copy)},
	{"open_writers", FLAG, offsetof(Config, open_writers)},
	{"own_epoch", FLAG, offsetof(Config, own_epoch)},
	{"subtasks_finish", FLAG, offsetof(Config, subtasks_finish)},
	{"gids", FLAG, offsetof(Config, gids)},
	{"ask_outcome", FLAG, offsetof(Config, ask_outcome)},
	{"restarts", FLAG, offsetof(Config, restarts)},
	{"store", FLAG, offsetof(Config, store)},
	{"input_ends", FLAG, offsetof(Config, input_ends)},
	{"failover_loses", FLAG, offsetof(Config, failover_loses)},
	{"older", NUMBER, offsetof(Config, older)},
	{"rewind", NUMBER, offsetof(Config, rewind)},
	{"oldest", BIG_NUMBER, offsetof(Config, oldest)},
};

Config		config =
{
	.job = "job", .parallel = 2, .step = 100, .chunk = 100, .inflight = 2
};

static void
config_set(const char *name, const char *value)
{
	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
	{
		char	   *field = (char *) &config + settings[i].offset;

		if (strcmp(settings[i].name, name) != 0)
			continue;
		switch (settings[i].type)
		{
			case TEXT:
				*(const char **) field = value;
				break;
			case NUMBER:
				*(int *) field = atoi(value);
				break;
			case BIG_NUMBER:
				*(int64_t *) field = atoll(value);
				break;
			case FLAG:
				*(bool *) field = atoi(value) != 0;
				break;
		}
		return;
	}
	die("there is no setting \"%s\"", name);
}

int
main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
	{
		char	   *value = strchr(argv[i], '=');

		if (value == NULL)
			die("usage: processor name=value...");
		*value++ = '\0';
		if (strcmp(argv[i], "fault") == 0)
			steps_fault(value);
		else
			config_set(argv[i], value);
	}
	if (!config.log || !config.state || !config.conninfo || !config.sink || !config.ingest)
		die("log, state, conninfo, sink and ingest must be given");
	if (config.parallel < 1 || config.parallel > MAX_SUBTASKS || config.step < 1 || config.chunk < 1 ||
		config.inflight < 1 || config.hold < 0)
		die("a number is out of range");
	return coordinate();
}
