/*-------------------------------------------------------------------------
 *
 * log.c
 *	  The order log of the demo: partitions on disk, read by offset.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"

#define MILESTONE 1000

/* An event on disk; the three strings follow it. */
typedef struct Record
{
	int64_t		time;
	int64_t		amount;
	uint16_t	order_len;
	uint16_t	event_len;
	uint16_t	group_len;
} Record;

struct LogWriter
{
	FILE	   *file[PARTITIONS];
};

void
die(const char *fmt,...)
{
	char		text[2000];
	size_t		len;
	va_list		ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	for (len = strlen(text); len > 0 && text[len - 1] == '\n'; len--)
		;						/* the server's messages end in one */
	fflush(stdout);
	fprintf(stderr, "%.*s\n", (int) len, text);
	exit(1);
}

void *
must_alloc(void *old, size_t size)
{
	void	   *p = realloc(old, size);

	if (p == NULL)
		die("out of memory");
	return p;
}

/* FNV-1a, and a finish that spreads it over all bits. */
uint64_t
hash_bytes(uint64_t seed, const void *bytes, size_t len)
{
	const unsigned char *p = bytes;
	uint64_t	h = seed ^ UINT64_C(0xCBF29CE484222325);

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * UINT64_C(0x100000001B3);
	h = (h ^ (h >> 32)) * UINT64_C(0x9E3779B97F4A7C15);
	return h ^ (h >> 29);
}

static void
log_path(char *path, size_t size, const char *dir, int partition)
{
	snprintf(path, size, "%s/orders-%d.log", dir, partition);
}

LogWriter *
log_create(const char *dir)
{
	LogWriter  *writer = must_alloc(NULL, sizeof(LogWriter));
	char		path[4096];

	for (int p = 0; p < PARTITIONS; p++)
	{
		log_path(path, sizeof(path), dir, p);
		writer->file[p] = fopen(path, "w");
		if (writer->file[p] == NULL)
			die("could not create \"%s\": %s", path, strerror(errno));
		setvbuf(writer->file[p], NULL, _IOFBF, 1 << 20);
	}
	return writer;
}

void
log_append(LogWriter *writer, int partition, const Event *event)
{
	FILE	   *file = writer->file[partition];
	Record		record;

	memset(&record, 0, sizeof(record));
	record.time = event->time;
	record.amount = event->amount;
	record.order_len = (uint16_t) event->order_len;
	record.event_len = (uint16_t) event->event_len;
	record.group_len = (uint16_t) event->group_len;
	fwrite(&record, sizeof(record), 1, file);
	fwrite(event->order_id, 1, (size_t) event->order_len, file);
	fwrite(event->event_id, 1, (size_t) event->event_len, file);
	fwrite(event->group_key, 1, (size_t) event->group_len, file);
}

void
log_close(LogWriter *writer)
{
	for (int p = 0; p < PARTITIONS; p++)
	{
		int			failed = ferror(writer->file[p]);

		if (fclose(writer->file[p]) != 0 || failed)
			die("could not write the order log: %s", strerror(errno));
	}
	free(writer);
}

/* The events of an order go to one partition, as with a Kafka message key. */
int
log_partition_of(const char *order_id, int len)
{
	return (int) (hash_bytes(0, order_id, (size_t) len) % PARTITIONS);
}

void
log_open(const char *dir, int partition, Partition *p)
{
	char		path[4096];
	struct stat st;
	const char *at;
	Event		event;
	int			fd;

	log_path(path, sizeof(path), dir, partition);
	fd = open(path, O_RDONLY);
	if (fd < 0 || fstat(fd, &st) != 0)
		die("could not open \"%s\": %s", path, strerror(errno));

	memset(p, 0, sizeof(*p));
	if (st.st_size > 0)
	{
		p->data = mmap(NULL, (size_t) st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		if (p->data == MAP_FAILED)
			die("could not map \"%s\": %s", path, strerror(errno));
		p->end = p->data + st.st_size;
	}
	close(fd);

	for (at = p->data; at < p->end; at = log_read(at, &event))
	{
		if (p->nevents % MILESTONE == 0)
		{
			size_t		n = (size_t) (p->nevents / MILESTONE);

			/* grows to the next power of two */
			if ((n & (n - 1)) == 0)
				p->milestone = must_alloc(p->milestone, (n ? 2 * n : 1) * sizeof(char *));
			p->milestone[n] = at;
		}
		p->nevents++;
	}
}

void
log_unmap(Partition *p)
{
	if (p->data)
		munmap((void *) p->data, (size_t) (p->end - p->data));
	free(p->milestone);
}

/* Where the event with this offset starts. */
const char *
log_seek(const Partition *p, int64_t offset)
{
	const char *at;
	Event		event;

	if (offset >= p->nevents)
		return p->end;
	at = p->milestone[offset / MILESTONE];
	for (int64_t i = offset % MILESTONE; i > 0; i--)
		at = log_read(at, &event);
	return at;
}

/* Read the event that starts here; returns where the next one starts. */
const char *
log_read(const char *at, Event *event)
{
	Record		record;

	memcpy(&record, at, sizeof(record));
	at += sizeof(record);
	event->time = record.time;
	event->amount = record.amount;
	event->order_len = record.order_len;
	event->event_len = record.event_len;
	event->group_len = record.group_len;
	event->order_id = at;
	event->event_id = event->order_id + record.order_len;
	event->group_key = event->event_id + record.event_len;
	return event->group_key + record.group_len;
}
