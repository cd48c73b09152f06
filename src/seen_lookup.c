/*-------------------------------------------------------------------------
 *
 * seen_lookup.c
 *	  Is this event counted? In memory, in page rows, in the spill table.
 *
 * The index in shared memory leads to page rows; where it has lost entries for
 * want of memory, the spill table has them. An answer holds for as long as the
 * caller holds the section.
 *
 * Neither rows nor the spill table need be in shared buffers, after a restart
 * for one, and whoever waits for the section can't be cancelled. So look-ups
 * can be made ahead, without the section: their answers are worth nothing, but
 * those made again inside find in the buffers what they need.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/instrument.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"

#include "seen_lookup.h"

/* Has the current transaction deleted page rows? Reset at its end. */
bool		rsink_seen_deleting = false;

/* Start looking up events in a sink, whose tables are open. */
void
rsink_lookup_begin(RsinkLookup *lookup, RsinkShared *shared,
				   const RsinkTable *pages, const RsinkTable *spill)
{
	lookup->shared = shared;
	lookup->from_disk = false;
	rsink_page_reader_begin(&lookup->pages, pages->rel);
	rsink_spill_reader_begin(&lookup->spill, spill);
}

/* Let go of what was pinned. */
void
rsink_lookup_end(RsinkLookup *lookup)
{
	rsink_page_reader_end(&lookup->pages);
	rsink_spill_reader_end(&lookup->spill);
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

/* Is this event counted, as of now? Caller holds the section. */
RsinkRowState
rsink_lookup_state(RsinkLookup *lookup, const RsinkFingerprint *fp, uint32 *payload)
{
	int64		reads = pgBufferUsage.shared_blks_read;
	RsinkRowState state = page_state(lookup, fp, payload);

	if (state == RSINK_ROW_GONE && lookup->shared->spilled)
		state = rsink_spill_state(&lookup->spill, fp, payload);
	lookup->from_disk |= pgBufferUsage.shared_blks_read != reads;
	return state;
}

static int
compare_blocks(const void *a, const void *b)
{
	BlockNumber x = *(const BlockNumber *) a;
	BlockNumber y = *(const BlockNumber *) b;

	return x < y ? -1 : x > y;
}

/* Have these blocks of the page table in shared buffers. */
static void
read_blocks(Relation rel, BlockNumber *blocks, int n)
{
	BlockNumber nblocks = RelationGetNumberOfBlocks(rel);
	int			distinct = 0;

	qsort(blocks, n, sizeof(BlockNumber), compare_blocks);
	for (int i = 0; i < n && blocks[i] < nblocks; i++)
	{
		if (distinct == 0 || blocks[i] != blocks[distinct - 1])
			blocks[distinct++] = blocks[i];
	}
	for (int i = 0; i < distinct; i++)
		(void) PrefetchBuffer(rel, MAIN_FORKNUM, blocks[i]);
	for (int i = 0; i < distinct; i++)
	{
		CHECK_FOR_INTERRUPTS();
		ReleaseBuffer(ReadBuffer(rel, blocks[i]));
	}
}

/*
 * Read what look-ups of n keys will need, as far as one can know, and say
 * whether any of it came from disk. Takes the section in share mode for a
 * moment, must not be called within it, and heeds a cancel.
 */
bool
rsink_lookup_ahead(RsinkLookup *lookup, const RsinkKey *keys, int n)
{
	RsinkShared *shared = lookup->shared;
	int64		reads = pgBufferUsage.shared_blks_read;
	int			room = n + RSINK_INDEX_CANDIDATES;
	BlockNumber *blocks = palloc(room * sizeof(BlockNumber));
	const RsinkFingerprint **elsewhere = palloc(n * sizeof(RsinkFingerprint *));
	int			nblocks = 0;
	int			nelsewhere = 0;
	bool		spilled;

	LWLockAcquire(&shared->lock, LW_SHARED);
	spilled = shared->spilled;
	for (int i = 0; i < n && nblocks + RSINK_INDEX_CANDIDATES <= room; i++)
	{
		ItemPointerData tids[RSINK_INDEX_CANDIDATES];
		int			ntids = rsink_index_lookup(&shared->index, &keys[i].fp, tids);

		if (ntids == 0)
			elsewhere[nelsewhere++] = &keys[i].fp;
		for (int t = 0; t < ntids; t++)
			blocks[nblocks++] = ItemPointerGetBlockNumberNoCheck(&tids[t]);
	}
	LWLockRelease(&shared->lock);

	read_blocks(lookup->pages.rel, blocks, nblocks);
	for (int i = 0; spilled && i < nelsewhere; i++)
	{
		uint32		payload;

		CHECK_FOR_INTERRUPTS();
		(void) rsink_spill_state(&lookup->spill, elsewhere[i], &payload);
	}
	pfree(blocks);
	pfree(elsewhere);
	return pgBufferUsage.shared_blks_read != reads;
}
