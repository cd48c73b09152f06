/*-------------------------------------------------------------------------
 *
 * resolution.c
 *	  Resolutions: what a person has decided on an event that was a dead letter.
 *
 * resolve() inserts a row into resolved_event for each copy of an event that it counts
 * or discards, and the row stays for good. The copy that comes again is a duplicate.
 * Three kinds of copies come again:
 *
 *	- One that would become a dead letter: late, a conflict, or bad. It is looked up
 *	  when dead letters are written (dead_letter.c), so events that count pay nothing.
 *	- A late one under late_policy 'apply', which would count. Seen events may have
 *	  forgotten it. It is looked up before the sink lock is taken.
 *	- A discarded one that is in time: its event_time was too far in the future, or
 *	  contradicted a copy that has expired. A sink watches for such events by a small
 *	  filter in shared memory, and looks up an event that the filter has.
 *
 * If the transaction that resolves is open, such an event is deferred.
 *
 * A resolution may commit between such a look-up and the hold of the sink lock that
 * decides, and what resolve() has counted may even have expired by then. So the
 * resolutions of a sink have a generation, which grows with the commit of each
 * transaction that resolves. A hold compares the generation, and if it has grown,
 * everything is looked up again. The generation grows before the transaction lets go
 * of the maintenance lock, and whoever expires must have that lock.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "apply/dead_letter.h"
#include "apply/encoding.h"
#include "apply/event.h"
#include "apply/fingerprint.h"
#include "apply/resolution.h"
#include "apply/watch.h"
#include "core/catalog.h"
#include "core/compat.h"
#include "sink/choice.h"
#include "sink/sink.h"
#include "sink/slot.h"

const char *const rsink_resolution_names[] = {"count", "discard", NULL};

/* A sink whose events the current transaction has resolved; an element of a list. */
typedef struct Changed
{
	RsinkShared *shared;
	Oid			seen;			/* the page table: is "shared" still this sink's? */
	struct Changed *next;
} Changed;

static Changed *changed;		/* in TopTransactionContext, or NULL */

/*
 * Open the resolutions of a sink for looking up, in the current memory context: those
 * that are committed at this instant, those of this transaction and, if "dirty", those of
 * transactions that are open. Takes AccessShareLock on resolved_event.
 */
void
rsink_resolutions_open(RsinkResolutions *resolutions, const RsinkSink *sink, bool dirty)
{
	resolutions->sink = sink;
	resolutions->context = CurrentMemoryContext;
	resolutions->rel = table_open(rsink_catalog_relid("resolved_event"), AccessShareLock);
	resolutions->index = index_open(rsink_table_index(resolutions->rel, Anum_resolved_copy), AccessShareLock);
	InitDirtySnapshot(resolutions->dirty);
	resolutions->dirty.xmin = InvalidTransactionId;
	resolutions->scan = rsink_index_beginscan(resolutions->rel, resolutions->index,
											  dirty ? &resolutions->dirty : SnapshotSelf, 2);
	resolutions->slot = table_slot_create(resolutions->rel, NULL);
}

/* Close what rsink_resolutions_open() opened. The lock on the table stays. */
void
rsink_resolutions_close(RsinkResolutions *resolutions)
{
	ExecDropSingleTupleTableSlot(resolutions->slot);
	index_endscan(resolutions->scan);
	index_close(resolutions->index, AccessShareLock);
	table_close(resolutions->rel, NoLock);
}

/* The next row of the scan; what the scan allocates stays as long as the scan. */
static bool
next_row(RsinkResolutions *resolutions)
{
	MemoryContext old = MemoryContextSwitchTo(resolutions->context);
	bool		found = index_getnext_slot(resolutions->scan, ForwardScanDirection, resolutions->slot);

	MemoryContextSwitchTo(old);
	return found;
}

/* What resolutions say of the copy of an event that a letter names, and of the others. */
void
rsink_resolution_find(RsinkResolutions *resolutions, const unsigned char *letter,
					  RsinkResolution *found)
{
	bytea	   *first = rsink_letter_bytea(letter, RSINK_COPY_BYTES);
	bytea	   *last = rsink_letter_bytea(letter, RSINK_COPY_BYTES);
	TupleTableSlot *slot = resolutions->slot;
	MemoryContext old;
	ScanKeyData keys[2];

	/* all copies of the event */
	memset(VARDATA(first) + RSINK_IDENTITY_BYTES, 0, RSINK_COPY_BYTES - RSINK_IDENTITY_BYTES);
	memset(VARDATA(last) + RSINK_IDENTITY_BYTES, 0xFF, RSINK_COPY_BYTES - RSINK_IDENTITY_BYTES);
	memset(found, 0, sizeof(RsinkResolution));
	ScanKeyInit(&keys[0], 1, BTGreaterEqualStrategyNumber, F_BYTEAGE, PointerGetDatum(first));
	ScanKeyInit(&keys[1], 1, BTLessEqualStrategyNumber, F_BYTEALE, PointerGetDatum(last));
	old = MemoryContextSwitchTo(resolutions->context);
	index_rescan(resolutions->scan, keys, 2, NULL, 0);
	MemoryContextSwitchTo(old);
	while (next_row(resolutions))
	{
		bool		isnull;
		bytea	   *copy = DatumGetByteaPP(slot_getattr(slot, Anum_resolved_copy, &isnull));
		char	   *resolution = TextDatumGetCString(slot_getattr(slot, Anum_resolved_resolution, &isnull));
		char	   *reason = TextDatumGetCString(slot_getattr(slot, Anum_resolved_reason, &isnull));
		bool		counts = strcmp(resolution, rsink_resolution_names[RSINK_COUNT]) == 0;

		if (DatumGetInt32(slot_getattr(slot, Anum_resolved_sink_id, &isnull)) != resolutions->sink->id)
			continue;
		if (VARSIZE_ANY_EXHDR(copy) == RSINK_COPY_BYTES && memcmp(VARDATA_ANY(copy), letter, RSINK_COPY_BYTES) == 0)
		{
			found->unfinished = TransactionIdIsValid(resolutions->dirty.xmin);
			found->resolved = !found->unfinished;
			found->counts = counts;
			found->at = DatumGetTimestampTz(slot_getattr(slot, Anum_resolved_resolved_at, &isnull));
			found->by = *DatumGetName(slot_getattr(slot, Anum_resolved_resolved_by, &isnull));
		}
		else if (!TransactionIdIsValid(resolutions->dirty.xmin))
		{
			found->counted_otherwise |= counts;
			found->contradicts |= strcmp(reason, rsink_status_name[RSINK_CONFLICT]) == 0;
		}
	}
	ExecClearTuple(slot);
	pfree(first);
	pfree(last);
}

/*
 * Does what was asked of the resolutions still hold? Without the sink lock the answer
 * is a hint, with it the answer is right until the lock is released.
 *
 * Under late_policy 'apply' an event that has become late since was not looked up.
 */
bool
rsink_asked_holds(const RsinkSink *sink, const RsinkAsked *asked)
{
	return asked->asked && asked->generation == sink->shared->resolutions &&
		(sink->late_policy != RSINK_LATE_APPLY || asked->horizon == sink->shared->horizon);
}

/*
 * Compute the identity of an event with these ids. Returns false if no good event can
 * have them, since their text can't be converted or is too long then.
 */
static bool
identify(const RsinkSink *sink, const char *order_id, int32 order_len,
		 const char *event_id, int32 event_len, RsinkFingerprint *fp)
{
	order_id = rsink_hashed_text(sink, order_id, &order_len);
	event_id = rsink_hashed_text(sink, event_id, &event_len);
	if (order_id == NULL || order_len > RSINK_ID_MAX || event_id == NULL || event_len > RSINK_ID_MAX)
		return false;
	rsink_fingerprint_id(sink->key, order_id, order_len, event_id, event_len, fp);
	return true;
}

/*
 * Add the fingerprints of the events that committed rows say to watch for. The horizon
 * is the committed one, since one that is just being raised may fall back.
 */
static void
read_watched(const RsinkSink *sink, RsinkWatch *watch)
{
	Relation	rel = table_open(rsink_catalog_relid("resolved_event"), AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleDesc	desc = RelationGetDescr(rel);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_resolved_watched_until, BTGreaterStrategyNumber, F_TIMESTAMPTZ_GT,
				TimestampTzGetDatum(rsink_state_time(rsink_catalog_relid("sink_state"), sink->id,
													 Anum_state_horizon, snapshot)));
	scan = systable_beginscan(rel, rsink_table_index(rel, Anum_resolved_watched_until), true, snapshot, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		RsinkFingerprint fp;
		bool		isnull;
		text	   *order_id;
		text	   *event_id;

		if (DatumGetInt32(heap_getattr(tuple, Anum_resolved_sink_id, desc, &isnull)) != sink->id)
			continue;
		order_id = DatumGetTextPP(heap_getattr(tuple, Anum_resolved_order_id, desc, &isnull));
		event_id = DatumGetTextPP(heap_getattr(tuple, Anum_resolved_event_id, desc, &isnull));
		if (identify(sink, VARDATA_ANY(order_id), VARSIZE_ANY_EXHDR(order_id),
					 VARDATA_ANY(event_id), VARSIZE_ANY_EXHDR(event_id), &fp))
			rsink_watch_add(watch, &fp);
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
}

/* Load what a sink watches for, after a restart. Takes the sink lock for a moment. */
static void
load_watch(const RsinkSink *sink)
{
	RsinkWatch *loaded = palloc0(sizeof(RsinkWatch));
	RsinkWatch *watch = &sink->shared->watch;

	read_watched(sink, loaded);
	LWLockAcquire(&sink->shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < lengthof(watch->bits); i++)
		watch->bits[i] |= loaded->bits[i];
	watch->any |= loaded->any;
	watch->loaded = true;
	LWLockRelease(&sink->shared->lock);
	pfree(loaded);
}

/*
 * Ask the resolutions of a sink about n keys of a call, before the sink lock is taken.
 * What they said before is forgotten. Only those events are looked up that might
 * count though they are resolved; see the head of this file.
 */
void
rsink_ask_resolutions(const RsinkSink *sink, const RsinkEvent *events,
					  const RsinkKey *keys, int n, RsinkAsked *asked)
{
	RsinkShared *shared = sink->shared;
	bool		applies_late = sink->late_policy == RSINK_LATE_APPLY;
	RsinkResolutions resolutions = {0};
	StringInfoData buf = {0};

	if (asked->status != NULL)
		pfree(asked->status);
	asked->status = NULL;
	asked->asked = true;
	asked->generation = shared->resolutions;
	asked->horizon = shared->horizon;
	if (!shared->watch.loaded)
		load_watch(sink);
	pg_read_barrier();			/* pairs with the lock of who has changed them */
	if (!shared->watch.any && !applies_late)
		return;
	for (int i = 0; i < n; i++)
	{
		const RsinkEvent *event = &events[keys[i].position];
		unsigned char letter[RSINK_LETTER_BYTES];
		RsinkResolution found;

		if (!(applies_late && event->event_time <= asked->horizon) &&
			!(shared->watch.any && rsink_watch_has(&shared->watch, &keys[i].fp)))
			continue;
		if (resolutions.rel == NULL)
		{
			initStringInfo(&buf);
			rsink_resolutions_open(&resolutions, sink, true);
		}
		rsink_letter(sink, event, "", &buf, letter);
		rsink_resolution_find(&resolutions, letter, &found);
		if (!found.resolved && !found.unfinished &&
			!(found.counted_otherwise && event->event_time <= asked->horizon))
			continue;
		if (asked->status == NULL)
		{
			asked->status = palloc(n);
			memset(asked->status, RSINK_NSTATUS, n);
		}
		asked->status[i] = found.resolved ? RSINK_DUPLICATE : found.unfinished ? RSINK_DEFERRED : RSINK_CONFLICT;
	}
	if (resolutions.rel != NULL)
	{
		rsink_resolutions_close(&resolutions);
		pfree(buf.data);
	}
}

/*
 * Watch for an event that is discarded and not late, so that it doesn't count when it
 * comes again. It has both ids. Takes the sink lock. A rollback leaves the bits set,
 * which costs look-ups.
 */
void
rsink_watch_event(const RsinkSink *sink, const RsinkEvent *event)
{
	RsinkFingerprint fp;

	if (!identify(sink, event->order_id, event->order_len, event->event_id, event->event_len, &fp))
		return;
	LWLockAcquire(&sink->shared->lock, LW_EXCLUSIVE);
	rsink_watch_add(&sink->shared->watch, &fp);
	LWLockRelease(&sink->shared->lock);
}

/*
 * Watch no longer for events that are late by now. Caller holds the maintenance lock,
 * so nobody resolves meanwhile. Takes the sink lock for a moment.
 */
void
rsink_watch_renew(const RsinkSink *sink)
{
	RsinkWatch *renewed;

	if (!sink->shared->watch.any)
		return;
	renewed = palloc0(sizeof(RsinkWatch));
	read_watched(sink, renewed);
	renewed->loaded = true;
	LWLockAcquire(&sink->shared->lock, LW_EXCLUSIVE);
	sink->shared->watch = *renewed;
	LWLockRelease(&sink->shared->lock);
	pfree(renewed);
}

/*
 * The current transaction has resolved events of a sink. Once it commits, whoever has
 * asked the resolutions before must ask again.
 */
void
rsink_resolutions_changed(const RsinkSink *sink)
{
	Changed    *c;

	for (c = changed; c != NULL; c = c->next)
		if (c->seen == sink->seen)
			return;
	c = MemoryContextAlloc(TopTransactionContext, sizeof(Changed));
	c->shared = sink->shared;
	c->seen = sink->seen;
	c->next = changed;
	changed = c;
}

static void
xact_callback(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT)
		return;
	for (Changed *c = changed; c != NULL && event == XACT_EVENT_COMMIT; c = c->next)
	{
		LWLockAcquire(&c->shared->lock, LW_EXCLUSIVE);
		c->shared->resolutions++;
		LWLockRelease(&c->shared->lock);
	}
	changed = NULL;
}

/* Called once per process, from _PG_init. */
void
rsink_init_resolution(void)
{
	RegisterXactCallback(xact_callback, NULL);
}
