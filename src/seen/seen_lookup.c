/*-------------------------------------------------------------------------
 *
 * seen_lookup.c
 *	  Is this event counted? The answer is in memory, in page rows or in the spill table.
 *
 * The index in shared memory leads to page rows. A fingerprint for which the
 * index had no room has a row in the spill table. An answer holds for as long as
 * the caller holds the sink lock.
 *
 * Page rows and the spill table need not be in shared buffers, for instance after
 * a restart, and whoever waits for the sink lock can't be cancelled. So keys can
 * be looked up ahead, before the sink lock is taken. What is found then need not
 * be true later, but it makes the look-ups under the sink lock quick:
 *
 *	- The blocks of page rows that the index leads to are pinned. Reading
 *	  their rows again costs no I/O.
 *	- If the spill table's answer is "counted", the answer stays true.
 *	  "Gone" stays true as long as no row has come into the spill table
 *	  since, which a generation count in shared memory tells.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/instrument.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"

#include "apply/event.h"
#include "apply/fingerprint.h"
#include "core/catalog.h"
#include "seen/seen_index.h"
#include "seen/seen_lookup.h"
#include "seen/seen_page.h"
#include "seen/seen_spill.h"
#include "seen/hint.h"
#include "seen/piece.h"
#include "seen/sealed.h"
#include "seen/slice.h"
#include "sink/slot.h"

/* Cache lines and blocks are asked for this many keys and blocks ahead. */
#define PREFETCH_KEYS	8
#define PREFETCH_BLOCKS 32

/*
 * Has the current transaction deleted page rows? Then a row that it can't see may
 * come back with a rollback, and keeps its entries. Reset at the end of the
 * transaction.
 */
bool		rsink_seen_deleting = false;

/*
 * Start looking up events in a sink, whose seen events the caller has open. What the
 * sealed slices said of the keys begins with the answer number "from".
 */
void
rsink_lookup_begin(RsinkLookup *lookup, RsinkSeen *seen, const RsinkSealedAnswers *answers, int from)
{
	memset(lookup, 0, sizeof(RsinkLookup));
	lookup->shared = seen->shared;
	lookup->sealed = &seen->sealed;
	lookup->answers = answers->answer == NULL ? NULL : answers->answer + from;
	lookup->slices = answers->generation;
	rsink_page_reader_begin(&lookup->pages, seen->pages.rel);
	rsink_spill_reader_begin(&lookup->spill, &seen->spill);
}

/* Unpin all blocks, and forget what was found ahead. */
void
rsink_lookup_end(RsinkLookup *lookup)
{
	rsink_page_reader_end(&lookup->pages);
	rsink_spill_reader_end(&lookup->spill);
	rsink_sealed_rest(lookup->sealed);
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

/*
 * Pin the blocks that these addresses lead to. Addresses are hints, and may lie
 * past the end of the file.
 */
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

/*
 * Does one of these rows count the event? Removes no entry from the index, as the
 * sink lock isn't held.
 */
static bool
is_counted_by(RsinkLookup *lookup, const ItemPointerData *tids, int n, const RsinkFingerprint *fp)
{
	uint32		payload;

	for (int i = 0; i < n; i++)
		if (rsink_page_state(&lookup->pages, &tids[i], fp, false, &payload) == RSINK_ROW_COUNTED)
			return true;
	return false;
}

/* Add to the answer which of the keys the pieces of filters that are to be asked let pass. */
static void
ask_pieces(RsinkSeen *seen, RsinkSliceAnswer *answer)
{
	RsinkHintReader *reader = &seen->pieces;
	int			from = answer->ncandidates;

	for (int i = 0; i < answer->nasks; i++)
	{
		const RsinkPieceAsk *ask = &answer->asks[i];
		uint32		nlines = 0;
		const char *lines;

		CHECK_FOR_INTERRUPTS();
		lines = rsink_piece_read(reader, ask, &nlines);
		for (int key = ask->from; key < ask->from + ask->nkeys; key++)
		{
			RsinkCandidate candidate = {.key = key,.slice = ask->slice,.fence.block = InvalidBlockNumber};

			if (rsink_piece_has(ask, lines, nlines, &answer->keys[key].fp))
				rsink_slices_add(answer, &candidate);
		}
	}
	rsink_hint_rest(reader);
	if (answer->ncandidates > from)
		rsink_slices_lead(&seen->shared->slices, answer, from);
}

/*
 * Which of n sorted keys may be in which sealed slice? Sets the answer, whose arrays are
 * in the current memory context. Takes the slices lock in share mode, and
 * AccessShareLock on the table of filters if it has to be read. Heeds cancels.
 */
void
rsink_lookup_candidates(RsinkSeen *seen, const RsinkKey *keys, int n, RsinkSliceAnswer *answer)
{
	rsink_slices_ask(&seen->shared->slices, keys, n, answer);
	if (answer->nasks > 0)
	{
		ask_pieces(seen, answer);
		pfree(answer->asks);
	}
}

/*
 * Ask the sealed slices for n sorted keys, before the sink lock is taken; what they
 * said before is forgotten. Takes the slices lock in share mode, and AccessShareLock
 * on the tables of filters and of sealed rows if there is something to read. Heeds
 * cancels.
 */
void
rsink_lookup_sealed(RsinkSeen *seen, const RsinkKey *keys, int n, RsinkSealedAnswers *answers)
{
	RsinkSliceAnswer maybe;

	rsink_lookup_candidates(seen, keys, n, &maybe);
	answers->generation = maybe.generation;
	if (answers->answer != NULL)
		pfree(answers->answer);
	answers->answer = maybe.ncandidates == 0 ? NULL : palloc0(n * sizeof(RsinkSealedAnswer));
	for (int i = 0; i < maybe.ncandidates; i++)
	{
		const RsinkCandidate *candidate = &maybe.candidates[i];
		RsinkSealedAnswer *answer = &answers->answer[candidate->key];
		uint32		payload;
		RsinkRowState state;

		CHECK_FOR_INTERRUPTS();
		if (answer->state == RSINK_ROW_COUNTED)
			continue;
		state = rsink_sealed_state(&seen->sealed, candidate, &keys[candidate->key].fp, false, &payload);
		if (state == RSINK_ROW_GONE)
			continue;
		answer->state = state;
		answer->payload = payload;
		answer->row = *candidate;
	}
	if (maybe.candidates != NULL)
		pfree(maybe.candidates);

	/* under the sink lock, states must be read anew */
	rsink_sealed_rest(&seen->sealed);
}

/*
 * Look up keys before the sink lock is taken, the first of the n keys in their
 * order; returns how many were looked up, one at least. The blocks of their page
 * rows are pinned until rsink_lookup_end(), so it stops when these are as many as
 * this backend's share of shared buffers.
 *
 * Sets lookup->from_disk to whether anything was read from disk. Takes the sink
 * lock in share mode for a moment, so the caller must not hold it. Heeds cancels.
 */
int
rsink_lookup_ahead(RsinkLookup *lookup, const RsinkKey *keys, int n)
{
	RsinkShared *shared = lookup->shared;
	int64		reads = pgBufferUsage.shared_blks_read;
	int			share = Max(1, NBuffers / MaxBackends);
	int			room = 2 * n + RSINK_INDEX_CANDIDATES;
	ItemPointerData *tids = palloc(room * sizeof(ItemPointerData));
	int		   *end = palloc(n * sizeof(int));	/* where each key's tids end */
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

		/*
		 * Keys that one call has counted follow each other here, and lead to one
		 * page row. Its block is counted once.
		 */
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

		/*
		 * "Unfinished" is as good as not known: the key is looked up again under
		 * the sink lock.
		 */
		found->state = RSINK_ROW_UNFINISHED;
		if (!spilled || is_counted_by(lookup, &tids[first], end[i] - first, &keys[i].fp))
			continue;
		CHECK_FOR_INTERRUPTS();
		found->state = rsink_spill_state(&lookup->spill, &keys[i].fp, &found->payload);
	}
	lookup->from_disk = pgBufferUsage.shared_blks_read != reads;

	/* under the sink lock, states must be read anew */
	rsink_page_reader_end(&lookup->pages);
	rsink_spill_reader_end(&lookup->spill);
	pfree(tids);
	pfree(end);
	return lookup->nahead;
}

/*
 * The caller has just taken the sink lock. From here on, look-ups give answers
 * that hold, unless false is returned: a slice has come since the slices were asked,
 * with events that were hot then, and all must be asked again.
 */
bool
rsink_lookup_enter(RsinkLookup *lookup)
{
	if (!lookup->shared->slices.loaded || lookup->slices != lookup->shared->slices.generation)
		return false;
	lookup->from_disk = false;
	lookup->is_current = lookup->generation == lookup->shared->spill_generation;
	return true;
}

/*
 * The answer of the page rows that the index leads to. Caller holds the sink
 * lock.
 *
 * A row that was seen unfinished is read again before the event is called
 * unfinished. The row's transaction may have committed while we looked at the
 * other rows, and may be the reason why those were gone: packing is such a
 * transaction.
 */
static RsinkRowState
page_state(RsinkLookup *lookup, const RsinkFingerprint *fp, uint32 *payload)
{
	ItemPointerData tids[RSINK_INDEX_CANDIDATES];
	int			n = rsink_index_lookup(&lookup->shared->index, fp, tids);
	bool		unfinished = false;

	for (int pass = 0; pass < 2 && (pass == 0 || unfinished); pass++)
	{
		unfinished = false;
		for (int i = 0; i < n; i++)
		{
			RsinkRowState state = rsink_page_state(&lookup->pages, &tids[i], fp, pass > 0, payload);

			if (state == RSINK_ROW_COUNTED)
				return state;
			if (state == RSINK_ROW_UNFINISHED)
				unfinished = true;
			else
			{
				/*
				 * No row can be seen at this address, so the row there is dead
				 * for ever, unless our own transaction has deleted it. (If the
				 * reader has this address, there is a row, without this
				 * fingerprint, and the entry is another fingerprint's.)
				 */
				if (pass == 0 && !rsink_seen_deleting &&
					!ItemPointerEquals(&lookup->pages.tid, &tids[i]))
					rsink_index_remove(&lookup->shared->index, fp, &tids[i]);
			}
		}
	}
	return unfinished ? RSINK_ROW_UNFINISHED : RSINK_ROW_GONE;
}

/*
 * Is the event of the i-th key, with this fingerprint, counted at this instant?
 * Sets *payload to the payload hash that was counted, unless the answer is
 * RSINK_ROW_GONE. Sets lookup->from_disk if anything was read from disk. Caller
 * holds the sink lock and has called rsink_lookup_enter() in this hold.
 */
RsinkRowState
rsink_lookup_state(RsinkLookup *lookup, int i, const RsinkFingerprint *fp, uint32 *payload)
{
	int64		reads = pgBufferUsage.shared_blks_read;
	const RsinkSealedAnswer *sealed = lookup->answers == NULL ? NULL : &lookup->answers[i];
	RsinkRowState state;

	if (sealed != NULL && sealed->state == RSINK_ROW_COUNTED)
	{
		*payload = sealed->payload;
		return RSINK_ROW_COUNTED;
	}
	state = page_state(lookup, fp, payload);

	/*
	 * If the slice was just being made and the page row is gone, the slice's
	 * transaction must have committed meanwhile.
	 */
	if (state == RSINK_ROW_GONE && sealed != NULL && sealed->state == RSINK_ROW_UNFINISHED)
		state = rsink_sealed_state(lookup->sealed, &sealed->row, fp, true, payload);
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
