/*-------------------------------------------------------------------------
 *
 * apply.c
 *	  The one path of a batch: validate, fingerprint, claim, add up.
 *
 * Every door (arrays, jsonb, one row, INSERT, COPY) and the settling of
 * deferred events come through here. Hashing, sorting and adding up happen
 * outside the section that checks and claims.
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

#include "amount.h"
#include "apply.h"
#include "compat.h"
#include "deferred.h"
#include "encoding.h"
#include "fingerprint.h"
#include "revenue.h"
#include "seen.h"
#include "writer.h"

/* So much of a bad id is shown. */
#define SHOWN_BYTES 40

struct RsinkApply
{
	RsinkSink  *sink;
	RsinkSeen	seen;
	RsinkRevenue *revenue;
	RsinkCounts counts;
	int64		position;		/* of the next event, counted from 1 */
	TimestampTz newest;			/* event time among those applied */
	TimestampTz limit;			/* later event times are bad, */
	TimestampTz earliest;		/* and those before, whose bucket has no start */
	MemoryContext context;		/* of the whole */
	MemoryContext slice;		/* of the events in hand */
};

/* What is wrong with an event. */
typedef struct Fault
{
	const char *column;
	const char *what;			/* end of the error's message */
	const char *reason;			/* in the dead letters */
	const char *hint;
} Fault;

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
		fault->what = "is longer than 1024 bytes";
		fault->hint = "Send a hash of a longer id.";
		fault->reason = psprintf("%s is too long", column);
		return true;
	}
	return false;
}

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
		fault->what = "is longer than 1024 bytes";
		fault->reason = "group_key is too long";
		fault->hint = "Send a shorter key.";
		return true;
	}
	fault->column = "event_time";
	if (unlikely(event->time_isnull))
	{
		fault->what = "is null";
		fault->reason = "event_time is null";
		fault->hint = "The minute an event counts for is that of its event_time.";
		return true;
	}
	if (unlikely(TIMESTAMP_NOT_FINITE(event->event_time)))
	{
		fault->what = "is infinite";
		fault->reason = "event_time is infinite";
		fault->hint = "The minute an event counts for is that of its event_time.";
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

/* The first characters of an id. */
static char *
shorten(const char *id, int len)
{
	return id == NULL ? NULL : pnstrdup(id, pg_mbcliplen(id, len, SHOWN_BYTES));
}

/* The offending value as text, shortened. */
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
			 errhint("%s With on_bad_event 'reject' the sink sets such events aside.", fault->hint)));
}

/*
 * Start a batch for a sink. "settling": the events are deferred ones, and one
 * that must stay so isn't put aside a second time.
 */
RsinkApply *
rsink_apply_begin(RsinkSink *sink, bool settling)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "revenue_sink batch",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	RsinkApply *apply = palloc0(sizeof(RsinkApply));

	apply->sink = sink;
	apply->context = context;
	apply->slice = AllocSetContextCreate(context, "revenue_sink slice", ALLOCSET_DEFAULT_SIZES);
	apply->position = 1;
	apply->newest = DT_NOBEGIN;
	if (settling || pg_add_s64_overflow(GetCurrentTimestamp(), sink->max_future, &apply->limit))
		apply->limit = DT_NOEND;
	apply->earliest = MIN_TIMESTAMP + sink->bucket;
	rsink_seen_begin(&apply->seen, sink, settling);
	apply->revenue = rsink_revenue_begin(sink);
	MemoryContextSwitchTo(old);
	return apply;
}

/* The first event to come is number n + 1 of its statement, for messages. */
void
rsink_apply_skip(RsinkApply *apply, int64 n)
{
	apply->position += n;
}

/* Make the text of an event that which is hashed. False: that can't be done. */
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
		fault->what = "has a character that no other encoding has";
		fault->reason = psprintf("%s has a character that no other encoding has", columns[i]);
		fault->hint = "Send text that can be converted to UTF8.";
		return false;
	}
	return true;
}

/* Fingerprints of the good events; the bad ones get their status or raise. */
static int
make_keys(RsinkApply *apply, RsinkEvent *events, int n, RsinkKey *keys,
		  RsinkEvent **letters, const char **reasons, int *nletters)
{
	int			nkeys = 0;

	for (int i = 0; i < n; i++)
	{
		RsinkEvent *hashed = &events[i];
		RsinkEvent	converted;
		Fault		fault;
		bool		is_bad = false;

		/* ids have the same bytes, and the same length, on each server */
		if (unlikely(OidIsValid(apply->sink->conversion)))
		{
			converted = events[i];
			hashed = &converted;
			is_bad = !convert(apply, hashed, &fault);
		}
		if (unlikely(is_bad || find_fault(apply, hashed, &fault)))
		{
			if (!apply->sink->reject_bad)
				raise_fault(apply, &events[i], apply->position + i, &fault);
			events[i].status = RSINK_REJECTED;
			letters[*nletters] = &events[i];
			reasons[(*nletters)++] = fault.reason;
			continue;
		}
		rsink_fingerprint(apply->sink->key, hashed, &keys[nkeys].fp);
		keys[nkeys++].position = i;
	}
	return nkeys;
}

/*
 * Take n <= RSINK_SLICE_MAX events through the path; each one's status says
 * what became of it. Raises for a bad event under on_bad_event 'error'; the
 * events needn't outlive the call.
 */
void
rsink_apply_events(RsinkApply *apply, RsinkEvent *events, int n)
{
	MemoryContext old = MemoryContextSwitchTo(apply->slice);
	RsinkKey   *keys = palloc(n * sizeof(RsinkKey));
	RsinkKey   *scratch = palloc(n * sizeof(RsinkKey));
	RsinkEvent **letters = palloc(n * sizeof(RsinkEvent *));
	const char **reasons = palloc(n * sizeof(char *));
	int			nletters = 0;
	int			nkeys = make_keys(apply, events, n, keys, letters, reasons, &nletters);

	rsink_seen_claim(&apply->seen, events, rsink_sort_keys(keys, scratch, nkeys), nkeys);
	for (int i = 0; i < n; i++)
	{
		RsinkEvent *event = &events[i];

		apply->counts.n[event->status]++;
		if (likely(event->status == RSINK_APPLIED))
		{
			rsink_revenue_add(apply->revenue, event);
			apply->newest = Max(apply->newest, event->event_time);
		}
		else if (event->status == RSINK_CONFLICT || event->status == RSINK_LATE)
		{
			letters[nletters] = event;
			reasons[nletters++] = rsink_status_name[event->status];
		}
	}
	if (nletters > 0)
		rsink_reject(apply->sink, letters, reasons, nletters);
	apply->position += n;
	MemoryContextSwitchTo(old);
	MemoryContextReset(apply->slice);
}

/*
 * End the batch: write its deltas, add its counts to *counts, and see that the
 * answer will be as durable as what it speaks of.
 */
void
rsink_apply_end(RsinkApply *apply, RsinkCounts *counts)
{
	bool		settling;
	bool		answered = false;

	rsink_revenue_end(apply->revenue);
	settling = apply->seen.settling;
	rsink_seen_end(&apply->seen);

	/* what was deferred, and still is, is nothing new */
	if (settling)
		apply->counts.n[RSINK_DEFERRED] = 0;
	for (int i = 0; i < RSINK_NSTATUS; i++)
		answered |= apply->counts.n[i] > 0;
	if (answered || !settling)
		rsink_durable_answer();
	rsink_writer_count(apply->sink, &apply->counts, apply->newest);
	for (int i = 0; i < RSINK_NSTATUS; i++)
		counts->n[i] += apply->counts.n[i];
	MemoryContextDelete(apply->context);
}
