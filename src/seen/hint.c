/*-------------------------------------------------------------------------
 *
 * hint.c
 *	  Rows to which an address leads or, where the address is wrong, the primary key.
 *
 * Shared memory notes where a row of a slice was when the note was made. VACUUM FULL or
 * a restore, for example, moves rows; so whoever follows an address makes sure that
 * the row is the right one, and else searches the primary key, which begins with the
 * number of the slice. Rows are read as they are at this instant, those of unfinished
 * transactions included.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "seen/hint.h"

/*
 * Start reading rows of this table, whose column attnum has the slice. Nothing is done
 * before the first row is asked for.
 */
void
rsink_hint_begin(RsinkHintReader *reader, Oid relid, int attnum)
{
	memset(reader, 0, sizeof(RsinkHintReader));
	reader->relid = relid;
	reader->attnum = attnum;
	reader->context = CurrentMemoryContext;
	reader->buffer = InvalidBuffer;
}

/* Open the table and its primary key, unless they are open. Takes AccessShareLock on both. */
void
rsink_hint_open(RsinkHintReader *reader)
{
	MemoryContext old;

	if (reader->rel != NULL)
		return;
	old = MemoryContextSwitchTo(reader->context);
	reader->rel = table_open(reader->relid, AccessShareLock);
	rsink_require_heap(reader->rel);
	reader->index = index_open(rsink_table_index(reader->rel, reader->attnum), AccessShareLock);
	MemoryContextSwitchTo(old);
}

/* Unpin the last row that was read. The reader may go on to read. */
void
rsink_hint_rest(RsinkHintReader *reader)
{
	if (BufferIsValid(reader->buffer))
		ReleaseBuffer(reader->buffer);
	reader->buffer = InvalidBuffer;
}

/* Close the table, whose lock is held until the end of the transaction. */
void
rsink_hint_end(RsinkHintReader *reader)
{
	rsink_hint_rest(reader);
	if (reader->scan != NULL)
	{
		index_endscan(reader->scan);
		ExecDropSingleTupleTableSlot(reader->slot);
	}
	if (reader->rel != NULL)
	{
		index_close(reader->index, NoLock);
		table_close(reader->rel, NoLock);
	}
	reader->rel = reader->index = NULL;
	reader->scan = NULL;
}

/* Does the table have this block? */
static bool
has_block(RsinkHintReader *reader, BlockNumber block)
{
	if (block >= reader->nblocks)
		reader->nblocks = RelationGetNumberOfBlocks(reader->rel);
	return block < reader->nblocks;
}

/* Take the row at this address of the pinned buffer, if there is one at this instant. */
static bool
take_row(RsinkHintReader *reader, const ItemPointerData *tid)
{
	HeapTuple	tuple = &reader->tuple;
	Page		page = BufferGetPage(reader->buffer);
	SnapshotData dirty;
	ItemId		item;
	bool		found;

	LockBuffer(reader->buffer, BUFFER_LOCK_SHARE);
	found = ItemPointerGetOffsetNumber(tid) <= PageGetMaxOffsetNumber(page) &&
		ItemIdIsNormal(item = PageGetItemId(page, ItemPointerGetOffsetNumber(tid)));
	if (found)
	{
		tuple->t_self = *tid;
		tuple->t_tableOid = RelationGetRelid(reader->rel);
		tuple->t_data = (HeapTupleHeader) PageGetItem(page, item);
		tuple->t_len = ItemIdGetLength(item);
		InitDirtySnapshot(dirty);
		found = HeapTupleSatisfiesVisibility(tuple, &dirty, reader->buffer);
	}
	LockBuffer(reader->buffer, BUFFER_LOCK_UNLOCK);
	reader->unfinished = found && TransactionIdIsValid(dirty.xmin);
	return found;
}

/*
 * Read the row at this address into the reader's tuple, which stays until the next row
 * is read. The row's block was last seen in the buffer "recent", if that is valid; the
 * reader's buffer is the one where it is now. False: there is no row, or the address is
 * invalid. The table is open.
 */
bool
rsink_hint_follow(RsinkHintReader *reader, const ItemPointerData *tid, Buffer recent)
{
	BlockNumber block = ItemPointerGetBlockNumberNoCheck(tid);

	rsink_hint_rest(reader);
	if (!ItemPointerIsValid(tid) || !has_block(reader, block))
		return false;
	if (BufferIsValid(recent) && ReadRecentBuffer(rsink_locator(reader->rel), MAIN_FORKNUM, block, recent))
		reader->buffer = recent;
	else
		reader->buffer = ReadBuffer(reader->rel, block);
	if (take_row(reader, tid))
		return true;
	rsink_hint_rest(reader);
	return false;
}

/*
 * Read the row of a slice that has the greatest second column of the primary key that
 * is not greater than this value; "at_most" is the operator's function. False: there is
 * none. The table is open.
 */
bool
rsink_hint_search(RsinkHintReader *reader, int32 slice, Datum second, RegProcedure at_most)
{
	MemoryContext old = MemoryContextSwitchTo(reader->context);
	ScanKeyData keys[2];
	ItemPointerData tid;
	bool		found;

	if (reader->scan == NULL)
	{
		InitDirtySnapshot(reader->dirty);
		reader->slot = table_slot_create(reader->rel, NULL);
		reader->scan = rsink_index_beginscan(reader->rel, reader->index, &reader->dirty, 2);
	}
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(slice));
	ScanKeyInit(&keys[1], 2, BTLessEqualStrategyNumber, at_most, second);
	index_rescan(reader->scan, keys, 2, NULL, 0);
	found = index_getnext_slot(reader->scan, BackwardScanDirection, reader->slot);
	if (found)
		tid = reader->slot->tts_tid;
	ExecClearTuple(reader->slot);
	MemoryContextSwitchTo(old);
	return found && rsink_hint_follow(reader, &tid, InvalidBuffer);
}
