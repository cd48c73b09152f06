/*-------------------------------------------------------------------------
 *
 * deferred.c
 *	  Events that wait for another transaction's end, and the dead letters.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sodium.h>

#include "access/genam.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/numeric.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "amount.h"
#include "catalog.h"
#include "compat.h"
#include "deferred.h"
#include "encoding.h"

#define DIGEST_BYTES crypto_shorthash_siphashx24_BYTES

static Datum
text_datum(const char *string, int len, bool *isnull)
{
	*isnull = string == NULL;
	return *isnull ? (Datum) 0 : PointerGetDatum(cstring_to_text_with_len(string, len));
}

/* The columns that a deferred event and a dead letter have in common. */
static void
event_values(const RsinkEvent *event, Datum *values, bool *nulls)
{
	values[0] = text_datum(event->order_id, event->order_len, &nulls[0]);
	values[1] = text_datum(event->event_id, event->event_len, &nulls[1]);
	values[2] = TimestampTzGetDatum(event->event_time);
	nulls[2] = event->time_isnull;
	values[3] = NumericGetDatum(event->amount);
	nulls[3] = event->amount == NULL;
	values[4] = text_datum(event->group_key ? event->group_key : "", event->group_len, &nulls[4]);
}

/*
 * Put whole events aside, into the open table deferred_event, in the current
 * transaction, until the transactions that claim the same events have ended.
 * merge() settles them.
 */
void
rsink_defer(const RsinkSink *sink, RsinkTable *table, RsinkEvent *const *events, int n)
{
	Datum		values[Natts_deferred];
	bool		nulls[Natts_deferred] = {false};

	values[Anum_deferred_sink_id - 1] = Int32GetDatum(sink->id);
	values[Anum_deferred_deferred_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	for (int i = 0; i < n; i++)
	{
		event_values(events[i], values + Anum_deferred_order_id - 1,
					 nulls + Anum_deferred_order_id - 1);
		rsink_table_insert_values(table, values, nulls);
	}
}

/* Append a text as it is hashed, and return its length; -1 for none. */
static int32
append_hashed(StringInfo buf, const RsinkSink *sink, const char *text, int32 len)
{
	const char *hashed;

	if (text == NULL)
		return -1;
	if ((hashed = rsink_hashed_text(sink, text, &len)) == NULL)
		hashed = text;
	appendBinaryStringInfo(buf, hashed, len);
	return len;
}

/* A digest of reason and whole event: what "the same dead letter" means. */
static bytea *
event_digest(const RsinkSink *sink, const RsinkEvent *event, const char *reason,
			 StringInfo buf)
{
	bytea	   *digest = palloc(VARHDRSZ + DIGEST_BYTES);
	int			at;
	int32		lens[3] = {0};

	resetStringInfo(buf);
	appendStringInfoString(buf, reason);
	at = buf->len;
	appendBinaryStringInfo(buf, (char *) lens, sizeof(lens));
	appendBinaryStringInfo(buf, (char *) &event->time_isnull, sizeof(bool));
	if (!event->time_isnull)
		appendBinaryStringInfo(buf, (const char *) &event->event_time, sizeof(TimestampTz));
	lens[0] = append_hashed(buf, sink, event->order_id, event->order_len);
	lens[1] = append_hashed(buf, sink, event->event_id, event->event_len);
	lens[2] = append_hashed(buf, sink, event->group_key ? event->group_key : "", event->group_len);
	memcpy(buf->data + at, lens, sizeof(lens));
	if (event->amount)
		appendStringInfoString(buf, numeric_normalize(event->amount));
	SET_VARSIZE(digest, VARHDRSZ + DIGEST_BYTES);
	crypto_shorthash_siphashx24((unsigned char *) VARDATA(digest),
								(unsigned char *) buf->data, buf->len, sink->key);
	return digest;
}

static bool
is_rejected(RsinkTable *table, Oid index, Snapshot snapshot, int32 sink_id, bytea *digest)
{
	ScanKeyData keys[2];
	SysScanDesc scan;
	bool		found;

	ScanKeyInit(&keys[0], Anum_letter_sink_id, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(sink_id));
	ScanKeyInit(&keys[1], Anum_letter_letter, BTEqualStrategyNumber, F_BYTEAEQ,
				PointerGetDatum(digest));
	scan = systable_beginscan(table->rel, index, true, snapshot, 2, keys);
	found = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	return found;
}

/*
 * Write events to the dead letters, each with its reason; one that is there
 * already isn't written again. (Transactions at the same time may both write
 * it; the view shows one, and the worker removes the other.)
 */
void
rsink_reject(const RsinkSink *sink, RsinkEvent *const *events,
			 const char *const *reasons, int n)
{
	RsinkTable	table;
	Oid			index;
	StringInfoData buf;
	Datum		values[Natts_letter];
	bool		nulls[Natts_letter] = {false};

	initStringInfo(&buf);
	rsink_table_open_named(&table, "dead_letter_event");
	index = rsink_table_index(table.rel, Anum_letter_sink_id);
	values[Anum_letter_sink_id - 1] = Int32GetDatum(sink->id);
	values[Anum_letter_arrived_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	for (int i = 0; i < n; i++)
	{
		bytea	   *digest = event_digest(sink, events[i], reasons[i], &buf);

		/* committed or our own, this very command's included */
		if (is_rejected(&table, index, SnapshotSelf, sink->id, digest))
			continue;
		values[Anum_letter_letter - 1] = PointerGetDatum(digest);
		values[Anum_letter_reason - 1] = CStringGetTextDatum(reasons[i]);
		event_values(events[i], values + Anum_letter_order_id - 1,
					 nulls + Anum_letter_order_id - 1);
		rsink_table_insert_values(&table, values, nulls);
	}
	rsink_table_close(&table);
}
