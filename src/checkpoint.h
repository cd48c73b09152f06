/*-------------------------------------------------------------------------
 *
 * checkpoint.h
 *	  Two-phase commit: prepared batches, decisions, finishing them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_CHECKPOINT_H
#define RSINK_CHECKPOINT_H

#include "nodes/pg_list.h"

#include "decision.h"
#include "gid.h"
#include "writer.h"

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

/* The most keys that find batches in the ledger by sink, job and writer. */
#define RSINK_LEDGER_KEYS 3

/* prepared.c */
extern int	rsink_ledger_keys(int32 sink_id, const char *job, const char *writer,
							  ScanKeyData *keys);
extern List *rsink_prepared_list(const RsinkSink *sink, const char *job, const char *writer);
extern RsinkPrepared *rsink_prepared_find(const RsinkGid *gid);
extern int	rsink_prepared_count(void);
extern bool rsink_gid_in_progress(const RsinkGid *gid);
extern void rsink_decide_fenced(const RsinkSink *sink, RsinkPrepared *p);
extern bool rsink_finish(const RsinkPrepared *p);
extern void rsink_warn_in_doubt(const RsinkSink *sink, List *prepared, TimestampTz *warned);

/* checkpoint.c */
extern void rsink_finish_all(const RsinkSink *sink, const char *job, const char *writer,
							 int64 below);

#endif							/* RSINK_CHECKPOINT_H */
