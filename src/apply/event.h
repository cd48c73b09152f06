/*-------------------------------------------------------------------------
 *
 * event.h
 *	  Events, their statuses, and sorting them by fingerprint.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_EVENT_H
#define RSINK_EVENT_H

#include "datatype/timestamp.h"
#include "utils/numeric.h"

#include "apply/fingerprint.h"

/* What became of an event, in the order of the counts that apply() returns. */
typedef enum RsinkStatus
{
	RSINK_APPLIED,
	RSINK_DUPLICATE,
	RSINK_DEFERRED,
	RSINK_CONFLICT,
	RSINK_LATE,
	RSINK_REJECTED
} RsinkStatus;

#define RSINK_NSTATUS (RSINK_REJECTED + 1)

extern const char *const rsink_status_name[RSINK_NSTATUS];

/* How many events got each status. */
typedef struct RsinkCounts
{
	int64		n[RSINK_NSTATUS];
} RsinkCounts;

/*
 * One event. The strings aren't terminated and belong to the caller; their lengths
 * are in bytes. A null pointer stands for an SQL NULL, but a null group_key stands
 * for the empty one.
 */
typedef struct RsinkEvent
{
	const char *order_id;
	const char *event_id;
	const char *group_key;
	Numeric		amount;
	TimestampTz event_time;
	int32		order_len;
	int32		event_len;
	int32		group_len;
	bool		time_isnull;
	uint8		status;			/* an RsinkStatus, once applied */
} RsinkEvent;

/* An event's fingerprint, and its position in its portion of the call. */
typedef struct RsinkKey
{
	RsinkFingerprint fp;
	uint32		position;
} RsinkKey;

/* Events are applied in portions of at most so many. */
#define RSINK_PORTION_MAX 16200

/* Longest order_id, event_id and group_key in bytes. */
#define RSINK_ID_MAX 1024
#define RSINK_ID_MAX_TEXT CppAsString2(RSINK_ID_MAX)

/* Ask the CPU for what checking an event reads. */
static inline void
rsink_event_prefetch(const RsinkEvent *event)
{
#if defined(__GNUC__)
	__builtin_prefetch(&event->event_time);
#endif
}

extern void rsink_event_values(const RsinkEvent *event, Datum *values, bool *nulls);
extern void rsink_sort_keys(RsinkKey *keys, RsinkKey *scratch, int n);
extern void rsink_sort_many_keys(RsinkKey *keys, int n);

#endif							/* RSINK_EVENT_H */
