/*-------------------------------------------------------------------------
 *
 * log.h
 *	  The order log of the demo: partitions on disk, read by offset.
 *
 * A partition is a file of events, appended once and never changed. An offset
 * is the number of an event in its partition, as in Kafka.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DEMO_LOG_H
#define DEMO_LOG_H

#include <stddef.h>
#include <stdint.h>

#define PARTITIONS 8
#define MAX_ID_LEN 1024			/* of the ids and the group key */

/* An amount is an integer, in units of 10^-8, so that sums are exact. */
#define AMOUNT_DECIMALS 8
#define AMOUNT_UNIT INT64_C(100000000)

typedef struct Event
{
	const char *order_id;		/* not terminated, as all three */
	const char *event_id;
	const char *group_key;
	int			order_len;
	int			event_len;
	int			group_len;
	int64_t		time;			/* microseconds since 1970, UTC */
	int64_t		amount;
} Event;

typedef struct Partition
{
	const char *data;
	const char *end;
	int64_t		nevents;
	const char **milestone;		/* where each MILESTONE-th event starts */
} Partition;

typedef struct LogWriter LogWriter;

/* Writing: as if by a producer, who is long gone when the writers start. */
extern LogWriter *log_create(const char *dir);
extern void log_append(LogWriter *writer, int partition, const Event *event);
extern void log_close(LogWriter *writer);
extern int	log_partition_of(const char *order_id, int len);

/* Reading */
extern void log_open(const char *dir, int partition, Partition *p);
extern void log_unmap(Partition *p);
extern const char *log_seek(const Partition *p, int64_t offset);
extern const char *log_read(const char *at, Event *event);

/* Where the events come from: both fill a log and say what they wrote. */
extern void generate(const char *dir, int64_t nevents, uint64_t seed, int64_t base);
extern void import_csv(const char *dir, const char *path);

extern uint64_t hash_bytes(uint64_t seed, const void *bytes, size_t len);
extern void *must_alloc(void *old, size_t size);
extern void die(const char *fmt,...) __attribute__((format(printf, 1, 2), noreturn));

#endif							/* DEMO_LOG_H */
