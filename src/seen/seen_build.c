/*-------------------------------------------------------------------------
 *
 * seen_build.c
 *	  Building the index of seen events, and taking the sink lock with an index that is complete.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/latch.h"
#include "storage/procarray.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "apply/fingerprint.h"
#include "core/compat.h"
#include "core/xid.h"
#include "seen/pool.h"
#include "seen/seen.h"
#include "seen/seen_build.h"
#include "seen/seen_index.h"
#include "seen/seen_page.h"
#include "seen/seen_spill.h"
#include "sink/slot.h"

/* The CPU is asked for the cache lines of the index this many keys ahead. */
#define PREFETCH_AHEAD	8

/* Blocks of the page table that one hold of the sink lock adds to the index. */
#define BUILD_BLOCKS	32

/*
 * The part of the pool that a build leaves to rows of unfinished transactions,
 * which it cannot spill.
 */
#define BUILD_RESERVE	0.125

/*
 * Is this process the worker, to which all others leave a build that runs out of
 * memory?
 */
bool		rsink_seen_builder = false;

/*
 * The sink for which the current transaction, the worker's, has spilled during a
 * build, or NULL; and its page table.
 */
static RsinkShared *spilling_shared;
static Oid	spilling_seen;

/*
 * Fingerprints that a build has spilled can be found by others once the build's
 * transaction commits. If it aborts, they are gone, and the build starts again
 * with the first block.
 */
static void
xact_callback(XactEvent event, void *arg)
{
	if (spilling_shared == NULL || (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT))
		return;
	LWLockAcquire(&spilling_shared->lock, LW_EXCLUSIVE);
	if (spilling_shared->seen == spilling_seen)
	{
		spilling_shared->spilling = false;
		if (event == XACT_EVENT_ABORT)
		{
			spilling_shared->built = false;
			spilling_shared->next_block = 0;
		}
	}
	LWLockRelease(&spilling_shared->lock);
	spilling_shared = NULL;
}

/* Called once per process, from _PG_init. */
void
rsink_init_seen_build(void)
{
	RegisterXactCallback(xact_callback, NULL);
}

/*
 * Enter the rows of one block into the index. Once the pool is used up but for
 * BUILD_RESERVE, fingerprints of committed rows are spilled if may_spill is set;
 * else false is returned.
 *
 * Fingerprints of unfinished rows always need memory, since a spilled row would
 * commit with our transaction and not with theirs. Raises
 * configuration_limit_exceeded if there is none for them.
 */
static bool
build_block(RsinkSeen *seen, BlockNumber block, BufferAccessStrategy strategy, bool may_spill)
{
	Relation	rel = seen->pages.rel;
	RsinkShared *shared = seen->shared;
	Buffer		buffer = ReadBufferExtended(rel, MAIN_FORKNUM, block, RBM_NORMAL, strategy);
	bool		done = true;
	RsinkSpillReader spill;
	SnapshotData dirty;
	Page		page;

	InitDirtySnapshot(dirty);
	rsink_spill_reader_begin(&spill, &seen->spill);
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	for (OffsetNumber off = FirstOffsetNumber;
		 done && off <= PageGetMaxOffsetNumber(page); off++)
	{
		ItemId		item = PageGetItemId(page, off);
		HeapTupleData tuple;
		RsinkPage	row;

		if (!ItemIdIsNormal(item))
			continue;
		tuple.t_tableOid = RelationGetRelid(rel);
		tuple.t_data = (HeapTupleHeader) PageGetItem(page, item);
		tuple.t_len = ItemIdGetLength(item);
		ItemPointerSet(&tuple.t_self, block, off);
		if (!HeapTupleSatisfiesVisibility(&tuple, &dirty, buffer))
			continue;
		rsink_page_deform(RelationGetDescr(rel), &tuple, &row);
		if (TransactionIdIsValid(dirty.xmin) && !rsink_xid_is_prepared(dirty.xmin) &&
			!TransactionIdIsValid(shared->foreign_xid))
		{
			shared->foreign_xid = dirty.xmin;
			shared->foreign_block = block;
		}
		for (int i = 0; done && i < row.n; i++)
		{
			bool		unfinished = TransactionIdIsValid(dirty.xmin);
			RsinkFingerprint fp;
			uint32		payload;

			if (i + PREFETCH_AHEAD < row.n)
			{
				rsink_page_key(&row, i + PREFETCH_AHEAD, &fp);
				rsink_index_prefetch(&shared->index, &fp);
			}
			rsink_page_key(&row, i, &fp);
			if ((unfinished || rsink_pool_free() > BUILD_RESERVE) &&
				rsink_index_insert(&shared->index, &fp, &tuple.t_self))
				continue;
			if (unfinished)
				ereport(ERROR,
						(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						 errmsg("the events of unfinished transactions of sink \"%s\" do not fit in memory",
								seen->sink->name),
						 errhint("Commit or roll back the prepared transactions of the sink, or raise revenue_sink.dedup_memory and restart the server.")));
			if (!may_spill)
				done = false;
			else if (rsink_spill_state(&spill, &fp, &payload) != RSINK_ROW_COUNTED)
			{
				rsink_spill_add(&seen->spill, &fp, row.newest);
				shared->spilled = shared->spilling = true;
				shared->spill_generation++;
				spilling_shared = shared;
				spilling_seen = seen->sink->seen;
			}
		}
	}
	UnlockReleaseBuffer(buffer);
	rsink_spill_reader_end(&spill);
	return done;
}

/*
 * Bring the index closer to the file that the page table has now, by BUILD_BLOCKS
 * blocks at most. Returns whether the index is complete. Caller holds the sink
 * lock.
 *
 * VACUUM FULL and TRUNCATE give the page table another file. The file is longer
 * than known if somebody inserted rows past us, as a restore does. If the
 * transaction that inserted such rows is open when they are met, it may go on to
 * insert into the same blocks, so these blocks are read again after its end.
 */
static bool
build_step(RsinkSeen *seen, bool may_spill)
{
	RsinkShared *shared = seen->shared;
	Relation	rel = seen->pages.rel;
	BlockNumber nblocks = RelationGetNumberOfBlocks(rel);
	BufferAccessStrategy strategy;
	BlockNumber end;

	if (shared->relfile != rsink_relfile(rel))
	{
		rsink_index_destroy(&shared->index);
		rsink_index_create(&shared->index);
		shared->relfile = rsink_relfile(rel);
		shared->built = false;
		shared->next_block = 0;
		shared->foreign_xid = InvalidTransactionId;
		shared->spilled = RelationGetNumberOfBlocks(seen->spill.rel) > 0;
	}
	if (!shared->spilled && !shared->built)
		shared->spilled = RelationGetNumberOfBlocks(seen->spill.rel) > 0;
	if (shared->built && nblocks > shared->known_blocks)
	{
		shared->built = false;
		shared->next_block = shared->known_blocks;
	}
	if (TransactionIdIsValid(shared->foreign_xid) &&
		!TransactionIdIsInProgress(shared->foreign_xid))
	{
		/* that transaction has ended, and all of its rows can be seen */
		if (shared->built)
			shared->next_block = nblocks;
		shared->built = false;
		shared->next_block = Min(shared->next_block, shared->foreign_block);
		shared->foreign_xid = InvalidTransactionId;
	}
	if (!shared->built)
	{
		shared->total_blocks = nblocks;
		end = Min(nblocks, shared->next_block + BUILD_BLOCKS);
		strategy = GetAccessStrategy(BAS_BULKREAD);
		for (; shared->next_block < end; shared->next_block++)
		{
			if (!build_block(seen, shared->next_block, strategy, may_spill))
			{
				shared->short_of_memory = true;
				break;
			}
		}
		FreeAccessStrategy(strategy);
		if (shared->next_block < nblocks || shared->spilling)
			return false;
		shared->built = true;
		shared->short_of_memory = false;
	}
	shared->known_blocks = nblocks;
	return true;
}

/*
 * Take the sink lock, with an index that is complete. Whoever comes first after a
 * restart helps to build the index, and heeds cancels meanwhile: blocks that are
 * done stay done.
 *
 * A build that runs out of memory is left to the worker, since what is spilled
 * must be committed before anyone relies on it, and the caller waits. The worker
 * itself must not wait for the worker, and gets ERRCODE_RSINK_NOT_BUILT.
 */
void
rsink_seen_lock(RsinkSeen *seen)
{
	for (;;)
	{
		bool		wait;

		LWLockAcquire(&seen->shared->lock, LW_EXCLUSIVE);
		if (build_step(seen, false))
			return;
		wait = seen->shared->short_of_memory || seen->shared->spilling;
		LWLockRelease(&seen->shared->lock);
		if (wait && rsink_seen_builder)
			ereport(ERROR,
					(errcode(ERRCODE_RSINK_NOT_BUILT),
					 errmsg("the index of sink \"%s\" has to be built first", seen->sink->name)));
		if (wait)
		{
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 20L, PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
		}
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Release the sink lock. Blocks that the caller has added to the page table are
 * in the index already, so they count as known.
 */
void
rsink_seen_unlock(RsinkSeen *seen)
{
	seen->shared->known_blocks = RelationGetNumberOfBlocks(seen->pages.rel);
	LWLockRelease(&seen->shared->lock);
}

/*
 * A step of the build, for the worker, which commits its transaction right after
 * a step that has spilled. Returns whether the index is complete. Takes the sink
 * lock.
 */
bool
rsink_seen_build(RsinkSeen *seen, bool may_spill)
{
	bool		done;

	LWLockAcquire(&seen->shared->lock, LW_EXCLUSIVE);
	done = build_step(seen, may_spill);
	LWLockRelease(&seen->shared->lock);
	return done;
}

