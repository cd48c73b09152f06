/*-------------------------------------------------------------------------
 *
 * seen_find.h
 *	  Which row counts an event, and which transaction has inserted that row?
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_SEEN_FIND_H
#define RSINK_SEEN_FIND_H

#include "datatype/timestamp.h"
#include "utils/snapshot.h"

#include "apply/fingerprint.h"
#include "seen/seen_page.h"
#include "sink/sink.h"

/* What is known of the row that counts an event. */
typedef struct RsinkFound
{
	RsinkRowState state;
	TransactionId xid;			/* has inserted the page row; invalid if that isn't known */
	TimestampTz oldest;			/* event times of the page row's events, as the row has them; */
	TimestampTz newest;			/* DT_NOBEGIN if there is no such row */
} RsinkFound;

extern void rsink_seen_find(RsinkSink *sink, const RsinkFingerprint *fp, RsinkFound *found);
extern bool rsink_seen_scan(const RsinkSink *sink, const RsinkFingerprint *fp, Snapshot snapshot);

#endif							/* RSINK_SEEN_FIND_H */
