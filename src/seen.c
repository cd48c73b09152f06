/*-------------------------------------------------------------------------
 *
 * seen.c
 *	  Check and claim: which events of a batch are new?
 *
 * Two backends must not both find an event new. So the check (is there a row
 * that counts it?) and the claim (insert such a row, enter it in the index)
 * happen in one critical section a sink, an LWLock held for a bounded number
 * of events and never to the end of a transaction. Between two sections of
 * others the index holds, for each row that is or may become visible, all of
 * its entries; that is the invariant on which the answers rest:
 *
 *	- no entry leads to a row that counts the event: nobody has counted it,
 *	  and nobody can before we have entered our claim. It is ours.
 *	- a row counts it and is committed, or our own: a duplicate, now and for
 *	  ever (the section sees deletions by packing only together with the
 *	  packed row, whose entries precede its commit).
 *	- the row's transaction is open or prepared elsewhere: nobody can know
 *	  yet. We neither wait nor drop the event; it is deferred.
 *
 * An error or a cancel in between aborts the transaction that inserted the
 * rows; entries that stay behind lead to dead rows, which is harmless.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "storage/bufmgr.h"
#include "storage/latch.h"
#include "storage/procarray.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "deferred.h"
#include "seen.h"
#include "seen_lookup.h"
#include "seen_spill.h"

/* Events checked and claimed in one hold of the lock: ten full pages. */
#define HOLD_EVENTS		(10 * RSINK_PAGE_MAX)

/* So long may a hold take before the rest of its events get one of their own. */
#define HOLD_MILLISECONDS 20

/* So often is that looked at. */
#define HOLD_CHECKED	64

/* How far ahead the index is asked for its cache lines. */
#define PREFETCH_AHEAD	8

/* Blocks that one hold of the lock adds to an index being built. */
#define BUILD_BLOCKS	32

/* The part of the pool that a build leaves to transactions in doubt. */
#define BUILD_RESERVE	0.125

/* Is this the process that all others leave a build to when memory is short? */
bool		rsink_seen_builder = false;

/*
 * Did this process's look-ups read from disk of late? Then keys are looked up
 * ahead. So is the first batch, since servers and their clients start together.
 */
static bool looks_ahead = true;

/* Where the current transaction, the worker's, has spilled during a build. */
static RsinkShared *spilling_shared;
static Oid	spilling_seen;

/*
 * What a build has spilled counts from its commit on. If there is none, the
 * build starts again: the blocks that it has done aren't done after all.
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

/* Called once a process, from _PG_init. */
void
rsink_init_seen(void)
{
	RegisterXactCallback(xact_callback, NULL);
}

/* Open a sink's seen events; takes RowExclusiveLock on its tables. */
void
rsink_seen_begin(RsinkSeen *seen, RsinkSink *sink, bool settling)
{
	rsink_require_preload();
	PreventCommandDuringRecovery("revenue_sink");
	memset(seen, 0, sizeof(RsinkSeen));
	seen->sink = sink;
	seen->shared = sink->shared;
	seen->settling = settling;
	seen->context = CurrentMemoryContext;
	rsink_table_open(&seen->pages, sink->seen);
	rsink_table_open(&seen->spill, sink->spill);
}

/* Close it; the locks stay until the end of the transaction. */
void
rsink_seen_end(RsinkSeen *seen)
{
	rsink_table_close(&seen->pages);
	rsink_table_close(&seen->spill);
	if (seen->deferred.rel != NULL)
		rsink_table_close(&seen->deferred);
}

/*
 * Enter the rows of one block into the index. False if the memory is used up
 * and may_spill is not set.
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
			bool		in_doubt = TransactionIdIsValid(dirty.xmin);
			RsinkFingerprint fp;
			uint32		payload;

			if (i + PREFETCH_AHEAD < row.n)
			{
				rsink_page_key(&row, i + PREFETCH_AHEAD, &fp);
				rsink_index_prefetch(&shared->index, &fp);
			}
			rsink_page_key(&row, i, &fp);
			if ((in_doubt || rsink_index_pool_free() > BUILD_RESERVE) &&
				rsink_index_insert(&shared->index, &fp, &tuple.t_self))
				continue;
			if (in_doubt)
				ereport(ERROR,
						(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						 errmsg("the events of prepared transactions of sink \"%s\" don't fit in memory",
								seen->sink->name),
						 errhint("Finish them, or raise revenue_sink.dedup_memory and restart the server.")));
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
 * See that the index describes the file that the page table has now: a few
 * blocks of work a call. True: it does. Caller holds the section.
 *
 * The file is another one after VACUUM FULL or TRUNCATE, and longer than
 * known when rows came in past us, as a restore brings them. If such rows are
 * met while their transaction is open, it may go on to insert others into the
 * same blocks, so these are read again after its end.
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
		/* by now all that it has inserted can be seen */
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
 * Enter the section with an index that is complete. Whoever comes first after
 * a restart helps to build it; the work of a caller that is cancelled isn't
 * lost. Memory that is used up during a build takes the worker, since what is
 * spilled then must be committed before anyone relies on it. The worker itself
 * must not wait for that, and gets an error.
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
					 errmsg("the index of sink \"%s\" has to be built again first", seen->sink->name)));
		if (wait)
		{
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 20L, PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
		}
		CHECK_FOR_INTERRUPTS();
	}
}

/* Leave the section. */
void
rsink_seen_unlock(RsinkSeen *seen)
{
	seen->shared->known_blocks = RelationGetNumberOfBlocks(seen->pages.rel);
	LWLockRelease(&seen->shared->lock);
}

/*
 * A step of the build for the worker, in a transaction that it commits right
 * after. True once the index is complete.
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

/* Is this event counted, as of now? Enters the section. */
RsinkRowState
rsink_seen_state(RsinkSeen *seen, const RsinkFingerprint *fp, uint32 *payload)
{
	RsinkLookup lookup;
	RsinkRowState state;

	rsink_lookup_begin(&lookup, seen->shared, &seen->pages, &seen->spill);
	rsink_seen_lock(seen);
	rsink_lookup_enter(&lookup);
	state = rsink_lookup_state(&lookup, 0, fp, payload);
	rsink_seen_unlock(seen);
	rsink_lookup_end(&lookup);
	return state;
}

/*
 * Insert a page row of n sorted keys, of events between oldest and newest, and
 * enter it into the index. Caller holds the section.
 */
void
rsink_seen_insert_row(RsinkSeen *seen, const RsinkKey *keys, int n,
					  TimestampTz oldest, TimestampTz newest)
{
	RsinkShared *shared = seen->shared;
	HeapTuple	tuple = rsink_page_form(RelationGetDescr(seen->pages.rel), keys, n,
										oldest, newest);

	rsink_table_insert(&seen->pages, tuple);
	if (n < RSINK_SMALL_ROW)
		shared->small_rows++;
	for (int i = 0; i < n; i++)
	{
		if (!rsink_index_insert(&shared->index, &keys[i].fp, &tuple->t_self))
		{
			shared->spilled = true;
			shared->spill_generation++;
			rsink_spill_add(&seen->spill, &keys[i].fp, newest);
		}
	}
	heap_freetuple(tuple);
}

/*
 * Insert a page row for these keys. Caller holds the section.
 *
 * The horizon keeps behind the oldest event of a row that is undecided. Late
 * ones, which are claimed without a promise, would hold it where it is.
 */
static void
claim(RsinkSeen *seen, const RsinkEvent *events, const RsinkKey *keys, int n)
{
	RsinkShared *shared = seen->shared;
	TimestampTz oldest = DT_NOEND;
	TimestampTz newest = DT_NOBEGIN;

	for (int i = 0; i < n; i++)
	{
		TimestampTz time = events[keys[i].position].event_time;

		if (time > shared->horizon)
			oldest = Min(oldest, time);
		newest = Max(newest, time);
	}
	shared->low_claim = Min(shared->low_claim, oldest);
	rsink_seen_insert_row(seen, keys, n, Min(oldest, newest), newest);
}

/* Has this hold taken so long that others have waited enough? */
static bool
is_long(instr_time since)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, since);
	return INSTR_TIME_GET_MILLISEC(now) > HOLD_MILLISECONDS;
}

/*
 * One hold of the section; returns how many of the events have been decided on:
 * all, or those before something that others must not wait for. That is the lock
 * on the table of deferred events, if it isn't open and is needed; and the disk,
 * once a look-up had to read from it or, which core doesn't count, has waited
 * for somebody else's read.
 */
static int
claim_hold(RsinkSeen *seen, RsinkLookup *lookup, RsinkEvent *events, const RsinkKey *keys, int n,
		   RsinkKey *fresh, RsinkEvent **deferred)
{
	RsinkSink  *sink = seen->sink;
	const RsinkFingerprint *last = NULL;	/* the event before this one, */
	RsinkRowState last_state = RSINK_ROW_GONE;	/* what was found of it, */
	uint32		last_payload = 0;	/* and what stands under its name */
	int			nfresh = 0;
	int			ndeferred = 0;
	instr_time	since;

	rsink_seen_lock(seen);
	rsink_lookup_enter(lookup);
	INSTR_TIME_SET_CURRENT(since);
	for (int i = 0; i < n; i++)
	{
		const RsinkFingerprint *fp = &keys[i].fp;
		RsinkEvent *event = &events[keys[i].position];

		if (i % HOLD_CHECKED == HOLD_CHECKED - 1 && is_long(since))
			lookup->from_disk = true;
		if (unlikely(lookup->from_disk))
		{
			n = i;
			break;
		}
		if (i + PREFETCH_AHEAD < n)
			rsink_index_prefetch(&seen->shared->index, &keys[i + PREFETCH_AHEAD].fp);
		if ((event->event_time <= seen->shared->horizon && !sink->apply_late) ||
			event->event_time < seen->shared->retained_from)
		{
			event->status = RSINK_LATE;
			continue;
		}
		if (last == NULL || rsink_fingerprint_cmp(last, fp) != 0)
		{
			last = fp;
			last_state = rsink_lookup_state(lookup, i, fp, &last_payload);
			if (last_state == RSINK_ROW_GONE)
			{
				event->status = RSINK_APPLIED;
				fresh[nfresh++] = keys[i];
				last_state = RSINK_ROW_COUNTED;
				last_payload = fp->payload;

				/* at once, while the caches still have what the look-ups read */
				if (nfresh == RSINK_PAGE_MAX)
				{
					claim(seen, events, fresh, nfresh);
					nfresh = 0;
				}
				continue;
			}
		}
		if (last_state == RSINK_ROW_OPEN)
		{
			if (seen->deferred.rel == NULL && !seen->settling)
			{
				seen->must_defer = true;
				n = i;
				break;
			}
			event->status = RSINK_DEFERRED;
			deferred[ndeferred++] = event;
			if (event->event_time > seen->shared->horizon)
				seen->shared->low_claim = Min(seen->shared->low_claim, event->event_time);
		}
		else
			event->status = last_payload == fp->payload ? RSINK_DUPLICATE : RSINK_CONFLICT;
	}
	if (nfresh > 0)
		claim(seen, events, fresh, nfresh);

	/* inside the section, so that no horizon passes between check and row */
	if (ndeferred > 0 && !seen->settling)
		rsink_defer(sink, &seen->deferred, deferred, ndeferred);
	rsink_seen_unlock(seen);
	return n;
}

/*
 * Decide on each of n sorted keys' events: sets their status to applied (and
 * claims it), duplicate, deferred (and puts it aside), conflict or late.
 *
 * Waits for no other transaction; what it waits for within the section is
 * bounded. Event ids that are equal within the batch count once, the one of the
 * lowest position.
 */
void
rsink_seen_claim(RsinkSeen *seen, RsinkEvent *events, const RsinkKey *keys, int n)
{
	RsinkKey   *fresh = palloc(Min(n, RSINK_PAGE_MAX) * sizeof(RsinkKey));
	RsinkEvent **deferred = palloc(Min(n, HOLD_EVENTS) * sizeof(RsinkEvent *));

	for (int from = 0; from < n;)
	{
		int			hold = Min(n - from, HOLD_EVENTS);
		RsinkLookup lookup;

		CHECK_FOR_INTERRUPTS();
		rsink_lookup_begin(&lookup, seen->shared, &seen->pages, &seen->spill);
		if (looks_ahead)
		{
			hold = rsink_lookup_ahead(&lookup, keys + from, hold);
			looks_ahead = lookup.from_disk;
		}
		from += claim_hold(seen, &lookup, events, keys + from, hold, fresh, deferred);
		looks_ahead |= lookup.from_disk;
		rsink_lookup_end(&lookup);
		if (seen->must_defer && seen->deferred.rel == NULL)
		{
			MemoryContext old = MemoryContextSwitchTo(seen->context);

			rsink_table_open_named(&seen->deferred, "deferred_event");
			MemoryContextSwitchTo(old);
		}
	}
	pfree(fresh);
	pfree(deferred);
}

/*
 * See that the COMMIT of this transaction waits for disk and synchronous
 * standbys though it has written nothing: it has told its client of effects
 * that others committed, and that answer must not outlive them.
 *
 * A commit without a transaction id, or without WAL before its own record,
 * waits for nothing; a logical message gives it both, and no resource manager
 * of ours is needed to replay it.
 */
void
rsink_durable_answer(void)
{
	if (!TransactionIdIsValid(GetTopTransactionIdIfAny()) || XactLastRecEnd == InvalidXLogRecPtr)
		rsink_log_message("revenue_sink", "answer", 6);
}
