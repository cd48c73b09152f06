/*-------------------------------------------------------------------------
 *
 * apply.c
 *	  The path of all events: validate, fingerprint, check and claim, add up.
 *
 * Every way of sending events (arrays, jsonb, one event, INSERT, COPY) and the
 * settling of deferred events call this file. Hashing, sorting and adding up
 * happen before and after the sink lock is held, never under it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/int.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "apply/apply.h"
#include "apply/dead_letter.h"
#include "apply/encoding.h"
#include "apply/event.h"
#include "apply/fingerprint.h"
#include "core/compat.h"
#include "core/memory.h"
#include "revenue/amount.h"
#include "revenue/revenue.h"
#include "seen/own.h"
#include "seen/seen.h"
#include "sink/choice.h"
#include "sink/sink.h"
#include "twophase/durable.h"
#include "writer/tally.h"

/* Bytes of a bad event's id or group_key that a message shows at most. */
#define SHOWN_BYTES 40

/* A portion of so many events is a large one, and no call takes so many bytes for a portion. */
#define LARGE_PORTION 1000
#define KEPT_BYTES	(16 * 1024 * 1024)

struct RsinkApply
{
	RsinkSink  *sink;
	RsinkSeen	seen;
	RsinkRevenue *revenue;
	RsinkCounts counts;
	bool		importing;		/* are the events imported? */
	int64		position;		/* of the next event in the call, from 1 */
	TimestampTz newest;			/* newest event time that was applied */
	TimestampTz limit;			/* a later event time is bad */
	TimestampTz earliest;		/* an earlier one, too: its bucket has no start */
	MemoryContext context;		/* lives as long as the call */
	MemoryContext portion;		/* is reset after each portion of events */
};

/* What is wrong with an event. */
typedef struct Fault
{
	const char *column;
	const char *what;			/* end of the error's message */
	const char *reason;			/* reason of the dead letter */
	const char *hint;
} Fault;

/* Is something wrong with an order_id or event_id? If so, *fault says what. */
static bool
id_fault(const char *column, const char *id, int len, Fault *fault)
{
	fault->column = column;
	if (id == NULL)
	{
		fault->what = "is null";
		fault->hint = "An event is known by its order_id and event_id; both are needed.";
		fault->reason = psprintf("%s is null", column);
		return true;
	}
	if (len == 0)
	{
		fault->what = "is empty";
		fault->hint = "An event is known by its order_id and event_id; both are needed.";
		fault->reason = psprintf("%s is empty", column);
		return true;
	}
	if (len > RSINK_ID_MAX)
	{
		fault->what = "is longer than " RSINK_ID_MAX_TEXT " bytes";
		fault->hint = "Send a hash in place of a longer id.";
		fault->reason = psprintf("%s is too long", column);
		return true;
	}
	return false;
}

/* Is the event a bad one? If so, *fault says why. */
static bool
find_fault(const RsinkApply *apply, const RsinkEvent *event, Fault *fault)
{
	if (unlikely(event->order_id == NULL || event->order_len == 0 || event->order_len > RSINK_ID_MAX))
		return id_fault("order_id", event->order_id, event->order_len, fault);
	if (unlikely(event->event_id == NULL || event->event_len == 0 || event->event_len > RSINK_ID_MAX))
		return id_fault("event_id", event->event_id, event->event_len, fault);
	fault->column = "group_key";
	if (unlikely(event->group_len > RSINK_ID_MAX))
	{
		fault->what = "is longer than " RSINK_ID_MAX_TEXT " bytes";
		fault->reason = "group_key is too long";
		fault->hint = "Send a shorter key.";
		return true;
	}
	fault->column = "event_time";
	if (unlikely(event->time_isnull))
	{
		fault->what = "is null";
		fault->reason = "event_time is null";
		fault->hint = "An event counts in the bucket of its event_time.";
		return true;
	}
	if (unlikely(TIMESTAMP_NOT_FINITE(event->event_time)))
	{
		fault->what = "is infinite";
		fault->reason = "event_time is infinite";
		fault->hint = "An event counts in the bucket of its event_time.";
		return true;
	}
	if (unlikely(event->event_time > apply->limit))
	{
		fault->what = "is too far in the future";
		fault->reason = "event_time is too far in the future";
		fault->hint = "Correct the clock of the source, or raise the sink's max_future.";
		return true;
	}
	if (unlikely(event->event_time < apply->earliest))
	{
		fault->what = "is too far in the past";
		fault->reason = "event_time is too far in the past";
		fault->hint = "Its bucket would start before the first timestamp there is.";
		return true;
	}
	fault->column = "amount";
	if (unlikely(event->amount == NULL))
	{
		fault->what = "is null";
		fault->reason = "amount is null";
		fault->hint = "An event without revenue has amount 0.";
		return true;
	}
	if (unlikely(!rsink_amount_is_finite(event->amount)))
	{
		fault->what = numeric_is_nan(event->amount) ? "is not a number" : "is infinite";
		fault->reason = numeric_is_nan(event->amount) ? "amount is NaN" : "amount is infinite";
		fault->hint = "Revenue is a sum of finite amounts; a refund is a negative one.";
		return true;
	}
	if (unlikely(rsink_amount_is_huge(event->amount)))
	{
		fault->what = "is too large";
		fault->reason = "amount is too large";
		fault->hint = "Sums of amounts of 10^100 and more might not fit a numeric.";
		return true;
	}
	return false;
}

/* The first SHOWN_BYTES bytes of an id, without a part of a character at the end. */
static char *
shorten(const char *id, int len)
{
	return id == NULL ? NULL : pnstrdup(id, pg_mbcliplen(id, len, SHOWN_BYTES));
}

/* The offending value as text, shortened for a message; NULL for NULL. */
static char *
fault_value(const RsinkEvent *event, const char *column)
{
	if (strcmp(column, "event_time") == 0)
		return event->time_isnull ? NULL :
			pstrdup(timestamptz_to_str(event->event_time));
	if (strcmp(column, "amount") == 0)
		return event->amount == NULL ? NULL :
			DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(event->amount)));
	if (strcmp(column, "order_id") == 0)
		return shorten(event->order_id, event->order_len);
	if (strcmp(column, "event_id") == 0)
		return shorten(event->event_id, event->event_len);
	return shorten(event->group_key, event->group_len);
}

/* Raise the error for a bad event; "position" is that of the event in its call. */
static void
raise_fault(const RsinkApply *apply, const RsinkEvent *event, int64 position, const Fault *fault)
{
	char	   *value = fault_value(event, fault->column);
	int			code = ERRCODE_INVALID_PARAMETER_VALUE;

	if (value == NULL)
		code = ERRCODE_NULL_VALUE_NOT_ALLOWED;
	else if (strcmp(fault->column, "event_time") == 0)
		code = ERRCODE_DATETIME_FIELD_OVERFLOW;
	else if (strcmp(fault->column, "amount") == 0)
		code = ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE;
	ereport(ERROR,
			(errcode(code),
			 errmsg("bad event at position %lld for sink \"%s\": %s %s",
					(long long) position, apply->sink->name, fault->column, fault->what),
			 value ? errdetail("The value is \"%s\".", value) : 0,
			 apply->importing ? errhint("%s Leave such events out of the import.", fault->hint) :
			 errhint("%s With on_bad_event 'reject' the sink keeps such events as dead letters.", fault->hint)));
}

/* An event with a later time is a bad one. */
static TimestampTz
latest_time(const RsinkSink *sink)
{
	TimestampTz latest;

	return pg_add_s64_overflow(GetCurrentTimestamp(), sink->max_future, &latest) ? DT_NOEND : latest;
}

/*
 * Start a call for a sink. "settling" is true if the events are deferred ones: then
 * an event that is still undecided isn't deferred a second time, and a time in the
 * future is no fault. Takes RowExclusiveLock on the sink's tables. The result lives
 * in the current memory context and ends with rsink_apply_end().
 */
RsinkApply *
rsink_apply_begin(RsinkSink *sink, bool settling)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "revenue_sink call",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	RsinkApply *apply = palloc0(sizeof(RsinkApply));

	apply->sink = sink;
	apply->context = context;
	apply->portion = AllocSetContextCreate(context, "revenue_sink portion", ALLOCSET_DEFAULT_SIZES);
	apply->position = 1;
	apply->newest = DT_NOBEGIN;
	apply->limit = settling ? DT_NOEND : latest_time(sink);
	apply->earliest = MIN_TIMESTAMP + sink->bucket;
	rsink_seen_begin(&apply->seen, sink, settling);
	apply->revenue = rsink_revenue_begin(sink);
	MemoryContextSwitchTo(old);
	return apply;
}

/*
 * Start a call whose events were counted elsewhere: they are remembered, and not
 * counted, neither in the revenue nor in the counters. None of them becomes a dead
 * letter, or is deferred. Caller holds the maintenance lock. Otherwise like
 * rsink_apply_begin(); see own.c for the error that rsink_apply_events() raises.
 */
RsinkApply *
rsink_apply_begin_import(RsinkSink *sink)
{
	RsinkApply *apply = rsink_apply_begin(sink, false);

	rsink_require_no_own(sink);
	apply->importing = apply->seen.importing = true;
	return apply;
}

/*
 * Start a call that counts the events of dead letters, late or not, because a person
 * says so; see rsink_apply_begin(). Events that the caller hands in are no bad ones.
 * One that isn't applied only gets its status: deferred if it is unfinished, duplicate
 * or conflict if it is counted, late if its bucket was removed.
 */
RsinkApply *
rsink_apply_begin_resolving(RsinkSink *sink)
{
	RsinkApply *apply = rsink_apply_begin(sink, true);

	apply->seen.resolving = true;
	apply->limit = latest_time(sink);
	return apply;
}

/*
 * Skip n positions, for messages: n events of the statement have been applied
 * before.
 */
void
rsink_apply_skip(RsinkApply *apply, int64 n)
{
	apply->position += n;
}

/*
 * Replace the strings of an event by the bytes that are hashed. Returns false, with
 * *fault, if a string can't be converted.
 */
static bool
convert(const RsinkApply *apply, RsinkEvent *event, Fault *fault)
{
	const char **texts[] = {&event->order_id, &event->event_id, &event->group_key};
	int32	   *lengths[] = {&event->order_len, &event->event_len, &event->group_len};
	static const char *const columns[] = {"order_id", "event_id", "group_key"};

	for (int i = 0; i < lengthof(texts); i++)
	{
		if (*texts[i] == NULL || (*texts[i] = rsink_hashed_text(apply->sink, *texts[i], lengths[i])) != NULL)
			continue;
		fault->column = columns[i];
		fault->what = "has a character that cannot be converted to UTF8";
		fault->reason = psprintf("%s has a character that cannot be converted to UTF8", columns[i]);
		fault->hint = "Send text that can be converted to UTF8.";
		return false;
	}
	return true;
}

/* What is wrong with an event now, as the reason of a dead letter; NULL if nothing is. */
const char *
rsink_apply_fault(const RsinkApply *apply, const RsinkEvent *event)
{
	RsinkEvent	converted = *event;
	Fault		fault;

	if (OidIsValid(apply->sink->conversion) && !convert(apply, &converted, &fault))
		return fault.reason;
	return find_fault(apply, &converted, &fault) ? fault.reason : NULL;
}

/*
 * Compute the fingerprints of the good events, and return how many these are. A
 * bad event either raises or, under on_bad_event 'reject', becomes a dead letter
 * with the status rejected.
 */
static int
make_keys(RsinkApply *apply, RsinkEvent *events, int n, RsinkKey *keys,
		  RsinkEvent **dead_letters, const char **reasons, int *ndead_letters)
{
	int			nkeys = 0;

	for (int i = 0; i < n; i++)
	{
		RsinkEvent *hashed = &events[i];
		RsinkEvent	converted;
		Fault		fault;
		bool		is_bad = false;

		/* the limits of length are for the bytes that all servers hash */
		if (unlikely(OidIsValid(apply->sink->conversion)))
		{
			converted = events[i];
			hashed = &converted;
			is_bad = !convert(apply, hashed, &fault);
		}
		if (unlikely(is_bad || find_fault(apply, hashed, &fault)))
		{
			if (apply->sink->bad_policy != RSINK_BAD_REJECT)
				raise_fault(apply, &events[i], apply->position + i, &fault);
			events[i].status = RSINK_REJECTED;
			dead_letters[*ndead_letters] = &events[i];
			reasons[(*ndead_letters)++] = fault.reason;
			continue;
		}
		rsink_fingerprint(apply->sink->key, hashed, &keys[nkeys].fp);
		keys[nkeys++].position = i;
	}
	return nkeys;
}

/*
 * Apply a portion of n <= RSINK_PORTION_MAX events, and set the status of each. Raises
 * for a bad event under on_bad_event 'error'. Takes and releases the sink lock, in
 * one hold or several. The events and their strings belong to the caller, who may
 * free them afterwards.
 */
void
rsink_apply_events(RsinkApply *apply, RsinkEvent *events, int n)
{
	MemoryContext old = MemoryContextSwitchTo(apply->portion);
	RsinkKey   *keys = palloc(n * sizeof(RsinkKey));
	RsinkKey   *scratch = palloc(n * sizeof(RsinkKey));
	RsinkEvent **dead_letters = palloc(n * sizeof(RsinkEvent *));
	const char **reasons = palloc(n * sizeof(char *));
	int			ndead_letters = 0;
	int			nkeys = make_keys(apply, events, n, keys, dead_letters, reasons, &ndead_letters);

	if (n >= LARGE_PORTION)
		rsink_keep_memory(KEPT_BYTES);
	rsink_sort_keys(keys, scratch, nkeys);
	rsink_seen_claim(&apply->seen, events, keys, nkeys);
	for (int i = 0; i < n && !apply->importing; i++)
	{
		RsinkEvent *event = &events[i];

		if (likely(event->status == RSINK_APPLIED))
		{
			rsink_revenue_add(apply->revenue, event);
			apply->newest = Max(apply->newest, event->event_time);
		}
		else if ((event->status == RSINK_CONFLICT || event->status == RSINK_LATE) && !apply->seen.resolving)
		{
			dead_letters[ndead_letters] = event;
			reasons[ndead_letters++] = rsink_status_name[event->status];
		}
	}
	if (ndead_letters > 0 && !apply->importing)
		rsink_keep_dead_letters(apply->sink, dead_letters, reasons, ndead_letters);
	for (int i = 0; i < n; i++)
		apply->counts.n[events[i].status]++;
	apply->position += n;
	MemoryContextSwitchTo(old);
	MemoryContextReset(apply->portion);
}

/*
 * End the call: write its deltas, and add the number of events per status to
 * *counts. Also sees to it that the answer is as durable as what it tells; see
 * durable.c.
 */
void
rsink_apply_end(RsinkApply *apply, RsinkCounts *counts)
{
	bool		settling;
	bool		answered = false;

	rsink_revenue_end(apply->revenue);
	settling = apply->seen.settling;
	rsink_seen_end(&apply->seen);

	/* an event that stays deferred was counted as deferred when it came */
	if (settling)
		apply->counts.n[RSINK_DEFERRED] = 0;
	for (int i = 0; i < RSINK_NSTATUS; i++)
		answered |= apply->counts.n[i] > 0;
	if (answered || !settling)
		rsink_durable_answer();
	if (!apply->importing)
		rsink_tally_count(apply->sink, &apply->counts, apply->newest);
	for (int i = 0; i < RSINK_NSTATUS; i++)
		counts->n[i] += apply->counts.n[i];
	MemoryContextDelete(apply->context);
}
