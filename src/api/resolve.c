/*-------------------------------------------------------------------------
 *
 * resolve.c
 *	  resolve(): a person decides on dead letters, and which are not decided on.
 *
 * A resolution is a row of resolved_event. It speaks of an event, that is, of all dead
 * letters with its order_id and event_id, and stays when these are gone. 'count' claims
 * the event and adds the amount of one of its dead letters as apply() does, late or not,
 * in the transaction that inserts the row. So both commit, or neither does.
 *
 * Whoever resolves holds the maintenance lock to the end of the transaction. So two
 * owners decide one after the other, and no bucket is removed, no seen event expires
 * and no dead letter is folded between a decision and its commit.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "api/argument.h"
#include "apply/apply.h"
#include "apply/dead_letter.h"
#include "apply/event.h"
#include "apply/resolution.h"
#include "apply/watch.h"
#include "core/catalog.h"
#include "core/compat.h"
#include "core/spi_util.h"
#include "sink/choice.h"
#include "sink/right.h"
#include "sink/sink.h"
#include "sink/slot.h"

PG_FUNCTION_INFO_V1(revenue_sink_resolve);
PG_FUNCTION_INFO_V1(revenue_sink_unresolved);

/* One call of resolve(). */
typedef struct Resolve
{
	RsinkSink  *sink;
	RsinkResolutionKind kind;
	Datum		note;
	bool		note_isnull;
	RsinkResolutions resolutions;
	RsinkTable	resolved;
	TimestampTz at;				/* of these resolutions, and of no others of the sink */
	Relation	letters;
	Oid			letter_index;
	RsinkApply *apply;			/* of a 'count' */
	RsinkEvent *events;			/* to be counted: a portion, */
	unsigned char (*names)[RSINK_LETTER_BYTES]; /* their letters */
	int			n;				/* and how many they are */
	MemoryContext portion;		/* is reset with each portion */
	int64		made;			/* resolutions, */
	int64		letters_done;	/* and the rows of the dead letters that are resolved by them */
} Resolve;

/* A letter as text, for a message. */
static char *
letter_text(const unsigned char *letter, int len)
{
	char	   *text = palloc(2 * len + 3);

	text[0] = '\\';
	text[1] = 'x';
	text[2 + hex_encode((const char *) letter, len, text + 2)] = '\0';
	return text;
}

/* Raise because a dead letter can't be counted; "detail" and "hint" say why. */
static void
refuse_count(const Resolve *r, const unsigned char *letter, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("dead letter %s of sink \"%s\" cannot be counted",
					letter_text(letter, RSINK_LETTER_BYTES), r->sink->name),
			 errdetail_internal("%s", detail),
			 errhint("%s", hint)));
}

/* Raise because the event of a dead letter is counted. */
static void
refuse_counted(const Resolve *r, const unsigned char *letter)
{
	refuse_count(r, letter, "The event is counted already, by this or another copy of it.",
				 "Discard the dead letter. To correct the revenue, send the difference as an event with an event_id of its own.");
}

/* The bytes of a text column of a row; a null pointer for NULL. */
static const char *
text_column(HeapTuple tuple, TupleDesc desc, int attnum, int32 *len)
{
	bool		isnull;
	Datum		datum = heap_getattr(tuple, attnum, desc, &isnull);
	text	   *value = isnull ? NULL : DatumGetTextPP(datum);

	*len = value ? VARSIZE_ANY_EXHDR(value) : 0;
	return value ? VARDATA_ANY(value) : NULL;
}

/* Make an event of a row of dead_letter_event, whose strings stay in the row. */
static void
event_of_letter(HeapTuple tuple, TupleDesc desc, RsinkEvent *event)
{
	bool		isnull;
	Datum		datum;

	memset(event, 0, sizeof(RsinkEvent));
	event->order_id = text_column(tuple, desc, Anum_dead_letter_order_id, &event->order_len);
	event->event_id = text_column(tuple, desc, Anum_dead_letter_event_id, &event->event_len);
	event->group_key = text_column(tuple, desc, Anum_dead_letter_group_key, &event->group_len);
	event->event_time = DatumGetTimestampTz(heap_getattr(tuple, Anum_dead_letter_event_time, desc,
														 &event->time_isnull));
	datum = heap_getattr(tuple, Anum_dead_letter_amount, desc, &isnull);
	event->amount = isnull ? NULL : DatumGetNumeric(datum);
}

/* Count the events of the portion, and raise if one of them does not count. */
static void
count_portion(Resolve *r)
{
	if (r->n > 0)
		rsink_apply_events(r->apply, r->events, r->n);
	for (int i = 0; i < r->n; i++)
	{
		switch ((RsinkStatus) r->events[i].status)
		{
			case RSINK_APPLIED:
				break;
			case RSINK_DEFERRED:
				refuse_count(r, r->names[i],
							 "Another transaction, which is open or prepared, has counted the event and may still roll back.",
							 "Call resolve() again when that transaction has ended.");
				break;
			case RSINK_LATE:
				refuse_count(r, r->names[i], "The bucket of the event has been removed, as the setting retain says.",
							 "Discard the dead letter.");
				break;
			default:
				refuse_counted(r, r->names[i]);
		}
	}
	r->n = 0;
	MemoryContextReset(r->portion);
}

/* Raise if a dead letter can't be counted, as far as it and others of its event say. */
static void
require_countable(const Resolve *r, const unsigned char *letter, const char *reason, const RsinkEvent *event,
				  bool has_conflict)
{
	const char *fault;

	if (r->sink->mode == RSINK_TOTALS)
		refuse_count(r, letter, "The bucket of the total has been removed, as the setting retain says.",
					 "Discard the dead letter.");
	if (strcmp(reason, rsink_status_name[RSINK_CONFLICT]) == 0)
		refuse_count(r, letter, "It contradicts the first copy of the event, which is counted.",
					 "To correct the revenue, send the difference as an event with an event_id of its own. Then discard the dead letter.");
	if ((fault = rsink_apply_fault(r->apply, event)) != NULL)
		refuse_count(r, letter, psprintf("The event is bad: %s.", fault), strcmp(fault, "event_time is too far in the future") == 0 ?
					 "If the time is right, call resolve() again when it comes within max_future. Otherwise send a corrected event, and discard the dead letter once that is counted." :
					 "Send a corrected event, and discard the dead letter once that is counted.");
	/* a conflict tells of a first copy, even when the seen events have forgotten that */
	if (has_conflict)
		refuse_counted(r, letter);
}

/* Raise because two dead letters of this call are of one event, and differ. */
static void
refuse_both(const Resolve *r, const unsigned char *letter, const RsinkResolution *found)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("dead letters %s and %s of sink \"%s\" cannot both be counted",
					letter_text(found->letter, RSINK_LETTER_BYTES), letter_text(letter, RSINK_LETTER_BYTES),
					r->sink->name),
			 errdetail("They are copies of one event, with different event_time, amount or group_key."),
			 errhint("Call resolve() with the one that is right. That resolves the other one, too.")));
}

/*
 * The event of a letter is resolved: raise unless it was resolved as this call would.
 * Warn of an amount that does not count though the caller wants it to.
 */
static void
require_same_kind(const Resolve *r, const unsigned char *letter, const RsinkResolution *found)
{
	if (found->counts != (r->kind == RSINK_COUNT))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the event of dead letter %s of sink \"%s\" is resolved already",
						letter_text(letter, RSINK_LETTER_BYTES), r->sink->name),
				 errdetail("Role \"%s\" has resolved it as '%s' at %s.", NameStr(found->by),
						   rsink_resolution_names[found->counts ? RSINK_COUNT : RSINK_DISCARD],
						   timestamptz_to_str(found->at)),
				 found->counts ?
				 errhint("A resolution is final. To take the amount back, send the negative one as an event with an event_id of its own.") :
				 errhint("A resolution is final. To count the amount, send it as an event with an event_id of its own.")));
	if (r->kind != RSINK_COUNT || found->same)
		return;
	if (found->at == r->at)
		refuse_both(r, letter, found);
	ereport(WARNING,
			(errmsg("dead letter %s of sink \"%s\" is not counted", letter_text(letter, RSINK_LETTER_BYTES), r->sink->name),
			 errdetail("Role \"%s\" has counted dead letter %s of the same event at %s.", NameStr(found->by),
					   letter_text(found->letter, RSINK_LETTER_BYTES), timestamptz_to_str(found->at)),
			 errhint("To correct the revenue, send the difference as an event with an event_id of its own.")));
}

/*
 * Insert a resolution of the event of a dead letter, and watch for this event. Ids that
 * are bad name no event; they may be long, and are left out.
 */
static void
insert_resolution(Resolve *r, const unsigned char *letter, HeapTuple tuple, TupleDesc desc,
				  const RsinkEvent *event)
{
	Datum		values[Natts_resolved];
	bool		nulls[Natts_resolved] = {false};
	NameData	by;
	bool		has_ids = event->order_len > 0 && event->order_len <= RSINK_ID_MAX &&
		event->event_len > 0 && event->event_len <= RSINK_ID_MAX;

	namestrcpy(&by, GetUserNameFromId(GetUserId(), false));
	values[Anum_resolved_sink_id - 1] = Int32GetDatum(r->sink->id);
	values[Anum_resolved_event - 1] = PointerGetDatum(rsink_letter_bytea(letter, RSINK_IDENTITY_BYTES));
	values[Anum_resolved_letter - 1] = PointerGetDatum(rsink_letter_bytea(letter, RSINK_LETTER_BYTES));
	values[Anum_resolved_reason - 1] = heap_getattr(tuple, Anum_dead_letter_reason, desc,
													&nulls[Anum_resolved_reason - 1]);
	values[Anum_resolved_order_id - 1] = heap_getattr(tuple, Anum_dead_letter_order_id, desc,
													  &nulls[Anum_resolved_order_id - 1]);
	values[Anum_resolved_event_id - 1] = heap_getattr(tuple, Anum_dead_letter_event_id, desc,
													  &nulls[Anum_resolved_event_id - 1]);
	if (!has_ids)
		nulls[Anum_resolved_order_id - 1] = nulls[Anum_resolved_event_id - 1] = true;
	values[Anum_resolved_resolution - 1] = CStringGetTextDatum(rsink_resolution_names[r->kind]);
	values[Anum_resolved_resolved_at - 1] = TimestampTzGetDatum(r->at);
	values[Anum_resolved_resolved_by - 1] = NameGetDatum(&by);
	values[Anum_resolved_note - 1] = r->note;
	nulls[Anum_resolved_note - 1] = r->note_isnull;
	rsink_table_insert_values(&r->resolved, values, nulls);
	if (has_ids && r->sink->mode == RSINK_EVENTS)
		rsink_watch_event(r->sink, DatumGetTextPP(values[Anum_resolved_order_id - 1]),
						  DatumGetTextPP(values[Anum_resolved_event_id - 1]));
	r->made++;
}

/* Resolve one dead letter, which its letter names. */
static void
resolve_letter(Resolve *r, const struct varlena *value)
{
	TupleDesc	desc = RelationGetDescr(r->letters);
	const unsigned char *letter = (const unsigned char *) VARDATA_ANY(value);
	RsinkResolution found = {0};
	RsinkEvent	event;
	HeapTuple	tuple = NULL;
	bool		has_conflict;
	bool		isnull;

	if (VARSIZE_ANY_EXHDR(value) == RSINK_LETTER_BYTES)
	{
		rsink_resolution_find(&r->resolutions, letter, &found);
		if (found.resolved)
		{
			require_same_kind(r, letter, &found);
			return;
		}
		tuple = rsink_find_dead_letter(r->letters, r->letter_index, r->sink->id, letter);
	}
	if (tuple == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("sink \"%s\" has no dead letter %s", r->sink->name,
						letter_text(letter, Min(VARSIZE_ANY_EXHDR(value), RSINK_LETTER_BYTES))),
				 errhint("Take letters from the column \"letter\" of the view revenue_sink.dead_letter.")));
	event_of_letter(tuple, desc, &event);
	r->letters_done += rsink_dead_letters_of(r->letters, r->letter_index, r->sink->id, letter,
											 rsink_status_name[RSINK_CONFLICT], &has_conflict);
	if (r->kind == RSINK_COUNT)
	{
		require_countable(r, letter,
						  TextDatumGetCString(heap_getattr(tuple, Anum_dead_letter_reason, desc, &isnull)),
						  &event, has_conflict);
		memcpy(r->names[r->n], letter, RSINK_LETTER_BYTES);
		r->events[r->n++] = event;
	}
	insert_resolution(r, letter, tuple, desc, &event);
}

/* Open what a call of resolve() needs. */
static void
begin_resolve(Resolve *r)
{
	r->portion = AllocSetContextCreate(CurrentMemoryContext, "revenue_sink resolve", ALLOCSET_DEFAULT_SIZES);
	r->at = GetCurrentTimestamp();
	r->letters = table_open(rsink_catalog_relid("dead_letter_event"), AccessShareLock);
	r->letter_index = rsink_table_index(r->letters, Anum_dead_letter_sink_id);
	rsink_table_open_named(&r->resolved, "resolved_event");
	rsink_resolutions_open(&r->resolutions, r->sink, false);
	if (r->kind != RSINK_COUNT)
		return;
	r->events = palloc(RSINK_PORTION_MAX * sizeof(RsinkEvent));
	r->names = palloc(RSINK_PORTION_MAX * RSINK_LETTER_BYTES);
	if (r->sink->mode == RSINK_EVENTS)
		r->apply = rsink_apply_begin_resolving(r->sink);
}

/* Close it, and see to it that the commit is heard of. */
static void
end_resolve(Resolve *r)
{
	RsinkCounts counts = {{0}};

	if (r->apply != NULL)
	{
		count_portion(r);
		rsink_apply_end(r->apply, &counts);
	}
	rsink_resolutions_close(&r->resolutions);
	rsink_table_close(&r->resolved);
	table_close(r->letters, NoLock);
	if (r->made > 0)
	{
		rsink_note_letter_count(r->sink, -r->letters_done, r->at);
		rsink_resolutions_changed(r->sink);
	}
	MemoryContextDelete(r->portion);
}

/*
 * resolve(sink, resolution, letter[], note) -> bigint
 *
 * Counts or discards dead letters, all of them or none, and returns how many
 * resolutions that has made; a resolution that exists already stays as it is. NULL
 * stands for an array without letters, as array_agg() returns it. Takes the
 * maintenance lock. Raises undefined_object for a letter that the sink doesn't have,
 * and object_not_in_prerequisite_state for one that was resolved the other way round or
 * can't be counted.
 */
Datum
revenue_sink_resolve(PG_FUNCTION_ARGS)
{
	Resolve		r = {.sink = rsink_maintained_sink(fcinfo, "resolve()")};
	RsinkColumn letters = {0};

	rsink_require_argument(fcinfo, 1, "resolution");
	r.kind = rsink_choice("resolution", rsink_resolution_names, text_to_cstring(PG_GETARG_TEXT_PP(1)));
	if (!PG_ARGISNULL(2))
		rsink_column_open(&letters, fcinfo, 2, "letter", -1);
	r.note_isnull = PG_ARGISNULL(3);
	r.note = r.note_isnull ? (Datum) 0 : PG_GETARG_DATUM(3);
	begin_resolve(&r);
	for (int i = 0; i < letters.length; i++)
	{
		struct varlena *letter = rsink_column_varlena(&letters);
		MemoryContext old = MemoryContextSwitchTo(r.portion);

		CHECK_FOR_INTERRUPTS();
		if (letter == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("letter at position %d must not be null", i + 1)));
		resolve_letter(&r, letter);
		MemoryContextSwitchTo(old);
		if (r.n == RSINK_PORTION_MAX)
			count_portion(&r);
		else if (r.kind == RSINK_DISCARD)
			MemoryContextReset(r.portion);
	}
	end_resolve(&r);
	PG_RETURN_INT64(r.made);
}

/*
 * How many dead letters of a sink nobody has resolved, and when the oldest of them
 * arrived: read all of them. Caller is connected by rsink_spi_begin().
 */
static int64
count_unresolved(const RsinkSink *sink, Datum *oldest)
{
	rsink_spi(SPI_OK_SELECT, "SELECT count(*), min(arrived_at) FROM (%s) AS u", rsink_unresolved_letters(sink->id));
	*oldest = TimestampTzGetDatum(rsink_spi_int64(0, 2, 0));
	return rsink_spi_int64(0, 1, 0);
}

/*
 * The same if the worker has counted them, as it does where they are many. Returns -1
 * if it hasn't. Dead letters that concurrent calls have inserted twice, or after their
 * event was resolved, count until the worker counts again.
 */
static int64
add_up_unresolved(const RsinkSink *sink, Datum *oldest)
{
	int64		letters;

	rsink_spi(SPI_OK_SELECT, "SELECT sum(letters)::bigint FROM revenue_sink.letter_count "
			  "WHERE sink_id = %d HAVING count(counted_at) > 0", sink->id);
	if (SPI_processed == 0)
		return -1;
	letters = rsink_spi_int64(0, 1, 0);
	if (letters <= 0)
		return 0;
	rsink_spi(SPI_OK_SELECT,
			  "SELECT arrived_at FROM revenue_sink.dead_letter_event d WHERE sink_id = %d "
			  "AND arrived_at >= (SELECT min(oldest) FROM revenue_sink.letter_count WHERE sink_id = %d) "
			  "AND NOT EXISTS (SELECT FROM revenue_sink.resolved_event r WHERE " RSINK_RESOLUTION_OF("r", "d") " OFFSET 0) "
			  "ORDER BY arrived_at LIMIT 1", sink->id, sink->id);
	if (SPI_processed == 0)
		return 0;
	*oldest = TimestampTzGetDatum(rsink_spi_int64(0, 1, 0));
	return letters;
}

/*
 * unresolved(sink) -> (letters, oldest), for the view stat_sink
 *
 * How many dead letters of a sink nobody has resolved, and when the oldest of them
 * arrived.
 */
Datum
revenue_sink_unresolved(PG_FUNCTION_ARGS)
{
	RsinkSink  *sink = rsink_sink_argument(fcinfo, 0, RSINK_MAY_WATCH);
	Datum		values[2] = {0};
	bool		nulls[2] = {false};
	int64		letters;
	RsinkSpi	spi;

	rsink_spi_begin(&spi);
	letters = add_up_unresolved(sink, &values[1]);
	if (letters < 0)
		letters = count_unresolved(sink, &values[1]);
	rsink_spi_end(&spi);
	values[0] = Int64GetDatum(letters);
	nulls[1] = letters == 0;
	return HeapTupleGetDatum(heap_form_tuple(rsink_result_desc(fcinfo), values, nulls));
}
