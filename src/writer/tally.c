/*-------------------------------------------------------------------------
 *
 * tally.c
 *	  What a transaction has done: counted per sink, and published at its end.
 *
 * The counts of a subtransaction become its parent's, or are gone if the
 * subtransaction is rolled back.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "apply/event.h"
#include "sink/sink.h"
#include "sink/slot.h"
#include "writer/tally.h"

/* What one subtransaction has done to one sink; an element of a list. */
typedef struct Tally
{
	SubTransactionId subid;
	RsinkShared *shared;
	int32		sink_id;
	Oid			seen;			/* the page table: is "shared" still this sink's? */
	int64		n[RSINK_NSTATS];
	TimestampTz newest;			/* event time of those applied, or DT_NOBEGIN */
	struct Tally *next;
} Tally;

static Tally *tallies;			/* in TopTransactionContext, or NULL */

/* The tally of the current subtransaction for a sink, made if there is none. */
static Tally *
tally_for(RsinkSink *sink)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	Tally	   *tally;

	for (tally = tallies; tally != NULL; tally = tally->next)
		if (tally->sink_id == sink->id && tally->subid == subid)
			return tally;
	tally = MemoryContextAllocZero(TopTransactionContext, sizeof(Tally));
	tally->subid = subid;
	tally->shared = sink->shared;
	tally->sink_id = sink->id;
	tally->seen = sink->seen;
	tally->newest = DT_NOBEGIN;
	tally->next = tallies;
	tallies = tally;
	return tally;
}

/*
 * Count answers to events for stat_sink and the ledger, if the current
 * transaction commits or is prepared. "newest" is the newest event time of those
 * applied, or DT_NOBEGIN.
 */
void
rsink_tally_count(RsinkSink *sink, const RsinkCounts *counts, TimestampTz newest)
{
	Tally	   *tally = tally_for(sink);

	for (int i = 0; i < RSINK_NSTATUS; i++)
		tally->n[i] += counts->n[i];
	tally->newest = Max(tally->newest, newest);
}

/*
 * Count the batch of the current transaction for stat_sink, if the transaction
 * commits or is prepared.
 */
void
rsink_tally_batch(RsinkSink *sink)
{
	tally_for(sink)->n[RSINK_STAT_BATCHES] = 1;
}

/* Has the current transaction called any function that writes to the sink? */
bool
rsink_tally_has(int32 sink_id)
{
	for (Tally *tally = tallies; tally != NULL; tally = tally->next)
		if (tally->sink_id == sink_id)
			return true;
	return false;
}

/*
 * How many events of the sink the current transaction has applied, and their
 * newest event time, or DT_NOBEGIN.
 */
void
rsink_tally_applied(int32 sink_id, int64 *events, TimestampTz *newest)
{
	*events = 0;
	*newest = DT_NOBEGIN;
	for (Tally *tally = tallies; tally != NULL; tally = tally->next)
	{
		if (tally->sink_id != sink_id)
			continue;
		*events += tally->n[RSINK_APPLIED];
		*newest = Max(*newest, tally->newest);
	}
}

/*
 * Add the tallies to the counters of the sinks. A slot that another sink has
 * taken meanwhile is left alone.
 */
static void
publish_stats(void)
{
	for (Tally *tally = tallies; tally != NULL; tally = tally->next)
	{
		if (tally->shared == NULL || tally->shared->seen != tally->seen)
			continue;
		for (int i = 0; i < RSINK_NSTATS; i++)
			if (tally->n[i] != 0)
				pg_atomic_fetch_add_u64(&tally->shared->stat[i], tally->n[i]);
	}
}

/* The tallies of a subtransaction become its parent's, or are gone. */
static void
subxact_callback(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	Tally	  **link = &tallies;

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	while (*link != NULL)
	{
		Tally	   *tally = *link;
		Tally	   *into = NULL;

		if (tally->subid != mine)
		{
			link = &tally->next;
			continue;
		}
		if (event == SUBXACT_EVENT_COMMIT_SUB)
		{
			for (into = tallies; into != NULL; into = into->next)
				if (into->sink_id == tally->sink_id && into->subid == parent)
					break;
			if (into == NULL)
			{
				tally->subid = parent;
				link = &tally->next;
				continue;
			}
			for (int i = 0; i < RSINK_NSTATS; i++)
				into->n[i] += tally->n[i];
			into->newest = Max(into->newest, tally->newest);
		}
		*link = tally->next;
		pfree(tally);
	}
}

static void
xact_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_PREPARE)
		publish_stats();
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_PREPARE || event == XACT_EVENT_ABORT)
		tallies = NULL;
}

/* Called once per process, from _PG_init. */
void
rsink_init_tally(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}
