/*-------------------------------------------------------------------------
 *
 * prepared.h
 *	  Prepared batches, the decisions on them, and how they are finished.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_PREPARED_H
#define RSINK_PREPARED_H

#include "nodes/pg_list.h"

#include "sink/sink.h"
#include "twophase/decision.h"
#include "twophase/gid.h"

/* A batch in a prepared transaction. */
typedef struct RsinkPrepared
{
	char	   *job;
	char	   *writer;
	int64		epoch;
	int64		number;
	int64		events;
	TransactionId xid;
	char	   *gid;			/* under which it is prepared */
	Oid			owner;			/* who prepared it */
	TimestampTz prepared_at;
	RsinkDecision decision;
	bool		fenced;			/* was its epoch over when we looked? */
} RsinkPrepared;

extern int	rsink_in_doubt_warning;

extern List *rsink_prepared_list(const RsinkSink *sink, const char *job, const char *writer);
extern RsinkPrepared *rsink_prepared_find(const RsinkGid *gid);
extern RsinkPrepared *rsink_unfinished_find(const RsinkSink *sink, TransactionId xid);
extern const char *rsink_prepared_state(const RsinkPrepared *p);
extern int	rsink_prepared_count(void);
extern bool rsink_gid_in_progress(const RsinkGid *gid);
extern List *rsink_prepared_due(const RsinkSink *sink, List *prepared, int64 below);
extern bool rsink_finish(const RsinkPrepared *p);
extern void rsink_warn_in_doubt(const RsinkSink *sink, List *prepared, TimestampTz *warned);

#endif							/* RSINK_PREPARED_H */
