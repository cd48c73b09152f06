/*-------------------------------------------------------------------------
 *
 * run.h
 *	  Runs: page rows whose events have no entries in the index.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_RUN_H
#define RSINK_RUN_H

#include "storage/itemptr.h"

#include "apply/event.h"
#include "seen/pool.h"

/* The runs of one sink, protected by the sink lock. Zeroed memory has none. */
typedef struct RsinkRuns
{
	uint32		newest;			/* chunk of the newest run, plus one */
	uint32		nruns;			/* also a hint */
	int64		events;			/* of all rows; also a hint */
	uint64		nrows;			/* rows that have ever been added, which is the number of the
								 * next one */
} RsinkRuns;

/* A page row that may have a key. */
typedef struct RsinkRunCandidate
{
	int			key;			/* which of the keys asked for */
	ItemPointerData tid;
} RsinkRunCandidate;

/* The rows that may have keys, as an answer collects them. */
typedef struct RsinkRunAnswer
{
	RsinkRunCandidate *candidates;	/* run by run */
	int			n;
	int			room;
} RsinkRunAnswer;

/* A row of a run. */
typedef struct RsinkRunRow
{
	uint64		number;
	uint64		first;			/* upper half of its least fingerprint */
	ItemPointerData tid;
} RsinkRunRow;

extern void rsink_runs_reset(RsinkRuns *runs);
extern bool rsink_runs_add(RsinkRuns *runs, const RsinkKey *keys, int n, const ItemPointerData *tid);
extern bool rsink_runs_ask(const RsinkRuns *runs, uint64 from, uint64 *before, const RsinkKey *keys, int n,
						   RsinkRunAnswer *answer);
extern int	rsink_runs_list(const RsinkRuns *runs, uint64 *before, RsinkRunRow *rows, int most);
extern void rsink_runs_remove(RsinkRuns *runs, const RsinkRunRow *rows, int n);
extern Size rsink_runs_bytes(const RsinkRuns *runs);

#endif							/* RSINK_RUN_H */
