/*-------------------------------------------------------------------------
 *
 * tend.h
 *	  One round of the worker for one sink, step by step.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_TEND_H
#define RSINK_TEND_H

#include "datatype/timestamp.h"

/* What the worker remembers of a sink between rounds. */
typedef struct RsinkTended
{
	char		name[NAMEDATALEN];
	int32		id;
	Oid			seen;			/* its page table, when last looked at */
	uint64		activity;		/* sum of its counters, when last tended */
	int			skip;			/* rounds to skip */
	bool		unusable;		/* did the last look at it raise an error? */
	int			rounds;			/* in which it was tended */
	bool		mergeable;		/* were there slices enough for a merge, when last sealed? */
	bool		hurry;			/* is there more to seal or to merge right now? */
	TransactionId merged;		/* transaction that merged last */
	int			merge_wait;		/* rounds to wait before merging again */
	int			merge_backoff;
	TimestampTz warned;			/* when last warned of batches in doubt */
	uint32		problem;		/* hash of the problem logged last, or 0 */
} RsinkTended;

extern void rsink_begin_step(const char *what, const char *sink);
extern void rsink_end_step(void);
extern int64 rsink_tend(RsinkTended *t);

#endif							/* RSINK_TEND_H */
