/*-------------------------------------------------------------------------
 *
 * rows.c
 *	  apply_rows(): events as one value in the format of COPY BINARY.
 *
 * The server makes a Datum of each element of an array that it receives, and then
 * copies all of them into the array, which takes much of a call's time. Here nothing is
 * made of an event but its fields' addresses, and a numeric of its amount. The text of an event stays where it was received; only a text that must
 * be converted to the database's encoding is copied. The format is that of COPY (see
 * the page on COPY in PostgreSQL's documentation), so that any program that writes
 * such files can send events; but the trailer is required, because a value without it
 * may have lost events at its end.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "libpq/pqformat.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "api/argument.h"
#include "apply/apply.h"
#include "apply/event.h"
#include "core/compat.h"
#include "revenue/amount.h"
#include "sink/sink.h"

PG_FUNCTION_INFO_V1(revenue_sink_apply_rows);

static const char signature[] = "PGCOPY\n\377\r\n";	/* its terminating zero belongs to it */

/* Flags that tell a reader what it must understand; the others may be ignored. */
#define CRITICAL_FLAGS	0xFFFF0000

#define NFIELDS			4		/* and a fifth one, the group key, if the event has any */
#define TRAILER			(-1)	/* in place of the number of fields */
#define NULL_LENGTH		(-1)
#define ROW_MIN			(sizeof(int16) + NFIELDS * sizeof(int32))
#define AMOUNT_HEADER	8		/* bytes; the first two are the number of digits */

/* How far the rows have been read. */
typedef struct RowReader
{
	const char *start;
	const char *next;
	const char *end;
	const char *what;			/* is being read, for messages; NULL: nothing */
	int64		row;			/* counted from 1; 0 in the header */
} RowReader;

static void
row_context(void *arg)
{
	const RowReader *r = arg;

	if (r->what != NULL && r->row > 0)
		errcontext("%s of row %lld", r->what, (long long) r->row);
	else if (r->what != NULL)
		errcontext("%s of the rows", r->what);
}

/* Raise the error for bytes that no program that writes this format has written. */
#define damaged(r, ...) \
	ereport(ERROR, \
			(errcode(ERRCODE_BAD_COPY_FILE_FORMAT), \
			 errmsg("rows are damaged at byte %lld", (long long) ((r)->next - (r)->start)), \
			 errdetail(__VA_ARGS__), \
			 errhint("Send one value in the format of COPY BINARY, with its header and trailer.")))

/* Raise an error unless there are so many more bytes. */
static inline void
require(const RowReader *r, int64 bytes)
{
	if (unlikely(r->end - r->next < bytes))
		damaged(r, "The value ends there, but %lld more bytes are needed.", (long long) (bytes - (r->end - r->next)));
}

static inline int16
read_int16(RowReader *r)
{
	uint16		value;

	require(r, sizeof(value));
	memcpy(&value, r->next, sizeof(value));
	r->next += sizeof(value);
	return (int16) pg_ntoh16(value);
}

static inline int32
read_int32(RowReader *r)
{
	uint32		value;

	require(r, sizeof(value));
	memcpy(&value, r->next, sizeof(value));
	r->next += sizeof(value);
	return (int32) pg_ntoh32(value);
}

/* The length of a field, which lies as a whole before the end; NULL_LENGTH for NULL. */
static inline int32
read_length(RowReader *r, const char *what)
{
	int32		len;

	r->what = what;
	len = read_int32(r);
	if (unlikely(len < NULL_LENGTH))
		damaged(r, "A field cannot have %d bytes.", len);
	require(r, len);
	return len;
}

/* Read what is before the first row. */
static void
read_header(RowReader *r)
{
	int32		flags;
	int32		extension;

	r->what = "signature";
	if (r->end - r->next < (int64) sizeof(signature) || memcmp(r->next, signature, sizeof(signature)) != 0)
		damaged(r, "The signature of COPY BINARY is missing.");
	r->next += sizeof(signature);
	r->what = "header";
	flags = read_int32(r);
	if (flags & CRITICAL_FLAGS)
		damaged(r, "The flags 0x%08X are unknown.", (unsigned int) flags);
	extension = read_int32(r);
	if (extension < 0)
		damaged(r, "The header's extension cannot have %d bytes.", extension);
	require(r, extension);
	r->next += extension;
}

/*
 * Read a text. It stays where it is, unless the client's encoding isn't that of the
 * database: then it is converted, in the current memory context. NULL for NULL.
 */
static inline void
read_text(RowReader *r, const char *what, const char **bytes, int32 *len)
{
	int32		wire_len = read_length(r, what);

	if (wire_len == NULL_LENGTH)
	{
		*bytes = NULL;
		*len = 0;
		return;
	}
	*bytes = pg_client_to_server(r->next, wire_len);
	*len = *bytes == r->next ? wire_len : (int32) strlen(*bytes);
	r->next += wire_len;
}

static inline void
read_time(RowReader *r, RsinkEvent *event)
{
	int32		len = read_length(r, "event_time");
	uint64		value = 0;

	event->time_isnull = len == NULL_LENGTH;
	if (event->time_isnull)
	{
		event->event_time = 0;
		return;
	}
	if (unlikely(len != sizeof(value)))
		damaged(r, "A time has 8 bytes, not %d.", len);
	memcpy(&value, r->next, sizeof(value));
	r->next += sizeof(value);
	event->event_time = (TimestampTz) pg_ntoh64(value);
	if (unlikely(!TIMESTAMP_NOT_FINITE(event->event_time) && !IS_VALID_TIMESTAMP(event->event_time)))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
}

/* Read an amount, which is put into buf, or else into the current memory context. */
static inline Numeric
read_amount(RowReader *r, void *buf)
{
	int32		len = read_length(r, "amount");
	const char *wire = r->next;
	uint16		ndigits;
	Numeric		amount;
	StringInfoData field;

	if (len == NULL_LENGTH)
		return NULL;
	if (likely((amount = rsink_amount_receive(wire, len, buf)) != NULL))
	{
		r->next += len;
		return amount;
	}
	if (len < AMOUNT_HEADER)
		damaged(r, "An amount cannot have %d bytes.", len);
	memcpy(&ndigits, wire, sizeof(ndigits));
	if (len != AMOUNT_HEADER + pg_ntoh16(ndigits) * (int) sizeof(int16))
		damaged(r, "An amount of %d digits cannot have %d bytes.", pg_ntoh16(ndigits), len);
	initStringInfo(&field);
	appendBinaryStringInfo(&field, wire, len);
	r->next += len;
	return DatumGetNumeric(DirectFunctionCall3(numeric_recv, PointerGetDatum(&field),
											   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
}

/*
 * Read at most "most" events. Returns how many they are; fewer than that if no more
 * are there. "amounts" has RSINK_AMOUNT_BYTES for each event.
 */
static int
read_rows(RowReader *r, RsinkEvent *events, char *amounts, int most)
{
	int			n;

	for (n = 0; n < most; n++)
	{
		RsinkEvent *event = &events[n];
		int16		nfields;

		r->row++;
		r->what = "number of fields";
		nfields = read_int16(r);
		if (nfields == TRAILER)
		{
			r->row = 0;
			r->what = "end";
			if (r->next != r->end)
				damaged(r, "There are bytes behind the trailer.");
			break;
		}
		if (unlikely(nfields != NFIELDS && nfields != NFIELDS + 1))
			damaged(r, "An event has 4 or 5 fields, not %d.", nfields);
		read_text(r, "order_id", &event->order_id, &event->order_len);
		read_text(r, "event_id", &event->event_id, &event->event_len);
		read_time(r, event);
		event->amount = read_amount(r, amounts + (Size) n * RSINK_AMOUNT_BYTES);
		event->group_key = NULL;
		event->group_len = 0;
		if (nfields > NFIELDS)
			read_text(r, "group_key", &event->group_key, &event->group_len);
	}
	r->what = NULL;
	return n;
}

/*
 * apply_rows(sink, rows bytea)
 *
 * Does what apply() does with events that are rows of COPY BINARY: order_id and
 * event_id as text, event_time as timestamptz, amount as numeric and, if there is a
 * fifth field, group_key as text. Raises bad_copy_file_format, with the position, for
 * a value in another format, and the errors of the types' binary input.
 */
Datum
revenue_sink_apply_rows(PG_FUNCTION_ARGS)
{
	RsinkSink  *sink = rsink_apply_sink(fcinfo, "apply_rows()");
	RsinkCounts counts = {{0}};
	RowReader	r = {0};
	ErrorContextCallback callback;
	MemoryContext portion;
	RsinkApply *apply;
	RsinkEvent *events;
	char	   *amounts;
	bytea	   *rows;
	int			most;
	int			n;

	rsink_require_argument(fcinfo, 1, "rows");
	rows = PG_GETARG_BYTEA_PP(1);
	r.start = r.next = VARDATA_ANY(rows);
	r.end = r.start + VARSIZE_ANY_EXHDR(rows);

	callback.callback = row_context;
	callback.arg = &r;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	read_header(&r);
	most = (int) Min(RSINK_PORTION_MAX, (r.end - r.next) / ROW_MIN + 1);
	apply = rsink_apply_begin(sink, false);
	events = palloc(most * sizeof(RsinkEvent));
	amounts = palloc((Size) most * RSINK_AMOUNT_BYTES);
	portion = AllocSetContextCreate(CurrentMemoryContext, "revenue_sink rows", ALLOCSET_DEFAULT_SIZES);
	do
	{
		MemoryContext old = MemoryContextSwitchTo(portion);

		n = read_rows(&r, events, amounts, most);
		MemoryContextSwitchTo(old);
		if (n > 0)
			rsink_apply_events(apply, events, n);
		MemoryContextReset(portion);
	} while (n == most);
	rsink_apply_end(apply, &counts);
	error_context_stack = callback.previous;
	return rsink_counts_record(fcinfo, &counts);
}
