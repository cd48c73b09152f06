/*-------------------------------------------------------------------------
 *
 * sweep.c
 *	  Rows of runs that are gone leave shared memory.
 *
 * Nobody notes which rows of runs a transaction has deleted, or that it was rolled back:
 * the worker looks at each row. An address that leads nowhere, or to a row that begins
 * with another fingerprint, leads to the run's row never again. And once so few events
 * are left that they aren't to be sealed, the worker enters them in the index.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "miscadmin.h"
#include "utils/rel.h"

#include "core/compat.h"
#include "seen/run.h"
#include "seen/seal.h"
#include "seen/seen_index.h"
#include "seen/seen_page.h"
#include "seen/sweep.h"
#include "sink/sink.h"
#include "sink/slot.h"

/* Rows that are looked at between two holds of the sink lock. */
#define SWEEP_ROWS		4096

/*
 * Enter a row of a run, which the reader has read, in the index, if nothing is to be
 * sealed. False: the row must stay in the run. Takes the sink lock.
 */
static bool
enter_row(RsinkSink *sink, const RsinkPageReader *reader)
{
	RsinkShared *shared = sink->shared;
	int			entered = 0;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	if (shared->seen == sink->seen && shared->relfile == rsink_relfile(reader->rel) &&
		(double) shared->index.nentries + (double) shared->runs.events <= rsink_hot_limit())
	{
		RsinkFingerprint fp;

		do
			rsink_page_key(&reader->page, entered, &fp);
		while (rsink_index_insert(&shared->index, &fp, &reader->tid) && ++entered < reader->page.n);
	}
	LWLockRelease(&shared->lock);
	return entered == reader->page.n;
}

/*
 * Look at the rows of all runs of a sink, and remove from the runs what is gone or can
 * be entered in the index. Takes RowExclusiveLock on the page table, and the sink
 * lock for short moments. Heeds cancels. Caller holds the maintenance lock.
 */
void
rsink_sweep_runs(RsinkSink *sink)
{
	RsinkShared *shared = sink->shared;
	RsinkRunRow *rows;
	RsinkPageReader reader;
	Relation	rel;
	uint64		before = PG_UINT64_MAX;

	if (shared->runs.nruns == 0 || (rel = try_table_open(sink->seen, RowExclusiveLock)) == NULL)
		return;
	rows = palloc(SWEEP_ROWS * sizeof(RsinkRunRow));
	rsink_page_reader_begin(&reader, rel);
	for (;;)
	{
		int			gone = 0;
		int			n = 0;

		/* a run in another file than the one we read is about to be forgotten */
		LWLockAcquire(&shared->lock, LW_SHARED);
		if (shared->seen == sink->seen && shared->relfile == rsink_relfile(rel))
			n = rsink_runs_list(&shared->runs, &before, rows, SWEEP_ROWS);
		LWLockRelease(&shared->lock);
		if (n == 0)
			break;
		for (int i = 0; i < n; i++)
		{
			CHECK_FOR_INTERRUPTS();
			if (!rsink_page_begins(&reader, &rows[i].tid, rows[i].first) || enter_row(sink, &reader))
				rows[gone++] = rows[i];
		}
		rsink_page_reader_end(&reader);
		LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
		if (shared->seen == sink->seen && shared->relfile == rsink_relfile(rel))
			rsink_runs_remove(&shared->runs, rows, gone);
		LWLockRelease(&shared->lock);
	}
	pfree(rows);
	table_close(rel, NoLock);
}
