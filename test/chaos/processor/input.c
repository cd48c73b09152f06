/*-------------------------------------------------------------------------
 *
 * input.c
 *	  The log that can be replayed, and who reads what of it.
 *
 * A partition is the file "part-<n>", a line an event: order_id, event_id,
 * event_time in microseconds since 1970, amount in cents, group_key, with tabs
 * in between. The offset of an event is the number of its line.
 *
 *-------------------------------------------------------------------------
 */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "processor.h"

#define NFIELDS 5

int			npartitions;
int			nshards;
int64_t		partition_length[MAX_PARTITIONS];

static Event *partition_events[MAX_PARTITIONS];

static void
read_line(char *text, Event *event)
{
	char	   *field[NFIELDS];

	text[strcspn(text, "\n")] = '\0';
	for (int i = 0; i < NFIELDS; i++)
		if ((field[i] = strsep(&text, "\t")) == NULL)
			die("a line of the log is short");
	event->order_id = strdup(field[0]);
	event->event_id = strdup(field[1]);
	event->time = strtoll(field[2], NULL, 10);
	event->amount = strtoll(field[3], NULL, 10) * (AMOUNT_UNIT / 100);
	event->group_key = strdup(field[4]);
	event->order_len = (int) strlen(field[0]);
	event->event_len = (int) strlen(field[1]);
	event->group_len = (int) strlen(field[4]);
}

void
input_open(void)
{
	for (int p = 0; p < MAX_PARTITIONS; p++)
	{
		char		path[PATH_MAX];
		char		text[1024];
		FILE	   *file;

		snprintf(path, sizeof(path), "%s/part-%d", config.log, p);
		if ((file = fopen(path, "r")) == NULL)
			break;
		npartitions++;
		while (fgets(text, sizeof(text), file))
		{
			Event	  **events = &partition_events[p];

			*events = must_alloc(*events, (size_t) (partition_length[p] + 1) * sizeof(Event));
			read_line(text, &(*events)[partition_length[p]++]);
		}
		fclose(file);
	}
	if (npartitions == 0)
		die("there is no log in \"%s\"", config.log);
	nshards = config.keyed ? MAX_SHARDS : npartitions;
}

const Event *
input_event(int partition, int64_t offset)
{
	return &partition_events[partition][offset];
}

/* Does a shard read this partition? */
bool
shard_reads(int shard, int partition)
{
	return config.keyed || shard == partition;
}

/*
 * Is the event one of the shard's? Windows are kept by group, so their keys
 * are groups; events go by their orders.
 */
bool
shard_has(int shard, int partition, const Event *event)
{
	const char *key = config.totals ? event->group_key : event->order_id;
	int			len = config.totals ? event->group_len : event->order_len;

	if (!config.keyed)
		return shard == partition;
	return (int) (hash_bytes(0, key, (size_t) len) % MAX_SHARDS) == shard;
}

/* The name under which the sink keeps a shard's offsets. */
const char *
shard_source(int shard)
{
	static char name[32];

	if (!config.keyed)
		return "log";
	snprintf(name, sizeof(name), "log of keys %d", shard);
	return name;
}
