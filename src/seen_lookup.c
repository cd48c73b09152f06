/*-------------------------------------------------------------------------
 *
 * seen_lookup.c
 *	  Is this event counted? In memory, in page rows, in the spill table.
 *
 * The index in shared memory leads to page rows; where it has lost entries for
 * want of memory, the spill table has them. An answer holds for as long as the
 * caller holds the section.
 *
 * Neither page rows nor the spill table need be in shared buffers, after a
 * restart for one, and whoever waits for the section can't be cancelled. So
 * keys can be looked up ahead of it. What is found then need not be true later,
 * but makes the look-ups inside quick:
 *
 *	- The blocks of page rows that the index leads to are pinned, and read
 *	  again. That costs no more than a look at memory.
 *	- The spill table's answer stands if it is "counted". If it is "gone", it
 *	  stands as long as no row has come into that table since, which a
 *	  generation count in shared memory tells.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/instrument.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"

#include "seen_lookup.h"

/* How far ahead memory and disk are asked for what is needed next. */
#define PREFETCH_KEYS	8
#define PREFETCH_BLOCKS 32

/*
 * Has the current transaction deleted page rows, so that one which can't be
 * seen may come back? Reset at its end.
 */
bool		rsink_seen_deleting = false;

/* Start looking up events in a sink, whose tables are open. */
void
rsink_lookup_begin(RsinkLookup *lookup, RsinkShared *shared,
				   const RsinkTable *pages, const RsinkTable *spill)
{
	memset(lookup, 0, sizeof(RsinkLookup));
	lookup->shared = shared;
	rsink_page_reader_begin(&lookup->pages, pages->rel);
	rsink_spill_reader_begin(&lookup->spill, spill);
}

/* Let go of what is pinned, and of what was learnt ahead. */
void
rsink_lookup_end(RsinkLookup *lookup)
{
	rsink_page_reader_end(&lookup->pages);
	rsink_spill_reader_end(&lookup->spill);
	while (lookup->npinned > 0)
		ReleaseBuffer(lookup->pinned[--lookup->npinned]);
	if (lookup->ahead != NULL)
	{
		pfree(lookup->ahead);
		pfree(lookup->pinned);
	}
	lookup->ahead = NULL;
	lookup->nahead = 0;
}

static int
compare_blocks(const void *a, const void *b)
{
	BlockNumber x = *(const BlockNumber *) a;
	BlockNumber y = *(const BlockNumber *) b;

	return x < y ? -1 : x > y;
}

/* Pin the blocks of these rows; addresses are hints, and may lie anywhere. */
static void
pin_blocks(RsinkLookup *lookup, const ItemPointerData *tids, int n)
{
	Relation	rel = lookup->pages.rel;
	BlockNumber nblocks = RelationGetNumberOfBlocks(rel);
	BlockNumber *blocks = palloc(n * sizeof(BlockNumber));
	int			distinct = 0;

	for (int i = 0; i < n; i++)
		blocks[i] = ItemPointerGetBlockNumberNoCheck(&tids[i]);
	qsort(blocks, n, sizeof(BlockNumber), compare_blocks);
	for (int i = 0; i < n && blocks[i] < nblocks; i++)
	{
		if (distinct == 0 || blocks[i] != blocks[distinct - 1])
			blocks[distinct++] = blocks[i];
	}
	lookup->pinned = palloc(n * sizeof(Buffer));
	for (int i = 0, asked = 0; i < distinct; i++)
	{
		CHECK_FOR_INTERRUPTS();
		for (; asked < Min(distinct, i + PREFETCH_BLOCKS) && effective_io_concurrency > 0; asked++)
			(void) PrefetchBuffer(rel, MAIN_FORKNUM, blocks[asked]);
		lookup->pinned[lookup->npinned++] = ReadBuffer(rel, blocks[i]);
	}
	pfree(blocks);
}

/* Does one of these rows count the event? Removes nothing from the index. */
static bool
is_counted_by(RsinkLookup *lookup, const ItemPointerData *tids, int n, const RsinkFingerprint *fp)
{
	uint32		payload;

	for (int i = 0; i < n; i++)
		if (rsink_page_state(&lookup->pages, &tids[i], fp, false, &payload) == RSINK_ROW_COUNTED)
			return true;
	return false;
}

/*
 * Look up the first of n keys ahead; returns how many, one at least: no more
 * than have their rows in our share of the buffers, as all these are pinned until
 * the end. Takes the section in share mode for a moment, so must not be called
 * within it; heeds a cancel. from_disk says then whether anything was read.
 */
int
rsink_lookup_ahead(RsinkLookup *lookup, const RsinkKey *keys, int n)
{
	RsinkShared *shared = lookup->shared;
	int64		reads = pgBufferUsage.shared_blks_read;
	int			share = Max(1, NBuffers / MaxBackends);
	int			room = 2 * n + RSINK_INDEX_CANDIDATES;
	ItemPointerData *tids = palloc(room * sizeof(ItemPointerData));
	int		   *end = palloc(n * sizeof(int));	/* of each key's tids */
	int			ntids = 0;
	int			nblocks = 0;
	BlockNumber last = InvalidBlockNumber;
	bool		spilled;

	LWLockAcquire(&shared->lock, LW_SHARED);
	spilled = shared->spilled;
	lookup->generation = shared->spill_generation;
	while (lookup->nahead < n && nblocks < share && ntids + RSINK_INDEX_CANDIDATES <= room)
	{
		int			i = lookup->nahead++;

		if (i + PREFETCH_KEYS < n)
			rsink_index_prefetch(&shared->index, &keys[i + PREFETCH_KEYS].fp);
		end[i] = ntids + rsink_index_lookup(&shared->index, &keys[i].fp, &tids[ntids]);

		/* keys that came in one call follow each other, and lead to the same row */
		for (; ntids < end[i]; ntids++)
		{
			nblocks += ItemPointerGetBlockNumberNoCheck(&tids[ntids]) != last;
			last = ItemPointerGetBlockNumberNoCheck(&tids[ntids]);
		}
	}
	LWLockRelease(&shared->lock);

	pin_blocks(lookup, tids, ntids);
	lookup->ahead = palloc(lookup->nahead * sizeof(RsinkSpilled));
	for (int i = 0, first = 0; i < lookup->nahead; first = end[i++])
	{
		RsinkSpilled *found = &lookup->ahead[i];

		/* "open" is as good as not known: it is looked at again */
		found->state = RSINK_ROW_OPEN;
		if (!spilled || is_counted_by(lookup, &tids[first], end[i] - first, &keys[i].fp))
			continue;
		CHECK_FOR_INTERRUPTS();
		found->state = rsink_spill_state(&lookup->spill, &keys[i].fp, &found->payload);
	}
	lookup->from_disk = pgBufferUsage.shared_blks_read != reads;

	/* a row's state is to be read again, and nothing of the spill table kept */
	rsink_page_reader_end(&lookup->pages);
	rsink_spill_reader_end(&lookup->spill);
	pfree(tids);
	pfree(end);
	return lookup->nahead;
}

/* The caller has entered the section: from now on, look-ups are for good. */
void
rsink_lookup_enter(RsinkLookup *lookup)
{
	lookup->from_disk = false;
	lookup->is_current = lookup->generation == lookup->shared->spill_generation;
}

/*
 * By the rows that the index leads to.
 *
 * A row seen open is read again before the event is called open: its
 * transaction, a packing for one, may have committed while we looked at the
 * others, which is why those were gone.
 */
static RsinkRowState
page_state(RsinkLookup *lookup, const RsinkFingerprint *fp, uint32 *payload)
{
	ItemPointerData tids[RSINK_INDEX_CANDIDATES];
	int			n = rsink_index_lookup(&lookup->shared->index, fp, tids);
	bool		open = false;

	for (int pass = 0; pass < 2 && (pass == 0 || open); pass++)
	{
		open = false;
		for (int i = 0; i < n; i++)
		{
			RsinkRowState state = rsink_page_state(&lookup->pages, &tids[i], fp, pass > 0, payload);

			if (state == RSINK_ROW_COUNTED)
				return state;
			if (state == RSINK_ROW_OPEN)
				open = true;
			else
			{
				/*
				 * No visible row at this address: dead for ever, unless it is
				 * our own transaction that has deleted it. (A row without
				 * this fingerprint means an entry of another one.)
				 */
				if (pass == 0 && !rsink_seen_deleting &&
					!ItemPointerEquals(&lookup->pages.tid, &tids[i]))
					rsink_index_remove(&lookup->shared->index, fp, &tids[i]);
			}
		}
	}
	return open ? RSINK_ROW_OPEN : RSINK_ROW_GONE;
}

/*
 * Is the event of the i-th key, whose fingerprint this is, counted as of now?
 * Caller holds the section and has called rsink_lookup_enter() in it.
 */
RsinkRowState
rsink_lookup_state(RsinkLookup *lookup, int i, const RsinkFingerprint *fp, uint32 *payload)
{
	int64		reads = pgBufferUsage.shared_blks_read;
	RsinkRowState state = page_state(lookup, fp, payload);

	if (state == RSINK_ROW_GONE && lookup->shared->spilled)
	{
		const RsinkSpilled *found = i < lookup->nahead ? &lookup->ahead[i] : NULL;

		if (found != NULL && (found->state == RSINK_ROW_COUNTED ||
							  (found->state == RSINK_ROW_GONE && lookup->is_current)))
		{
			*payload = found->payload;
			return found->state;
		}
		state = rsink_spill_state(&lookup->spill, fp, payload);
	}
	lookup->from_disk |= pgBufferUsage.shared_blks_read != reads;
	return state;
}
