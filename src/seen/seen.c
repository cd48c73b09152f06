/*-------------------------------------------------------------------------
 *
 * seen.c
 *	  Check and claim: which events of a call are new?
 *
 * Two backends must not both find an event new. So the check (is there a row that
 * counts the event?) and the claim (insert a page row that counts the event, and
 * enter that row in the index) happen under one LWLock per sink, the sink lock. A
 * backend holds the sink lock for a bounded number of events and never to the end
 * of a transaction. Whenever nobody holds it, the index has, for each row that is
 * or may become visible, all of the row's entries. The answers rest on this
 * invariant:
 *
 *	- No entry leads to a row that counts the event: nobody has counted
 *	  the event, and nobody can before our claim is entered. The event is
 *	  applied.
 *	- A row counts the event, and the row is committed or our own: the
 *	  event is a duplicate, now and for ever. (Packing deletes such a row,
 *	  but only together with inserting the packed row, whose entries
 *	  precede the commit. Whoever holds the sink lock finds the one or the
 *	  other.)
 *	- The row's transaction is unfinished elsewhere, that is, open or
 *	  prepared: nobody can know yet. We neither wait nor drop the event.
 *	  The event is deferred.
 *
 * An error or a cancel in between aborts the transaction that inserted the rows.
 * Entries that stay behind lead to dead rows, which is harmless.
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

#include "apply/deferred.h"
#include "apply/event.h"
#include "apply/fingerprint.h"
#include "apply/resolution.h"
#include "core/catalog.h"
#include "core/compat.h"
#include "seen/own.h"
#include "seen/seen.h"
#include "seen/seen_build.h"
#include "seen/seen_index.h"
#include "seen/seen_lookup.h"
#include "seen/seen_page.h"
#include "seen/sealed.h"
#include "seen/slice_load.h"
#include "sink/choice.h"
#include "sink/sink.h"
#include "sink/slot.h"

/*
 * The most events that are checked and claimed in one hold of the sink lock: ten
 * full page rows.
 */
#define HOLD_EVENTS		(10 * RSINK_PAGE_MAX)

/*
 * A hold that takes longer than this ends, and the rest of its events get another
 * one.
 */
#define HOLD_MILLISECONDS 20

/* A hold reads the clock once per this many events. */
#define HOLD_CHECKED	64

/* The CPU is asked for the cache lines of the index this many keys ahead. */
#define PREFETCH_AHEAD	8

/*
 * Did the last look-ups of this process read from disk? Then keys are looked up
 * before the sink lock is taken. Every process begins so, since it may have been
 * started together with the server, whose buffers are empty then.
 */
static bool looks_ahead = true;

/*
 * Open a sink's seen events for the current transaction. "settling" says that the
 * events are rows of deferred_event already: an event that stays deferred isn't
 * inserted there once more.
 *
 * Takes RowExclusiveLock on the page table. Raises an error
 * in recovery, if the library was not preloaded, or if the sink has just been
 * dropped.
 */
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
	rsink_sealed_begin(&seen->sealed, sink->sealed);
	rsink_hint_begin(&seen->pieces, sink->filter, Anum_filter_slice);
}

/*
 * Close what rsink_seen_begin() opened. Locks on tables stay until the end of the
 * transaction.
 */
void
rsink_seen_end(RsinkSeen *seen)
{
	rsink_table_close(&seen->pages);
	rsink_sealed_end(&seen->sealed);
	rsink_hint_end(&seen->pieces);
	if (seen->deferred.rel != NULL)
		rsink_table_close(&seen->deferred);
}

/*
 * Take the sink lock for look-ups. False, and the lock is free: the sealed slices must
 * be asked again.
 */
static bool
enter_hold(RsinkSeen *seen, RsinkLookup *lookup)
{
	rsink_seen_lock(seen);
	if (rsink_lookup_enter(lookup))
		return true;
	rsink_seen_unlock(seen);
	return false;
}

/*
 * Is the event with this fingerprint counted at this instant? Sets *payload to
 * the payload hash that was counted, unless the answer is RSINK_ROW_GONE. Takes
 * the sink lock for a moment, and may have to help to build the index first.
 */
RsinkRowState
rsink_seen_state(RsinkSeen *seen, const RsinkFingerprint *fp, uint32 *payload)
{
	RsinkKey	key = {.fp = *fp};
	RsinkFindings found = {0};
	RsinkLookup lookup;
	RsinkRowState state;

	for (;;)
	{
		rsink_slices_load(seen->sink);
		rsink_find_ahead(seen, &key, 1, &found);
		rsink_lookup_begin(&lookup, seen, &found, 0);
		if (enter_hold(seen, &lookup))
			break;
		rsink_lookup_end(&lookup);
	}
	state = rsink_lookup_state(&lookup, 0, &key, payload);
	rsink_seen_unlock(seen);
	rsink_lookup_end(&lookup);
	rsink_findings_free(&found);
	return state;
}

/*
 * Insert a page row of n sorted keys, of events between oldest and newest, and enter it
 * in the index or in a run. Caller holds the sink lock.
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
		pg_atomic_fetch_add_u32(&shared->small_rows, 1);
	if (!rsink_seen_enter(seen, keys, n, &tuple->t_self))
		rsink_seen_overflows(seen->sink);
	heap_freetuple(tuple);
}

/*
 * Claim the events of n sorted keys: insert a page row that counts them. Caller
 * holds the sink lock.
 *
 * The horizon keeps behind the "oldest" of a row that is unfinished. Late events,
 * which late_policy 'apply' counts without a promise, would hold the horizon
 * where it is, so they are left out of "oldest" if the row has others.
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
	if (seen->importing)
	{
		rsink_seen_insert_row(seen, keys, n, RSINK_IMPORTED_OLDEST, newest);
		return;
	}
	shared->low_claim = Min(shared->low_claim, oldest);
	rsink_seen_insert_row(seen, keys, n, Min(oldest, newest), newest);
}

/*
 * Has the hold that began at "since" taken so long that others have waited
 * enough?
 */
static bool
is_long(instr_time since)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, since);
	return INSTR_TIME_GET_MILLISEC(now) > HOLD_MILLISECONDS;
}

/* Does an event come too late to be checked, or for a bucket that was removed? */
static inline bool
is_late(const RsinkSeen *seen, const RsinkEvent *event)
{
	return (event->event_time <= seen->shared->horizon &&
			(seen->sink->late_policy != RSINK_LATE_APPLY || seen->importing) && !seen->resolving) ||
		event->event_time < seen->shared->retained_from;
}

/*
 * Check and claim in one hold of the sink lock. Returns how many of the n events
 * have been decided on: all, or none if what was found ahead, or what resolutions
 * said, no longer holds, or those before something that others must not wait for. That
 * is either the lock on deferred_event, if that table is needed and isn't open yet, or
 * the disk, once a look-up had to read from it. Core doesn't count the time that a
 * look-up waits for a block that somebody else reads, so a hold that takes long ends,
 * too. A hold that finds, before it imports events, that the sink has events of its own,
 * decides on nothing and sets seen->has_own. What the resolutions said of the keys begins
 * with number asked_from.
 */
static int
claim_hold(RsinkSeen *seen, RsinkLookup *lookup, RsinkEvent *events, const RsinkKey *keys, int n,
		   const RsinkAsked *asked, int asked_from, RsinkKey *fresh, RsinkEvent **deferred)
{
	const uint8 *said = asked->status == NULL ? NULL : asked->status + asked_from;
	const RsinkFingerprint *last = NULL;	/* the last one looked up */
	RsinkRowState last_state = RSINK_ROW_GONE;	/* what was found of "last" */
	uint32		last_payload = 0;	/* payload hash that "last" is counted with */
	int			nfresh = 0;
	int			ndeferred = 0;
	instr_time	since;

	if (!enter_hold(seen, lookup))
		return 0;
	if ((seen->importing && (seen->has_own = rsink_own_row_exists(seen))) ||
		(!seen->resolving && !rsink_asked_holds(seen->sink, asked)))
		n = 0;
	INSTR_TIME_SET_CURRENT(since);
	for (int i = 0; i < n; i++)
	{
		const RsinkFingerprint *fp = &keys[i].fp;
		RsinkEvent *event = &events[keys[i].position];
		uint8		resolved;

		if (i % HOLD_CHECKED == HOLD_CHECKED - 1 && is_long(since))
			lookup->from_disk = true;
		if (unlikely(lookup->from_disk))
		{
			n = i;
			break;
		}
		if (i + PREFETCH_AHEAD < n)
		{
			rsink_index_prefetch(&seen->shared->index, &keys[i + PREFETCH_AHEAD].fp);
			rsink_event_prefetch(&events[keys[i + PREFETCH_AHEAD].position]);
		}
		resolved = unlikely(said != NULL) ? said[i] : RSINK_NSTATUS;
		event->status = RSINK_NSTATUS;
		if (is_late(seen, event))
			event->status = resolved != RSINK_NSTATUS ? resolved : RSINK_LATE;
		else if (last == NULL || rsink_fingerprint_cmp(last, fp) != 0)
		{
			last = fp;
			last_state = rsink_lookup_state(lookup, i, &keys[i], &last_payload);
			if (last_state == RSINK_ROW_GONE && resolved == RSINK_NSTATUS)
			{
				event->status = RSINK_APPLIED;
				fresh[nfresh++] = keys[i];
				last_state = RSINK_ROW_COUNTED;
				last_payload = fp->payload;

				/* claim now, while the CPU's caches have what the look-ups read */
				if (nfresh == RSINK_PAGE_MAX)
				{
					claim(seen, events, fresh, nfresh);
					nfresh = 0;
				}
			}
		}
		if (event->status == RSINK_NSTATUS)
			event->status = last_state == RSINK_ROW_GONE ? resolved :
				last_state == RSINK_ROW_UNFINISHED ? RSINK_DEFERRED :
				last_payload == fp->payload ? RSINK_DUPLICATE : RSINK_CONFLICT;
		if (event->status != RSINK_DEFERRED)
			continue;
		if (seen->importing || (seen->deferred.rel == NULL && !seen->settling))
		{
			seen->has_own = seen->importing;
			seen->must_defer = !seen->importing;
			n = i;
			break;
		}
		deferred[ndeferred++] = event;
		if (event->event_time > seen->shared->horizon)
			seen->shared->low_claim = Min(seen->shared->low_claim, event->event_time);
	}
	if (nfresh > 0)
		claim(seen, events, fresh, nfresh);

	/*
	 * This happens within the hold, so that no horizon passes an event between
	 * its check and its row.
	 */
	if (ndeferred > 0 && !seen->settling)
		rsink_defer(seen->sink, &seen->deferred, deferred, ndeferred);
	rsink_seen_unlock(seen);
	return n;
}

/*
 * Decide on the events of n sorted keys. Sets the status of each event to applied
 * (and claims the event), duplicate, deferred (and inserts the event into
 * deferred_event, unless it comes from there), conflict or late. Where several
 * keys have the same ids, the one with the lowest position counts. An event that a
 * person has resolved is not applied; see resolution.c.
 *
 * Imported events are claimed like others, but for the horizon and the watermark.
 * For these the caller holds the maintenance lock, and
 * object_not_in_prerequisite_state is raised once the sink has events of its own.
 *
 * Takes the sink lock, several times for many keys, and RowExclusiveLock on
 * deferred_event before the first event is deferred. Waits for no other
 * transaction. What others have to wait for while the sink lock is held is
 * bounded. Heeds cancels between two holds.
 */
void
rsink_seen_claim(RsinkSeen *seen, RsinkEvent *events, const RsinkKey *keys, int n)
{
	RsinkKey   *fresh = palloc(Min(n, RSINK_PAGE_MAX) * sizeof(RsinkKey));
	RsinkEvent **deferred = palloc(Min(n, HOLD_EVENTS) * sizeof(RsinkEvent *));
	RsinkFindings found = {0};
	RsinkAsked	asked = {0};

	for (int from = 0, asked_from = 0; from < n;)
	{
		int			hold = Min(n - from, HOLD_EVENTS);
		RsinkLookup lookup;

		CHECK_FOR_INTERRUPTS();
		if (!rsink_findings_hold(seen->shared, &found) ||
			!(seen->resolving || rsink_asked_holds(seen->sink, &asked)))
		{
			rsink_slices_load(seen->sink);
			rsink_find_ahead(seen, keys + from, n - from, &found);
			if (!seen->resolving)
				rsink_ask_resolutions(seen->sink, events, keys + from, n - from, &asked);
			asked_from = from;
		}
		rsink_lookup_begin(&lookup, seen, &found, from - asked_from);
		if (looks_ahead)
		{
			hold = rsink_lookup_ahead(&lookup, keys + from, hold);
			looks_ahead = lookup.from_disk;
		}
		from += claim_hold(seen, &lookup, events, keys + from, hold, &asked, from - asked_from, fresh, deferred);
		looks_ahead |= lookup.from_disk;
		rsink_lookup_end(&lookup);
		if (seen->has_own)
			rsink_raise_own(seen->sink);
		if (seen->must_defer && seen->deferred.rel == NULL)
		{
			MemoryContext old = MemoryContextSwitchTo(seen->context);

			rsink_table_open_named(&seen->deferred, "deferred_event");
			MemoryContextSwitchTo(old);
		}
	}
	rsink_findings_free(&found);
	if (asked.status != NULL)
		pfree(asked.status);
	pfree(fresh);
	pfree(deferred);
}

