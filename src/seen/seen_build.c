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
#include "seen/run.h"
#include "seen/seen.h"
#include "seen/seen_build.h"
#include "seen/seen_index.h"
#include "seen/seen_page.h"
#include "sink/slot.h"

/* Blocks of the page table that one hold of the sink lock adds to the index. */
#define BUILD_BLOCKS	32

/* The part of the pool that entries of large page rows may take. */
#define LARGE_ROWS_MOST	0.5

/* There is no memory for the events of a sink: raise configuration_limit_exceeded. */
void
rsink_seen_overflows(const RsinkSink *sink)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("the events of sink \"%s\" do not fit in memory", sink->name),
			 errhint("Commit or roll back the prepared transactions of the sink, see that its worker runs, or raise revenue_sink.dedup_memory and restart the server.")));
}

/*
 * Enter a page row of n sorted keys in the index or, if the index has its share of the
 * memory or there is no memory for it, in a run. False: there is no memory at all. Caller
 * holds the sink lock.
 */
bool
rsink_seen_enter(RsinkSeen *seen, const RsinkKey *keys, int n, const ItemPointerData *tid)
{
	RsinkShared *shared = seen->shared;
	int			entered = 0;

	if (n < RSINK_SMALL_ROW || rsink_index_bytes(&shared->index) < rsink_pool_bytes() * LARGE_ROWS_MOST)
		while (entered < n && rsink_index_insert(&shared->index, &keys[entered].fp, tid))
			entered++;
	return entered == n || rsink_runs_add(&shared->runs, keys, n, tid);
}

/* Forget what the index and the runs have, so that the next step begins a build. */
static void
begin_build(RsinkShared *shared)
{
	rsink_index_destroy(&shared->index);
	rsink_index_create(&shared->index);
	rsink_runs_reset(&shared->runs);
	shared->built = false;
	shared->next_block = 0;
	shared->foreign_xid = InvalidTransactionId;
}

/* Enter the rows of one block in the index or in runs. False: there is no memory. */
static bool
build_block(RsinkSeen *seen, BlockNumber block, BufferAccessStrategy strategy)
{
	Relation	rel = seen->pages.rel;
	RsinkShared *shared = seen->shared;
	Buffer		buffer = ReadBufferExtended(rel, MAIN_FORKNUM, block, RBM_NORMAL, strategy);
	RsinkKey	keys[RSINK_PAGE_MAX];
	SnapshotData dirty;
	Page		page;
	OffsetNumber last;
	bool		fits = true;

	InitDirtySnapshot(dirty);
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	last = PageGetMaxOffsetNumber(page);
	for (OffsetNumber off = FirstOffsetNumber; off <= last && fits; off++)
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
		for (int i = 0; i < row.n; i++)
		{
			rsink_page_key(&row, i, &keys[i].fp);
			rsink_index_prefetch(&shared->index, &keys[i].fp);
		}
		if (row.n > 0)
			fits = rsink_seen_enter(seen, keys, row.n, &tuple.t_self);
	}
	UnlockReleaseBuffer(buffer);
	return fits;
}

/*
 * Bring the index closer to the file that the page table has now, by BUILD_BLOCKS
 * blocks at most. Caller holds the sink lock.
 *
 * If there is no memory for all rows, the build gives its memory back, and the worker
 * seals rows before it tries again. Rows that just fitted when they came may need more
 * memory in a build, which enters them in another order.
 *
 * VACUUM FULL and TRUNCATE give the page table another file. The file is longer
 * than known if somebody inserted rows past us, as a restore does. If the
 * transaction that inserted such rows is open when they are met, it may go on to
 * insert into the same blocks, so these blocks are read again after its end.
 */
static RsinkBuild
build_step(RsinkSeen *seen)
{
	RsinkShared *shared = seen->shared;
	Relation	rel = seen->pages.rel;
	BlockNumber nblocks = RelationGetNumberOfBlocks(rel);
	BufferAccessStrategy strategy;
	BlockNumber end;

	if (shared->relfile != rsink_relfile(rel))
	{
		begin_build(shared);
		shared->relfile = rsink_relfile(rel);
	}
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
			if (!build_block(seen, shared->next_block, strategy))
				break;
		FreeAccessStrategy(strategy);
		if (shared->next_block < end)
		{
			begin_build(shared);
			shared->overflows = true;
			return RSINK_BUILD_OVERFLOWS;
		}
		if (shared->next_block < nblocks)
			return RSINK_BUILD_GOES_ON;
		shared->built = true;
		shared->overflows = false;
	}
	shared->known_blocks = nblocks;
	return RSINK_BUILD_DONE;
}

/*
 * Take the sink lock, with an index that is complete. Whoever comes first after a
 * restart helps to build the index, and heeds cancels meanwhile: blocks that are
 * done stay done. Raises configuration_limit_exceeded if there is no memory for it.
 */
void
rsink_seen_lock(RsinkSeen *seen)
{
	for (;;)
	{
		RsinkBuild	build;

		LWLockAcquire(&seen->shared->lock, LW_EXCLUSIVE);
		build = build_step(seen);
		if (build == RSINK_BUILD_DONE)
			return;
		LWLockRelease(&seen->shared->lock);
		if (build == RSINK_BUILD_OVERFLOWS)
			rsink_seen_overflows(seen->sink);
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

/* A step of the build. Takes the sink lock. */
RsinkBuild
rsink_seen_build(RsinkSeen *seen)
{
	RsinkBuild	build;

	LWLockAcquire(&seen->shared->lock, LW_EXCLUSIVE);
	build = build_step(seen);
	LWLockRelease(&seen->shared->lock);
	return build;
}

/*
 * There may be memory for a build by now: whoever has waited for it, tries. Takes the sink
 * lock.
 */
void
rsink_seen_build_again(const RsinkSink *sink)
{
	LWLockAcquire(&sink->shared->lock, LW_EXCLUSIVE);
	sink->shared->overflows = false;
	LWLockRelease(&sink->shared->lock);
}
