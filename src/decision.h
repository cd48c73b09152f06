/*-------------------------------------------------------------------------
 *
 * decision.h
 *	  What has been decided of batches: rows, written before anything is done.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_DECISION_H
#define RSINK_DECISION_H

#include "sink.h"

typedef enum RsinkDecision
{
	RSINK_UNDECIDED,
	RSINK_COMMIT,
	RSINK_ROLLBACK
} RsinkDecision;

extern RsinkDecision rsink_decision(const RsinkSink *sink, const char *job, const char *writer,
									int64 epoch, int64 number, TransactionId xid);
extern void rsink_decide(const RsinkSink *sink, const char *job, const char *writer,
						 int64 epoch, int64 number, TransactionId xid,
						 RsinkDecision decision);

#endif							/* RSINK_DECISION_H */
