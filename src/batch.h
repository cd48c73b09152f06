/*-------------------------------------------------------------------------
 *
 * batch.h
 *	  Events as they come in, and what became of them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_BATCH_H
#define RSINK_BATCH_H

#include "datatype/timestamp.h"
#include "utils/numeric.h"

#include "fingerprint.h"

/* What became of an event; the order is that of apply()'s six counts. */
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

typedef struct RsinkCounts
{
	int64		n[RSINK_NSTATUS];
} RsinkCounts;

/*
 * One event. The strings aren't terminated and belong to the caller; NULL
 * pointers are SQL NULLs, except that a NULL group_key is the empty one.
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

/* An event's fingerprint together with its place in the batch. */
typedef struct RsinkKey
{
	RsinkFingerprint fp;
	uint32		position;
} RsinkKey;

/* Events are taken through the path of a batch in slices of at most so many. */
#define RSINK_SLICE_MAX 16200

/* Longest order_id, event_id and group_key in bytes. */
#define RSINK_ID_MAX 1024

extern RsinkKey *rsink_sort_keys(RsinkKey *keys, RsinkKey *scratch, int n);

#endif							/* RSINK_BATCH_H */
