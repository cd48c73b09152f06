/*-------------------------------------------------------------------------
 *
 * dead_letter.c
 *	  Dead letters: events that are kept aside for a person.
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

#include "apply/dead_letter.h"
#include "apply/encoding.h"
#include "apply/event.h"
#include "core/catalog.h"
#include "core/compat.h"
#include "sink/sink.h"

#define DIGEST_BYTES crypto_shorthash_siphashx24_BYTES

/* Append the bytes of a text that are hashed; return how many, or -1 for NULL. */
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

/*
 * A digest of the reason and the whole event. Two dead letters with equal digests
 * are the same dead letter.
 */
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

/* Does the snapshot see a dead letter with this digest? */
static bool
is_dead_letter(RsinkTable *table, Oid index, Snapshot snapshot, int32 sink_id, bytea *digest)
{
	ScanKeyData keys[2];
	SysScanDesc scan;
	bool		found;

	ScanKeyInit(&keys[0], Anum_dead_letter_sink_id, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(sink_id));
	ScanKeyInit(&keys[1], Anum_dead_letter_letter, BTEqualStrategyNumber, F_BYTEAEQ,
				PointerGetDatum(digest));
	scan = systable_beginscan(table->rel, index, true, snapshot, 2, keys);
	found = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	return found;
}

/*
 * Keep n events as dead letters, each with its reason, unless there is the same
 * dead letter already. Takes RowExclusiveLock on dead_letter_event. Two concurrent
 * transactions may both insert the same dead letter; the view dead_letter then
 * shows one of the two rows, and the worker removes the other one.
 */
void
rsink_keep_dead_letters(const RsinkSink *sink, RsinkEvent *const *events,
						const char *const *reasons, int n)
{
	RsinkTable	table;
	Oid			index;
	StringInfoData buf;
	Datum		values[Natts_dead_letter];
	bool		nulls[Natts_dead_letter] = {false};

	initStringInfo(&buf);
	rsink_table_open_named(&table, "dead_letter_event");
	index = rsink_table_index(table.rel, Anum_dead_letter_sink_id);
	values[Anum_dead_letter_sink_id - 1] = Int32GetDatum(sink->id);
	values[Anum_dead_letter_arrived_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	for (int i = 0; i < n; i++)
	{
		bytea	   *digest = event_digest(sink, events[i], reasons[i], &buf);

		/* SnapshotSelf also sees rows that this very command has inserted */
		if (is_dead_letter(&table, index, SnapshotSelf, sink->id, digest))
			continue;
		values[Anum_dead_letter_letter - 1] = PointerGetDatum(digest);
		values[Anum_dead_letter_reason - 1] = CStringGetTextDatum(reasons[i]);
		rsink_event_values(events[i], values + Anum_dead_letter_order_id - 1,
						   nulls + Anum_dead_letter_order_id - 1);
		rsink_table_insert_values(&table, values, nulls);
	}
	rsink_table_close(&table);
}
