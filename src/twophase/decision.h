/*-------------------------------------------------------------------------
 *
 * decision.h
 *	  Decisions on prepared batches: rows that are committed before any batch is finished.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_DECISION_H
#define RSINK_DECISION_H

#include "sink/sink.h"

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
