/*-------------------------------------------------------------------------
 *
 * seen_lookup.c
 *	  Is this event counted? The answer is in page rows and in rows of sealed slices.
 *
 * The index in shared memory leads to page rows, and so do runs, for page rows that have
 * no entries in the index. An answer holds for as long as the caller holds the sink lock.
 *
 * Rows need not be in shared buffers, for instance after a restart, whoever waits for
 * the sink lock can't be cancelled, and asking slices and runs may take long. So they
 * are asked before the sink lock is taken, for all keys of a call:
 *
 *	- If a row said "counted", that stays true.
 *	- What a slice said stays true. Slices that have come since are told by their
 *	  generation, and then all is asked again.
 *	- If all rows of runs said "gone", that stays true of these rows, and rows
 *	  that have been added since are asked in the hold.
 *	- "Unfinished" is read again in the hold.
 *
 * The blocks of page rows that the index leads to can be pinned ahead, too. Reading
 * their rows again costs no I/O.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/instrument.h"
#include "miscadmin.h"
#include "storage/buf_internals.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"

#include "apply/event.h"
#include "apply/fingerprint.h"
#include "core/catalog.h"
#include "seen/seen_index.h"
#include "seen/seen_lookup.h"
#include "seen/seen_page.h"
#include "seen/hint.h"
#include "seen/piece.h"
#include "seen/run.h"
#include "seen/sealed.h"
#include "seen/slice.h"
#include "sink/slot.h"

/* Cache lines and blocks are asked for this many keys, blocks, lines and pieces ahead. */
#define PREFETCH_KEYS	8
#define PREFETCH_BLOCKS 32
#define PREFETCH_LINES	12
#define PREFETCH_PIECES 6

/* If more rows than this have come into runs since they were asked, they are asked again. */
#define NEWER_ROWS		8192

/*
 * Has the current transaction deleted page rows? Then a row that it can't see may
 * come back with a rollback, and keeps its entries. Reset at the end of the
 * transaction.
 */
bool		rsink_seen_deleting = false;

/*
 * Start looking up events in a sink, whose seen events the caller has open. What was
 * found of the keys already begins with the answer number "from".
 */
void
rsink_lookup_begin(RsinkLookup *lookup, RsinkSeen *seen, const RsinkFindings *found, int from)
{
	memset(lookup, 0, sizeof(RsinkLookup));
	lookup->shared = seen->shared;
	lookup->sealed = &seen->sealed;
	lookup->found = found;
	lookup->from = from;
	rsink_page_reader_begin(&lookup->pages, seen->pages.rel);
}

/* Unpin all blocks. */
void
rsink_lookup_end(RsinkLookup *lookup)
{
	rsink_page_reader_end(&lookup->pages);
	rsink_sealed_rest(lookup->sealed);
	while (lookup->npinned > 0)
		ReleaseBuffer(lookup->pinned[--lookup->npinned]);
	if (lookup->pinned != NULL)
		pfree(lookup->pinned);
	lookup->pinned = NULL;
	if (lookup->newer.candidates != NULL)
		pfree(lookup->newer.candidates);
	lookup->newer.candidates = NULL;
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

/* Ask the CPU for what will be read of a piece, if its buffer is known. */
static void
prefetch_piece(const RsinkPieceAsk *ask, const RsinkKey *keys)
{
#if defined(__GNUC__)
	const char *page;

	if (!BufferIsValid(ask->buffer))
		return;
	__builtin_prefetch(GetBufferDescriptor(ask->buffer - 1));
	page = (const char *) BufferGetPage(ask->buffer);
	__builtin_prefetch(page);
	__builtin_prefetch(page + RSINK_LINE_BYTES);
	for (int i = ask->from; i < ask->from + Min(ask->nkeys, PREFETCH_LINES); i++)
		rsink_piece_prefetch(ask, page + RSINK_PIECE_START, RSINK_PIECE_LINES, &keys[i].fp);
#endif
}

/* Add to the answer which of the keys a piece of a filter lets pass. */
static void
ask_piece(RsinkHintReader *reader, RsinkPieceAsk *ask, RsinkSliceAnswer *answer)
{
	uint32		nlines = 0;
	const char *lines = rsink_piece_read(reader, ask, &nlines);
	int			end = ask->from + ask->nkeys;

	for (int key = ask->from; key < end; key++)
	{
		if (lines != NULL && key + PREFETCH_LINES < end)
			rsink_piece_prefetch(ask, lines, nlines, &answer->keys[key + PREFETCH_LINES].fp);
		if (unlikely(rsink_piece_has(ask, lines, nlines, &answer->keys[key].fp)))
		{
			RsinkCandidate candidate = {.key = key,.slice = ask->slice,.fence.block = InvalidBlockNumber};

			rsink_slices_add(answer, &candidate);
		}
	}
}

/* Add to the answer which of n sorted keys the filters of cold slices let pass. */
static void
ask_cold(RsinkSeen *seen, int n, RsinkSliceAnswer *answer)
{
	RsinkSlices *slices = &seen->shared->slices;
	RsinkPieceAsk *asks = palloc(n * sizeof(RsinkPieceAsk));

	for (int i = 0; i < answer->ncold; i++)
	{
		int			from = answer->ncandidates;
		int			nasks = rsink_slices_pieces(slices, &answer->cold[i], answer->keys, n, asks);

		for (int a = 0; a < nasks; a++)
		{
			CHECK_FOR_INTERRUPTS();
			if (a + PREFETCH_PIECES < nasks)
				prefetch_piece(&asks[a + PREFETCH_PIECES], answer->keys);
			if (a > 0)
				rsink_piece_guess(&asks[a], &asks[a - 1]);
			ask_piece(&seen->pieces, &asks[a], answer);
		}
		rsink_hint_rest(&seen->pieces);
		rsink_slices_note(slices, answer->cold[i].number, asks, nasks);
		if (answer->ncandidates > from)
			rsink_slices_lead(slices, answer, from);
	}
	pfree(asks);
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
	if (answer->ncold > 0)
		ask_cold(seen, n, answer);
	if (answer->cold != NULL)
		pfree(answer->cold);
}

/* Ask the sealed slices for n sorted keys. */
static void
ask_slices(RsinkSeen *seen, const RsinkKey *keys, int n, RsinkFindings *found)
{
	RsinkSliceAnswer maybe;

	rsink_lookup_candidates(seen, keys, n, &maybe);
	found->generation = maybe.generation;
	if (maybe.ncandidates > 0)
		found->sealed = palloc0(n * sizeof(RsinkSealedAnswer));
	for (int i = 0; i < maybe.ncandidates; i++)
	{
		const RsinkCandidate *candidate = &maybe.candidates[i];
		RsinkSealedAnswer *answer = &found->sealed[candidate->key];
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

/* Ask the runs for n sorted keys. Takes the sink lock in share mode for short moments. */
static void
ask_runs(RsinkSeen *seen, const RsinkKey *keys, int n, RsinkFindings *found)
{
	RsinkRuns  *runs = &seen->shared->runs;
	RsinkRunAnswer maybe = {0};
	uint64		before = PG_UINT64_MAX;
	bool		more = true;
	RsinkPageReader reader;

	/* if there is a run by the time of the hold, all of its rows are newer than the answers */
	found->upto = 0;
	if (runs->nruns == 0)
		return;
	while (more)
	{
		CHECK_FOR_INTERRUPTS();
		LWLockAcquire(&seen->shared->lock, LW_SHARED);
		if (before == PG_UINT64_MAX)
			found->upto = runs->nrows;
		more = rsink_runs_ask(runs, 0, &before, keys, n, &maybe);
		LWLockRelease(&seen->shared->lock);
	}
	if (maybe.n > 0)
		found->rows = palloc0(n * sizeof(RsinkRowAnswer));
	rsink_page_reader_begin(&reader, seen->pages.rel);
	for (int i = 0; i < maybe.n; i++)
	{
		const RsinkRunCandidate *candidate = &maybe.candidates[i];
		RsinkRowAnswer *answer = &found->rows[candidate->key];
		uint32		payload;
		RsinkRowState state;

		CHECK_FOR_INTERRUPTS();
		if (answer->state == RSINK_ROW_COUNTED)
			continue;
		state = rsink_page_state(&reader, &candidate->tid, &keys[candidate->key].fp, false, &payload);
		if (state == RSINK_ROW_GONE)
			continue;
		answer->state = state;
		answer->payload = payload;
		answer->tid = candidate->tid;
	}
	rsink_page_reader_end(&reader);
	if (maybe.candidates != NULL)
		pfree(maybe.candidates);
}

/* Do these answers still hold, but for what a hold of the sink lock finds out itself? */
bool
rsink_findings_hold(const RsinkShared *shared, const RsinkFindings *found)
{
	return shared->slices.loaded && found->generation == shared->slices.generation &&
		(shared->runs.nruns == 0 || shared->runs.nrows - found->upto <= NEWER_ROWS);
}

/* Forget all answers. */
void
rsink_findings_free(RsinkFindings *found)
{
	if (found->sealed != NULL)
		pfree(found->sealed);
	if (found->rows != NULL)
		pfree(found->rows);
	memset(found, 0, sizeof(RsinkFindings));
}

/*
 * Find out what can be found of n sorted keys before the sink lock is taken; what was
 * found before is forgotten. Takes the slices lock and the sink lock in share mode for
 * short moments, and AccessShareLock on the tables of filters and of sealed rows if
 * there is something to read. Heeds cancels.
 */
void
rsink_find_ahead(RsinkSeen *seen, const RsinkKey *keys, int n, RsinkFindings *found)
{
	rsink_findings_free(found);
	ask_slices(seen, keys, n, found);
	ask_runs(seen, keys, n, found);
}

/*
 * Pin the blocks of the page rows that the index leads to, for the first of the n keys
 * in their order, before the sink lock is taken. Returns how many keys, one at least:
 * it stops when the blocks are as many as this backend's share of shared buffers.
 * rsink_lookup_end() unpins them.
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
	int			ntids = 0;
	int			nblocks = 0;
	int			nahead = 0;
	BlockNumber last = InvalidBlockNumber;

	LWLockAcquire(&shared->lock, LW_SHARED);
	while (nahead < n && nblocks < share && ntids + RSINK_INDEX_CANDIDATES <= room)
	{
		int			i = nahead++;
		int			end;

		if (i + PREFETCH_KEYS < n)
			rsink_index_prefetch(&shared->index, &keys[i + PREFETCH_KEYS].fp);
		end = ntids + rsink_index_lookup(&shared->index, &keys[i].fp, &tids[ntids]);

		/*
		 * Keys that one call has counted follow each other here, and lead to one
		 * page row. Its block is counted once.
		 */
		for (; ntids < end; ntids++)
		{
			nblocks += ItemPointerGetBlockNumberNoCheck(&tids[ntids]) != last;
			last = ItemPointerGetBlockNumberNoCheck(&tids[ntids]);
		}
	}
	LWLockRelease(&shared->lock);

	pin_blocks(lookup, tids, ntids);
	lookup->from_disk = pgBufferUsage.shared_blks_read != reads;
	pfree(tids);
	return nahead;
}

/*
 * The caller has just taken the sink lock. From here on, look-ups give answers that
 * hold, unless false is returned: then all must be found out again, since a slice has
 * come, with events that were hot then, or a lot of rows of runs.
 */
bool
rsink_lookup_enter(RsinkLookup *lookup)
{
	lookup->from_disk = false;
	return rsink_findings_hold(lookup->shared, lookup->found);
}

/* Find the rows of runs that may have a key and have come since the answers were found. */
static void
find_newer(RsinkLookup *lookup, const RsinkKey *key)
{
	const RsinkRuns *runs = &lookup->shared->runs;
	uint64		before = PG_UINT64_MAX;

	lookup->newer.n = 0;
	while (runs->nrows > lookup->found->upto &&
		   rsink_runs_ask(runs, lookup->found->upto, &before, key, 1, &lookup->newer))
		;
}

/*
 * The answer of the page rows, of which one has said "unfinished" before if "row" isn't
 * NULL. Caller holds the sink lock.
 *
 * A row that was seen unfinished is read again before the event is called
 * unfinished. The row's transaction may have committed while we looked at the
 * other rows, and may be the reason why those were gone: packing is such a
 * transaction.
 */
static RsinkRowState
page_state(RsinkLookup *lookup, const RsinkKey *key, const RsinkRowAnswer *row, uint32 *payload)
{
	RsinkIndex *index = &lookup->shared->index;
	ItemPointerData tids[RSINK_INDEX_CANDIDATES + 1];
	int			n = rsink_index_lookup(index, &key->fp, tids);
	bool		unfinished = false;

	if (row != NULL)
		tids[n++] = row->tid;
	if (unlikely(lookup->shared->runs.nruns > 0))
		find_newer(lookup, key);
	for (int pass = 0; pass < 2 && (pass == 0 || unfinished); pass++)
	{
		unfinished = false;
		for (int i = 0; i < n + lookup->newer.n; i++)
		{
			const ItemPointerData *tid = i < n ? &tids[i] : &lookup->newer.candidates[i - n].tid;
			RsinkRowState state = rsink_page_state(&lookup->pages, tid, &key->fp, pass > 0, payload);

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
				if (pass == 0 && !rsink_seen_deleting && !ItemPointerEquals(&lookup->pages.tid, (ItemPointer) tid))
					rsink_index_remove(index, &key->fp, tid);
			}
		}
	}
	return unfinished ? RSINK_ROW_UNFINISHED : RSINK_ROW_GONE;
}

/*
 * Is the event of the i-th key counted at this instant? Sets *payload to the payload
 * hash that was counted, unless the answer is RSINK_ROW_GONE. Sets lookup->from_disk if
 * anything was read from disk. Caller holds the sink lock and has called
 * rsink_lookup_enter() in this hold.
 */
RsinkRowState
rsink_lookup_state(RsinkLookup *lookup, int i, const RsinkKey *key, uint32 *payload)
{
	int64		reads = pgBufferUsage.shared_blks_read;
	const RsinkFindings *found = lookup->found;
	const RsinkSealedAnswer *sealed = found->sealed == NULL ? NULL : &found->sealed[lookup->from + i];
	const RsinkRowAnswer *row = found->rows == NULL ? NULL : &found->rows[lookup->from + i];
	RsinkRowState state;

	if (sealed != NULL && sealed->state == RSINK_ROW_COUNTED)
	{
		*payload = sealed->payload;
		return RSINK_ROW_COUNTED;
	}
	if (row != NULL && row->state == RSINK_ROW_COUNTED)
	{
		*payload = row->payload;
		return RSINK_ROW_COUNTED;
	}
	state = page_state(lookup, key, row != NULL && row->state == RSINK_ROW_UNFINISHED ? row : NULL, payload);

	/*
	 * If the slice was just being made and the page row is gone, the slice's
	 * transaction must have committed meanwhile.
	 */
	if (state == RSINK_ROW_GONE && sealed != NULL && sealed->state == RSINK_ROW_UNFINISHED)
		state = rsink_sealed_state(lookup->sealed, &sealed->row, &key->fp, true, payload);
	lookup->from_disk |= pgBufferUsage.shared_blks_read != reads;
	return state;
}
