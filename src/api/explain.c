/*-------------------------------------------------------------------------
 *
 * explain.c
 *	  explain_event(): all that a sink knows of one event, for a person.
 *
 * The first row says whether the event is counted. Further rows are copies of the event
 * that wait, that have waited, or that are or were kept aside for a person: deferred ones,
 * settled ones, dead letters, and resolutions of letters that are gone.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/commit_ts.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "api/argument.h"
#include "apply/dead_letter.h"
#include "apply/encoding.h"
#include "apply/event.h"
#include "apply/fingerprint.h"
#include "apply/resolution.h"
#include "core/compat.h"
#include "core/spi_util.h"
#include "core/xid.h"
#include "seen/seen_find.h"
#include "seen/seen_page.h"
#include "sink/choice.h"
#include "sink/right.h"
#include "sink/sink.h"
#include "twophase/prepared.h"
#include "writer/ledger.h"

PG_FUNCTION_INFO_V1(revenue_sink_explain_event);

/* The columns of the result. */
#define COLUMN_FACT		0
#define COLUMN_SINCE	1
#define COLUMN_LATE_BY	2
#define COLUMN_GID		3
#define COLUMN_DETAIL	4
#define NCOLUMNS		5

/*
 * How often an event is looked at whose claimant has ended in between, before we say no
 * more of the claimant than that there is one.
 */
#define MAX_LOOKS		10

/* An event that is explained. */
typedef struct Explain
{
	ReturnSetInfo *result;
	RsinkSink  *sink;
	char	   *order_id;		/* as SQL literals */
	char	   *event_id;
	char	   *first_letter;	/* letters of the event are between these, as SQL literals */
	char	   *last_letter;
	char	   *of_event;		/* the condition, in SQL, that resolution "r" is of the event */
	RsinkFound	claim;
	const char *gid;			/* of the transaction that has claimed it; or NULL */
	const char *claimant;		/* that transaction in words, if it is unfinished */
} Explain;

/* Add a row about the event itself. "since" is DT_NOBEGIN if nobody knows. */
static void
put_claim(Explain *explain, const char *fact, TimestampTz since, const char *detail)
{
	Datum		values[NCOLUMNS] = {0};
	bool		nulls[NCOLUMNS] = {false};

	values[COLUMN_FACT] = CStringGetTextDatum(fact);
	values[COLUMN_SINCE] = TimestampTzGetDatum(since);
	nulls[COLUMN_SINCE] = since == DT_NOBEGIN;
	nulls[COLUMN_LATE_BY] = true;
	nulls[COLUMN_GID] = explain->gid == NULL;
	if (explain->gid != NULL)
		values[COLUMN_GID] = CStringGetTextDatum(explain->gid);
	values[COLUMN_DETAIL] = CStringGetTextDatum(detail);
	tuplestore_putvalues(explain->result->setResult, explain->result->setDesc, values, nulls);
}

/* A batch in words. */
static char *
batch_words(int64 number, const char *writer, const char *job)
{
	return psprintf("batch %lld of writer \"%s\" of job \"%s\"", (long long) number, writer, job);
}

/* Append the event times of the page row that counts an event, one of which is its own. */
static void
append_times(StringInfo detail, const RsinkFound *claim)
{
	if (claim->oldest == RSINK_IMPORTED_OLDEST)
		appendStringInfo(detail, "; imported, with an event_time of %s at most", timestamptz_to_str(claim->newest));
	else
	{
		appendStringInfo(detail, claim->oldest == claim->newest ? "; event_time %s" : "; event_time from %s",
						 timestamptz_to_str(claim->oldest));
		if (claim->oldest != claim->newest)
			appendStringInfo(detail, " to %s", timestamptz_to_str(claim->newest));
	}
}

/*
 * Say of an event that is counted when it came in, as far as that is known. Packing and
 * sealing write rows anew; then the time of their transaction is what is known.
 */
static void
explain_counted(Explain *explain)
{
	const RsinkFound *claim = &explain->claim;
	TimestampTz since = DT_NOBEGIN;
	RsinkLedgerBatch batch;
	StringInfoData detail;

	initStringInfo(&detail);
	if (TransactionIdIsCurrentTransactionId(claim->xid))
		appendStringInfoString(&detail, "by this transaction, which has not committed yet");
	else if (TransactionIdIsNormal(claim->xid) &&
			 rsink_ledger_find(explain->sink->id, rsink_topmost_xid(claim->xid), &batch))
	{
		since = batch.ended_at;
		appendStringInfoString(&detail, batch_words(batch.number, batch.writer, batch.job));
	}
	else if (TransactionIdIsNormal(claim->xid) && track_commit_timestamp && !RecoveryInProgress() &&
			 TransactionIdGetCommitTsData(claim->xid, &since, NULL))
		appendStringInfoString(&detail, "it came in at this time at the latest");
	else
	{
		since = DT_NOBEGIN;
		appendStringInfoString(&detail, "when it came in is not known");
	}
	if (claim->newest != DT_NOBEGIN)
		append_times(&detail, claim);
	put_claim(explain, "counted", since, detail.data);
}

/*
 * Find out who has claimed an event and not finished yet. False: that transaction has
 * just ended, so look at the event again.
 */
static bool
find_claimant(Explain *explain, TimestampTz *since)
{
	TransactionId xid;
	RsinkPrepared *p;
	const char *batch;
	int			pid;

	explain->gid = NULL;
	explain->claimant = "an unfinished transaction";
	*since = DT_NOBEGIN;
	if (!TransactionIdIsNormal(explain->claim.xid))
		return true;
	xid = rsink_topmost_xid(explain->claim.xid);
	pid = BackendXidGetPid(xid);
	p = rsink_unfinished_find(explain->sink, xid);
	batch = p->job == NULL ? NULL : batch_words(p->number, p->writer, p->job);
	if (p->gid != NULL)
	{
		explain->gid = p->gid;
		*since = p->prepared_at;
		explain->claimant = batch == NULL ? "a prepared transaction that is no batch" :
			psprintf("%s, prepared and %s", batch, rsink_prepared_state(p));
	}
	else if (RecoveryInProgress())
		explain->claimant = psprintf("%s, which is open or prepared; a standby can't tell, and has no gid",
									 batch ? batch : "an unfinished transaction");
	else if (pid != 0)
		explain->claimant = psprintf("%s, open in process %d", batch ? batch : "a transaction", pid);
	else
		return false;
	return true;
}

/*
 * Say of an event of which no row is known that it is not counted; or that this is not
 * known, as the sink has forgotten what has expired, and may not have been told of all
 * events of imported totals. Caller is connected by rsink_spi_begin().
 */
static void
explain_gone(Explain *explain)
{
	rsink_spi(SPI_OK_SELECT, "SELECT concat_ws('; ', "
			  "  CASE WHEN expired > 0 THEN format('not counted if its event_time is after the horizon, %%s; "
			  "otherwise it may have been counted and have expired', horizon) END, "
			  "  CASE WHEN totals > 0 OR imported_events > imported_seen THEN 'imported totals may contain it' END) "
			  "FROM revenue_sink.sink_state WHERE sink_id = %d "
			  "AND (expired > 0 OR totals > 0 OR imported_events > imported_seen)", explain->sink->id);
	if (SPI_processed == 0)
		put_claim(explain, "not counted", DT_NOBEGIN, "the sink has not counted such an event, and none has expired");
	else
		put_claim(explain, "unknown", DT_NOBEGIN,
				  SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
}

/* Add a row of the result for each row of the last statement, which has the same columns. */
static void
put_rows(Explain *explain)
{
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Datum		values[NCOLUMNS];
		bool		nulls[NCOLUMNS];

		for (int c = 0; c < NCOLUMNS; c++)
			values[c] = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, c + 1, &nulls[c]);
		tuplestore_putvalues(explain->result->setResult, explain->result->setDesc, values, nulls);
	}
}

/* What a copy of the event has brought, as SQL; its row is "e". */
#define EVENT_WORDS \
	"concat_ws(', ', 'event_time ' || e.event_time, 'amount ' || e.amount, 'group_key ' || nullif(e.group_key, ''))"

/* What has been decided on a copy of the event, and by whom, as SQL. */
#define RESOLUTION_WORDS(r) \
	"CASE " r ".resolution WHEN 'count' THEN 'counted' WHEN 'discard' THEN 'discarded' END || ' by ' || " r ".resolved_by"

/*
 * If somebody has counted a dead letter of the event, say that, and return true: this is
 * known for good, even if the event expires. Caller is connected by rsink_spi_begin().
 */
static bool
explain_counted_letter(Explain *explain)
{
	rsink_spi(SPI_OK_SELECT, "SELECT r.resolved_at, 'a dead letter that was ' || " RESOLUTION_WORDS("r") " "
			  "FROM revenue_sink.resolved_event r WHERE r.sink_id = %d AND r.resolution = 'count' AND %s",
			  explain->sink->id, explain->of_event);
	if (SPI_processed == 0)
		return false;
	put_claim(explain, "counted", rsink_spi_int64(0, 1, DT_NOBEGIN),
			  SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2));
	return true;
}

/*
 * Add the copies of the event that wait for the transaction that has claimed it, or for
 * the worker. Caller is connected by rsink_spi_begin().
 */
static void
explain_deferred(Explain *explain)
{
	const char *waits_for = explain->claim.state == RSINK_ROW_UNFINISHED ? explain->claimant :
		"the worker, which settles it in one of its next rounds";

	rsink_spi(SPI_OK_SELECT, "SELECT 'deferred', e.deferred_at, NULL::interval, %s::text, " EVENT_WORDS " || '; waits for ' || %s "
			  "FROM revenue_sink.deferred_event e WHERE e.sink_id = %d "
			  "AND e.order_id = %s AND e.event_id = %s ORDER BY e.deferred_at, e.event_time, e.amount",
			  explain->gid == NULL ? "NULL" : quote_literal_cstr(explain->gid), quote_literal_cstr(waits_for),
			  explain->sink->id, explain->order_id, explain->event_id);
	put_rows(explain);
}

/*
 * Add the answers to copies of the event that were deferred, as long as they are kept.
 * Caller is connected by rsink_spi_begin().
 */
static void
explain_settled(Explain *explain)
{
	rsink_spi(SPI_OK_SELECT, "SELECT 'settled', e.settled_at, NULL::interval, NULL::text, "
			  "  format('a copy that was deferred has the answer %%L', e.answer) "
			  "FROM revenue_sink.settled_event e WHERE e.sink_id = %d "
			  "AND e.order_id = %s AND e.event_id = %s ORDER BY e.settled_at, e.answer",
			  explain->sink->id, explain->order_id, explain->event_id);
	put_rows(explain);
}

/*
 * Add the dead letters that are copies of the event, and what has been decided on them.
 * A late one has the time by which it is behind the horizon, as the horizon is now.
 * Caller is connected by rsink_spi_begin().
 */
static void
explain_letters(Explain *explain)
{
	rsink_spi(SPI_OK_SELECT, "SELECT 'dead letter', e.arrived_at, "
			  "  CASE WHEN e.reason = 'late' AND e.event_time <= t.horizon THEN t.horizon - e.event_time END, NULL::text, "
			  "  concat_ws(', ', e.reason "
			  "      || CASE WHEN e.reason = 'late' AND e.event_time <= t.horizon THEN ', not after the horizon ' || t.horizon ELSE '' END "
			  "      || CASE WHEN e.reason = 'late' AND e.event_time < t.retained_from "
			  "          THEN ', facts before ' || t.retained_from || ' are removed' ELSE '' END, " EVENT_WORDS ") "
			  "    || coalesce('; ' || CASE WHEN r.resolution = 'count' AND substring(r.letter, 1, %d) <> substring(e.letter, 1, %d) "
			  "          THEN 'not counted, as another copy was ' ELSE '' END || " RESOLUTION_WORDS("r") " || ' at ' || r.resolved_at "
			  "        || coalesce(': ' || r.note, ''), '; not resolved') "
			  "FROM (SELECT DISTINCT ON (letter) * FROM revenue_sink.dead_letter_event "
			  "    WHERE sink_id = %d AND letter >= %s AND letter <= %s "
			  "    AND order_id IS NOT DISTINCT FROM %s AND event_id IS NOT DISTINCT FROM %s ORDER BY letter, arrived_at) AS e "
			  "  LEFT JOIN revenue_sink.resolved_event r ON " RSINK_RESOLUTION_OF("r", "e") " "
			  "  LEFT JOIN revenue_sink.sink_state t ON t.sink_id = e.sink_id "
			  "ORDER BY e.arrived_at, e.reason, e.event_time, e.amount",
			  RSINK_COPY_BYTES, RSINK_COPY_BYTES, explain->sink->id, explain->first_letter, explain->last_letter,
			  explain->order_id, explain->event_id);
	put_rows(explain);
}

/*
 * Add what has been decided on dead letters that are gone since. Caller is connected by
 * rsink_spi_begin().
 */
static void
explain_resolved(Explain *explain)
{
	rsink_spi(SPI_OK_SELECT, "SELECT 'resolved', r.resolved_at, NULL::interval, NULL::text, "
			  "  r.reason || '; ' || " RESOLUTION_WORDS("r") " || coalesce(': ' || r.note, '') "
			  "FROM revenue_sink.resolved_event r WHERE r.sink_id = %d AND %s "
			  "AND NOT EXISTS (SELECT FROM revenue_sink.dead_letter_event d WHERE " RSINK_RESOLUTION_OF("r", "d") ") "
			  "ORDER BY r.resolved_at, r.reason",
			  explain->sink->id, explain->of_event);
	put_rows(explain);
}

/*
 * Find out with which bytes the letters of the event begin, and so, in SQL, where its
 * dead letters and resolutions are. Text that names no event may have several.
 */
static void
find_letters(Explain *explain, FunctionCallInfo fcinfo)
{
	unsigned char first[RSINK_LETTER_BYTES] = {0};
	unsigned char last[RSINK_LETTER_BYTES];
	unsigned char letter[RSINK_LETTER_BYTES];
	text	   *order_id = PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1);
	text	   *event_id = PG_ARGISNULL(2) ? NULL : PG_GETARG_TEXT_PP(2);
	RsinkEvent	event = {
		.order_id = order_id ? VARDATA_ANY(order_id) : NULL,
		.order_len = order_id ? VARSIZE_ANY_EXHDR(order_id) : 0,
		.event_id = event_id ? VARDATA_ANY(event_id) : NULL,
		.event_len = event_id ? VARSIZE_ANY_EXHDR(event_id) : 0
	};
	StringInfoData buf;

	initStringInfo(&buf);
	rsink_letter(explain->sink, &event, "", &buf, letter);
	memcpy(first, letter, RSINK_IDS_BYTES);
	memset(last, 0xFF, sizeof(last));
	memcpy(last, letter, RSINK_IDS_BYTES);
	explain->first_letter = rsink_letter_literal(first, RSINK_LETTER_BYTES);
	explain->last_letter = rsink_letter_literal(last, RSINK_LETTER_BYTES);
	explain->of_event = psprintf("r.event >= %s AND r.event <= %s", rsink_letter_literal(first, RSINK_IDENTITY_BYTES),
								 rsink_letter_literal(last, RSINK_IDENTITY_BYTES));
}

/* A text argument, or NULL, as an SQL literal. */
static char *
literal_argument(FunctionCallInfo fcinfo, int argno)
{
	if (PG_ARGISNULL(argno))
		return pstrdup("NULL::text");
	return psprintf("%s::text", quote_literal_cstr(text_to_cstring(PG_GETARG_TEXT_PP(argno))));
}

/*
 * explain_event(sink, order_id, event_id) -> rows (fact, since, late_by, gid, detail)
 *
 * What the sink knows of an event at this instant: one row that says whether it is
 * counted, and a row for each copy that is deferred, settled, a dead letter or resolved. Works on a
 * standby, where the page rows are read instead of the index, and the gid of a prepared
 * transaction is not known. Takes the locks of rsink_seen_find(), and AccessShareLock on
 * the tables of deferred and settled events, dead letters, resolutions, the ledger and sink_state.
 */
Datum
revenue_sink_explain_event(PG_FUNCTION_ARGS)
{
	Explain		explain = {
		.result = (ReturnSetInfo *) fcinfo->resultinfo,
		.sink = rsink_sink_argument(fcinfo, 0, RSINK_MAY_READ),
		.claim = {.state = RSINK_ROW_GONE}
	};
	RsinkFingerprint fp;
	TimestampTz since = DT_NOBEGIN;
	RsinkSpi	spi;
	bool		has_identity;

	rsink_sink_require_mode(explain.sink, RSINK_EVENTS);
	InitMaterializedSRF(fcinfo, 0);
	explain.order_id = literal_argument(fcinfo, 1);
	explain.event_id = literal_argument(fcinfo, 2);
	find_letters(&explain, fcinfo);
	has_identity = !PG_ARGISNULL(1) && !PG_ARGISNULL(2) &&
		rsink_event_identity(explain.sink, PG_GETARG_TEXT_PP(1), PG_GETARG_TEXT_PP(2), &fp);
	if (has_identity)
	{
		for (int i = 0; i < MAX_LOOKS; i++)
		{
			CHECK_FOR_INTERRUPTS();
			rsink_seen_find(explain.sink, &fp, &explain.claim);
			if (explain.claim.state != RSINK_ROW_UNFINISHED || find_claimant(&explain, &since))
				break;
		}
	}
	rsink_spi_begin(&spi);
	if (!has_identity)
		put_claim(&explain, "not counted", DT_NOBEGIN, "no event with such ids can be counted");
	else if (explain.claim.state == RSINK_ROW_UNFINISHED)
		put_claim(&explain, "unfinished", since, psprintf("claimed by %s", explain.claimant));
	else if (!explain_counted_letter(&explain))
	{
		if (explain.claim.state == RSINK_ROW_COUNTED)
			explain_counted(&explain);
		else
			explain_gone(&explain);
	}
	explain_deferred(&explain);
	explain_settled(&explain);
	explain_letters(&explain);
	explain_resolved(&explain);
	rsink_spi_end(&spi);
	return (Datum) 0;
}
