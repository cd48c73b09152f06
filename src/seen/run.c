/*-------------------------------------------------------------------------
 *
 * run.c
 *	  Runs: page rows whose events have no entries in the index.
 *
 * The index takes 13 bytes per event. When it has its share of the memory, page rows of
 * large calls get no entries there; and when there is no memory for the index, no page
 * row does. Shared memory then knows of such a page row only the range of its
 * fingerprints and its address. The rows that a call has claimed follow each other by
 * fingerprint, so a run of them is searched like a sorted array, and a large call's keys
 * meet each row once.
 *
 * A run is a chunk of the pool: what is known of its rows and, as long as there is memory
 * for it, a filter over their events, which spares most look-ups the rows. Runs without
 * a filter take 24 bytes per page row, so there is memory for as many events as a disk
 * can hold, if they come in large calls. That is a state to get out of: once the
 * transactions have ended, the worker seals the rows. If there is no memory for another
 * run, the filter of the newest one makes way for its rows.
 *
 * A row that is deleted, or whose transaction is rolled back, stays here until the worker
 * finds that its address leads nowhere (sweep.c). No function here raises an error but
 * for a lack of the backend's own memory.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "apply/event.h"
#include "apply/fingerprint.h"
#include "seen/filter.h"
#include "seen/pool.h"
#include "seen/run.h"
#include "sink/slot.h"

/* A filter has room for so many bits per event, and takes all but this part of the run. */
#define FILTER_BITS		16
#define ROWS_PART		(1.0 / 8)

/* While less than this part of the pool is free, runs do without a filter. */
#define FILTER_RESERVE	(1.0 / 8)

/* A run whose rows would no longer be in order ends, unless it has fewer rows than this. */
#define SHORT_RUN		64

/* Keys and rows that are compared in one call of rsink_runs_ask(), roughly. */
#define ASK_MOST		200000

/* The CPU is asked for lines of a filter this many keys ahead. */
#define PREFETCH_AHEAD	8

/* What a run knows of a page row. */
typedef struct Row
{
	uint64		first;			/* upper halves of its least and greatest fingerprint */
	uint64		last;
	BlockNumber block;			/* InvalidBlockNumber: the row is gone */
	OffsetNumber offset;
	uint16		n;				/* events */
} Row;

/* A run. Its rows follow, and its filter is at the end of the chunk. */
typedef struct Run
{
	uint32		older;			/* chunk of the next older run, plus one */
	uint32		nrows;
	uint32		nlive;			/* of these, not gone */
	uint32		room;			/* for rows */
	uint32		nlines;			/* of the filter; 0: none */
	uint32		events;			/* of all rows, also of rows that are gone */
	uint64		base;			/* number of the first row */
	bool		ordered;		/* does each row end before the next one begins? */
	Row			row[FLEXIBLE_ARRAY_MEMBER];
} Run;

static inline Run *
run_at(uint32 link)
{
	return link == 0 ? NULL : rsink_chunk(link - 1);
}

static inline uint64 *
run_line(const Run *run, uint32 line)
{
	return (uint64 *) ((char *) run + rsink_pool->chunk_bytes) -
		(Size) (run->nlines - line) * RSINK_LINE_WORDS;
}

/* Forget all runs. Caller holds the sink lock exclusively. */
void
rsink_runs_reset(RsinkRuns *runs)
{
	while (runs->newest != 0)
	{
		uint32		chunk = runs->newest - 1;

		runs->newest = run_at(runs->newest)->older;
		rsink_chunk_free(chunk);
	}
	runs->nruns = 0;
	runs->events = 0;
}

/* Begin a new run. NULL: there is no memory. */
static Run *
new_run(RsinkRuns *runs)
{
	bool		filtered = rsink_pool_free() > FILTER_RESERVE;
	uint32		chunk = rsink_chunk_alloc(runs->newest == 0 ? 0 : (uint32) rsink_max_sinks);
	Size		bytes = rsink_pool->chunk_bytes - offsetof(Run, row);
	Run		   *run;

	if (chunk == RSINK_NO_CHUNK)
		return NULL;
	run = rsink_chunk(chunk);
	run->older = runs->newest;
	run->base = runs->nrows;
	run->ordered = true;
	if (filtered)
		run->nlines = (uint32) (bytes * (1 - ROWS_PART) / RSINK_LINE_BYTES);
	run->room = (uint32) ((bytes - (Size) run->nlines * RSINK_LINE_BYTES) / sizeof(Row));
	runs->newest = chunk + 1;
	runs->nruns++;
	return run;
}

/*
 * Can a row of n events that begins with this key be added to the newest run? Not if
 * newer rows than its last one have been here and are gone, as rows are numbered.
 */
static bool
has_room(const RsinkRuns *runs, const Run *run, uint64 first, int n)
{
	if (run == NULL || run->nrows == run->room || run->base + run->nrows != runs->nrows)
		return false;
	if (run->nlines > 0)
		return (run->events + n) * (uint64) FILTER_BITS <= (uint64) run->nlines * RSINK_LINE_BYTES * 8;
	return !run->ordered || run->nrows < SHORT_RUN || run->row[run->nrows - 1].last < first;
}

/*
 * Make room for another row in the newest run, where there is no memory for a new one: the
 * run's filter makes way. False: there is no room.
 */
static bool
widen(const RsinkRuns *runs, Run *run)
{
	if (run == NULL || run->base + run->nrows != runs->nrows)
		return false;
	run->nlines = 0;
	run->room = (uint32) ((rsink_pool->chunk_bytes - offsetof(Run, row)) / sizeof(Row));
	return run->nrows < run->room;
}

/*
 * Add a page row of n sorted keys. False: there is no memory. Caller holds the sink lock
 * exclusively.
 */
bool
rsink_runs_add(RsinkRuns *runs, const RsinkKey *keys, int n, const ItemPointerData *tid)
{
	Run		   *newest = run_at(runs->newest);
	Run		   *run = has_room(runs, newest, keys[0].fp.hi, n) ? newest : new_run(runs);
	Row		   *row;

	if (run == NULL)
	{
		if (!widen(runs, newest))
			return false;
		run = newest;
	}
	row = &run->row[run->nrows];
	row->first = keys[0].fp.hi;
	row->last = keys[n - 1].fp.hi;
	row->block = ItemPointerGetBlockNumber(tid);
	row->offset = ItemPointerGetOffsetNumber(tid);
	row->n = (uint16) n;
	run->ordered = run->ordered && (run->nrows == 0 || row[-1].last < row->first);
	if (run->nlines > 0)
		for (int i = 0; i < n; i++)
			rsink_filter_set(run_line(run, rsink_filter_line(&keys[i].fp, run->nlines)), &keys[i].fp);
	run->nrows++;
	run->nlive++;
	run->events += n;
	runs->events += n;
	runs->nrows++;
	return true;
}

/* Add to the answer that a row may have a key, if it may. */
static void
ask_row(RsinkRunAnswer *answer, const Row *row, const RsinkFingerprint *fp, int key)
{
	RsinkRunCandidate *candidate;

	if (row->block == InvalidBlockNumber || fp->hi < row->first || fp->hi > row->last)
		return;
	if (answer->n == answer->room)
	{
		answer->room = Max(64, answer->room * 2);
		if (answer->candidates == NULL)
			answer->candidates = palloc(answer->room * sizeof(RsinkRunCandidate));
		else
			answer->candidates = repalloc_huge(answer->candidates, answer->room * sizeof(RsinkRunCandidate));
	}
	candidate = &answer->candidates[answer->n++];
	candidate->key = key;
	ItemPointerSet(&candidate->tid, row->block, row->offset);
}

/* The last row of an ordered run, from this one on, that doesn't begin after a fingerprint. */
static const Row *
find_row(const Run *run, uint32 from, uint64 hi)
{
	uint32		low = from;
	uint32		high = run->nrows;

	while (low < high)
	{
		uint32		middle = (low + high) / 2;

		if (run->row[middle].first <= hi)
			low = middle + 1;
		else
			high = middle;
	}
	return low == from ? NULL : &run->row[low - 1];
}

/* Add to the answer which rows of a run, from this one on, may have which of n sorted keys. */
static void
ask_run(RsinkRunAnswer *answer, const Run *run, uint32 from, const RsinkKey *keys, int n)
{
	for (int i = 0; i < n; i++)
	{
		const RsinkFingerprint *fp = &keys[i].fp;

#if defined(__GNUC__)
		if (run->nlines > 0 && i + PREFETCH_AHEAD < n)
			__builtin_prefetch(run_line(run, rsink_filter_line(&keys[i + PREFETCH_AHEAD].fp, run->nlines)));
#endif
		if (run->nlines > 0 && !rsink_filter_has(run_line(run, rsink_filter_line(fp, run->nlines)), fp))
			continue;
		if (run->ordered)
		{
			const Row  *row = find_row(run, from, fp->hi);

			if (row != NULL)
				ask_row(answer, row, fp, i);
		}
		else
			for (uint32 r = from; r < run->nrows; r++)
				ask_row(answer, &run->row[r], fp, i);
	}
}

/*
 * Which rows, from the one with the number "from" up to the one before *before, may have
 * which of n sorted keys? Adds to the answer, whose array is in the current memory
 * context, and goes from new rows to old ones. Returns whether there are more rows to be
 * asked, with the same arguments: then *before has been lowered, and the caller should
 * let others have the sink lock, of which share mode suffices.
 */
bool
rsink_runs_ask(const RsinkRuns *runs, uint64 from, uint64 *before, const RsinkKey *keys, int n,
			   RsinkRunAnswer *answer)
{
	int64		work = 0;

	for (const Run *run = run_at(runs->newest); run != NULL; run = run_at(run->older))
	{
		if (run->base >= *before)
			continue;
		if (run->base + run->nrows <= from)
			break;
		if (work > ASK_MOST)
			return true;
		work += (int64) n * (run->ordered || run->nlines > 0 ? 1 : run->nrows);
		ask_run(answer, run, from <= run->base ? 0 : (uint32) (from - run->base), keys, n);
		*before = run->base;
	}
	return false;
}

/*
 * List rows that aren't gone, at most so many, from new ones to old ones, of those before
 * the one with the number *before, which is set to the last one looked at. Returns how
 * many were listed. Caller holds the sink lock, of which share mode suffices.
 */
int
rsink_runs_list(const RsinkRuns *runs, uint64 *before, RsinkRunRow *rows, int most)
{
	int			n = 0;

	for (const Run *run = run_at(runs->newest); run != NULL && n < most; run = run_at(run->older))
	{
		for (uint32 r = run->nrows; r-- > 0 && n < most;)
		{
			if (run->base + r >= *before)
				continue;
			*before = run->base + r;
			if (run->row[r].block == InvalidBlockNumber)
				continue;
			rows[n].number = run->base + r;
			rows[n].first = run->row[r].first;
			ItemPointerSet(&rows[n].tid, run->row[r].block, run->row[r].offset);
			n++;
		}
	}
	return n;
}

/*
 * Remove rows that are gone, which rsink_runs_list() has listed in this order. Runs
 * that have no other rows give their memory back. Caller holds the sink lock exclusively.
 */
void
rsink_runs_remove(RsinkRuns *runs, const RsinkRunRow *rows, int n)
{
	uint32	   *link = &runs->newest;
	int			i = 0;

	while (*link != 0)
	{
		uint32		chunk = *link - 1;
		Run		   *run = rsink_chunk(chunk);

		while (i < n && rows[i].number >= run->base + run->nrows)
			i++;
		for (; i < n && rows[i].number >= run->base; i++)
		{
			Row		   *row = &run->row[rows[i].number - run->base];

			if (row->block == InvalidBlockNumber)
				continue;
			row->block = InvalidBlockNumber;
			run->nlive--;
			runs->events -= row->n;
		}
		if (run->nlive > 0)
		{
			link = &run->older;
			continue;
		}
		*link = run->older;
		rsink_chunk_free(chunk);
		runs->nruns--;
	}
}

/* Shared memory that the runs occupy, in bytes. Caller holds the sink lock. */
Size
rsink_runs_bytes(const RsinkRuns *runs)
{
	return runs->nruns * rsink_pool->chunk_bytes;
}
