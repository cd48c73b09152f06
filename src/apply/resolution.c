/*-------------------------------------------------------------------------
 *
 * resolution.c
 *	  Resolutions: what a person has decided on an event that was a dead letter.
 *
 * resolve() inserts a row into resolved_event for each event that it counts or discards,
 * and the row stays for good. The event that comes again doesn't count, with whatever
 * payload, and makes no dead letter. So resolutions are asked in two places:
 *
 *	- Before the sink lock is taken, about the events of a call, most of which the filter
 *	  of watch.c spares the look-up. What they say matters only if the seen events don't
 *	  know the event. If the transaction that resolves is open, the event is deferred,
 *	  unless it is late.
 *	- When dead letters are written (dead_letter.c). Bad events are asked about only there.
 *
 * The row has no payload, but the letter of the dead letter that was resolved, and so a
 * hash of its payload. The copy with this payload is a duplicate, other ones are what
 * they would be anyway; one that would count is a conflict.
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
#include "apply/event.h"
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
	resolutions->index = index_open(rsink_table_index(resolutions->rel, Anum_resolved_sink_id), AccessShareLock);
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

/* What has been decided on the event of a letter? The reason in the letter doesn't matter. */
void
rsink_resolution_find(RsinkResolutions *resolutions, const unsigned char *letter,
					  RsinkResolution *found)
{
	bytea	   *event = rsink_letter_bytea(letter, RSINK_IDENTITY_BYTES);
	TupleTableSlot *slot = resolutions->slot;
	MemoryContext old;
	ScanKeyData keys[2];

	memset(found, 0, sizeof(RsinkResolution));
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(resolutions->sink->id));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_BYTEAEQ, PointerGetDatum(event));
	old = MemoryContextSwitchTo(resolutions->context);
	index_rescan(resolutions->scan, keys, 2, NULL, 0);
	/* of a row that was rolled back nothing is seen */
	if (index_getnext_slot(resolutions->scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		bytea	   *resolved = DatumGetByteaPP(slot_getattr(slot, Anum_resolved_letter, &isnull));
		char	   *resolution = TextDatumGetCString(slot_getattr(slot, Anum_resolved_resolution, &isnull));

		found->unfinished = TransactionIdIsValid(resolutions->dirty.xmin);
		found->resolved = !found->unfinished;
		found->counts = strcmp(resolution, rsink_resolution_names[RSINK_COUNT]) == 0;
		memcpy(found->letter, VARDATA_ANY(resolved), Min(VARSIZE_ANY_EXHDR(resolved), RSINK_LETTER_BYTES));
		found->same = memcmp(found->letter + RSINK_IDENTITY_BYTES, letter + RSINK_IDENTITY_BYTES,
							 RSINK_COPY_BYTES - RSINK_IDENTITY_BYTES) == 0;
		found->at = DatumGetTimestampTz(slot_getattr(slot, Anum_resolved_resolved_at, &isnull));
		found->by = *DatumGetName(slot_getattr(slot, Anum_resolved_resolved_by, &isnull));
		pfree(resolution);
	}
	MemoryContextSwitchTo(old);
	ExecClearTuple(slot);
	pfree(event);
}

/*
 * The status of a copy of a resolved event, which would have had this status. One that
 * was resolved is a duplicate; one that would count, or is late and known to have been
 * counted otherwise, is a conflict.
 */
RsinkStatus
rsink_resolved_status(const RsinkResolution *found, RsinkStatus status)
{
	if (found->same)
		return RSINK_DUPLICATE;
	if (status == RSINK_APPLIED || (status == RSINK_LATE && found->counts))
		return RSINK_CONFLICT;
	return status;
}

/*
 * Does what was asked of the resolutions still hold? Without the sink lock the answer
 * is a hint, with it the answer is right until the lock is released.
 */
bool
rsink_asked_holds(const RsinkSink *sink, const RsinkAsked *asked)
{
	return asked->asked && asked->generation == sink->shared->resolutions;
}

/*
 * Ask the resolutions of a sink about n keys of a call, before the sink lock is taken.
 * What they said before is forgotten.
 */
void
rsink_ask_resolutions(const RsinkSink *sink, const RsinkEvent *events,
					  const RsinkKey *keys, int n, RsinkAsked *asked)
{
	RsinkShared *shared = sink->shared;
	TimestampTz horizon = shared->horizon;
	RsinkResolutions resolutions = {0};
	StringInfoData buf = {0};

	if (asked->status != NULL)
		pfree(asked->status);
	asked->status = NULL;
	asked->asked = true;
	asked->generation = shared->resolutions;
	rsink_watch_load(sink);
	pg_read_barrier();			/* pairs with the lock of who has changed them */
	if (shared->watch.loaded && !shared->watch.any)
		return;
	for (int i = 0; i < n; i++)
	{
		const RsinkEvent *event = &events[keys[i].position];
		unsigned char letter[RSINK_LETTER_BYTES];
		RsinkResolution found;
		bool		late;

		if (likely(!rsink_watch_has(&shared->watch, &keys[i].fp)))
			continue;
		if (resolutions.rel == NULL)
		{
			initStringInfo(&buf);
			rsink_resolutions_open(&resolutions, sink, true);
		}
		rsink_letter(sink, event, "", &buf, letter);
		rsink_resolution_find(&resolutions, letter, &found);
		late = event->event_time <= horizon;
		if (!found.resolved && !(found.unfinished && (!late || sink->late_policy == RSINK_LATE_APPLY)))
			continue;
		if (asked->status == NULL)
		{
			asked->status = palloc(n);
			memset(asked->status, RSINK_NSTATUS, n);
		}
		asked->status[i] = found.unfinished ? RSINK_DEFERRED :
			rsink_resolved_status(&found, late ? RSINK_LATE : RSINK_APPLIED);
	}
	if (resolutions.rel != NULL)
	{
		rsink_resolutions_close(&resolutions);
		pfree(buf.data);
	}
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

/*
 * A query, in SQL, for the dead letters of a sink that nobody has resolved: when they
 * arrived. OFFSET 0 has resolutions looked up one by one: where the tables aren't analyzed,
 * a join of them may compare each dead letter with each resolution.
 */
char *
rsink_unresolved_letters(int32 sink_id)
{
	return psprintf("SELECT min(arrived_at) AS arrived_at FROM revenue_sink.dead_letter_event d WHERE sink_id = %d "
					"AND NOT EXISTS (SELECT FROM revenue_sink.resolved_event r WHERE " RSINK_RESOLUTION_OF("r", "d") " OFFSET 0) "
					"GROUP BY letter", sink_id);
}

/* Called once per process, from _PG_init. */
void
rsink_init_resolution(void)
{
	RegisterXactCallback(xact_callback, NULL);
}
