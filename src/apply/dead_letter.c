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
#include "apply/resolution.h"
#include "core/catalog.h"
#include "core/compat.h"
#include "sink/sink.h"

StaticAssertDecl(crypto_shorthash_siphashx24_BYTES == RSINK_IDENTITY_BYTES,
				 "the identity in a letter is a SipHash of 128 bits");
StaticAssertDecl(crypto_shorthash_siphash24_BYTES == RSINK_COPY_BYTES - RSINK_IDENTITY_BYTES &&
				 crypto_shorthash_siphash24_BYTES == RSINK_LETTER_BYTES - RSINK_COPY_BYTES,
				 "what follows the identity in a letter are two SipHashes of 64 bits");

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
 * Write the letter of an event and a reason, which names a dead letter within its
 * sink: three keyed hashes, of both ids, of the other columns, and of the reason. So
 * the dead letters of one event have letters that begin alike. Ids that are bad name
 * no event: then the first hash is half one of the ids and half one of the other columns.
 * "buf" is used for work.
 *
 * Whoever may read dead letters sees these hashes. So they are no fingerprints of seen
 * events (see fingerprint.c), by whose bits an index is laid out.
 */
void
rsink_letter(const RsinkSink *sink, const RsinkEvent *event, const char *reason,
			 StringInfo buf, unsigned char *letter)
{
	int32		lens[2] = {0};
	int32		group_len;

	resetStringInfo(buf);
	appendBinaryStringInfo(buf, (char *) lens, sizeof(lens));
	lens[0] = append_hashed(buf, sink, event->order_id, event->order_len);
	lens[1] = append_hashed(buf, sink, event->event_id, event->event_len);
	memcpy(buf->data, lens, sizeof(lens));
	crypto_shorthash_siphashx24(letter, (unsigned char *) buf->data, buf->len, sink->key);

	resetStringInfo(buf);
	appendBinaryStringInfo(buf, (char *) &group_len, sizeof(group_len));
	appendBinaryStringInfo(buf, (char *) &event->time_isnull, sizeof(bool));
	if (!event->time_isnull)
		appendBinaryStringInfo(buf, (const char *) &event->event_time, sizeof(TimestampTz));
	group_len = append_hashed(buf, sink, event->group_key ? event->group_key : "", event->group_len);
	memcpy(buf->data, &group_len, sizeof(group_len));
	if (event->amount)
		appendStringInfoString(buf, numeric_normalize(event->amount));
	crypto_shorthash_siphash24(letter + RSINK_IDENTITY_BYTES, (unsigned char *) buf->data, buf->len, sink->key);
	if (lens[0] <= 0 || lens[0] > RSINK_ID_MAX || lens[1] <= 0 || lens[1] > RSINK_ID_MAX)
		memcpy(letter + RSINK_IDS_BYTES, letter + RSINK_IDENTITY_BYTES, RSINK_IDENTITY_BYTES - RSINK_IDS_BYTES);
	crypto_shorthash_siphash24(letter + RSINK_COPY_BYTES, (const unsigned char *) reason, strlen(reason), sink->key);
}

/* The first n bytes of a letter, as a bytea in the current memory context. */
bytea *
rsink_letter_bytea(const unsigned char *letter, int n)
{
	bytea	   *result = palloc(VARHDRSZ + n);

	SET_VARSIZE(result, VARHDRSZ + n);
	memcpy(VARDATA(result), letter, n);
	return result;
}

/* The first n bytes of a letter, as an SQL literal. */
char *
rsink_letter_literal(const unsigned char *letter, int n)
{
	char	   *hex = palloc0(2 * n + 3);

	hex[0] = '\\';
	hex[1] = 'x';
	hex_encode((const char *) letter, n, hex + 2);
	return psprintf("%s::bytea", quote_literal_cstr(hex));
}

/*
 * Find the dead letter with this letter in a table that the caller has open, and
 * return a copy of its row in the current memory context, or NULL. The snapshot is
 * SnapshotSelf, which also sees rows that this very command has inserted.
 */
HeapTuple
rsink_find_dead_letter(Relation rel, Oid index, int32 sink_id, const unsigned char *letter)
{
	bytea	   *value = rsink_letter_bytea(letter, RSINK_LETTER_BYTES);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&keys[0], Anum_dead_letter_sink_id, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(sink_id));
	ScanKeyInit(&keys[1], Anum_dead_letter_letter, BTEqualStrategyNumber, F_BYTEAEQ,
				PointerGetDatum(value));
	scan = systable_beginscan(rel, index, true, SnapshotSelf, 2, keys);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		tuple = heap_copytuple(tuple);
	systable_endscan(scan);
	pfree(value);
	return tuple;
}

/*
 * How many rows do the dead letters of the event have that a letter names, and is this
 * the reason of one of them? Like rsink_find_dead_letter().
 */
int64
rsink_dead_letters_of(Relation rel, Oid index, int32 sink_id, const unsigned char *letter,
					  const char *reason, bool *has_reason)
{
	bytea	   *first = rsink_letter_bytea(letter, RSINK_LETTER_BYTES);
	bytea	   *last = rsink_letter_bytea(letter, RSINK_LETTER_BYTES);
	int64		n = 0;
	ScanKeyData keys[3];
	SysScanDesc scan;
	HeapTuple	tuple;

	*has_reason = false;
	memset(VARDATA(first) + RSINK_IDENTITY_BYTES, 0, RSINK_LETTER_BYTES - RSINK_IDENTITY_BYTES);
	memset(VARDATA(last) + RSINK_IDENTITY_BYTES, 0xFF, RSINK_LETTER_BYTES - RSINK_IDENTITY_BYTES);
	ScanKeyInit(&keys[0], Anum_dead_letter_sink_id, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(sink_id));
	ScanKeyInit(&keys[1], Anum_dead_letter_letter, BTGreaterEqualStrategyNumber, F_BYTEAGE, PointerGetDatum(first));
	ScanKeyInit(&keys[2], Anum_dead_letter_letter, BTLessEqualStrategyNumber, F_BYTEALE, PointerGetDatum(last));
	scan = systable_beginscan(rel, index, true, SnapshotSelf, 3, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		Datum		datum = heap_getattr(tuple, Anum_dead_letter_reason, RelationGetDescr(rel), &isnull);

		n++;
		*has_reason |= strcmp(TextDatumGetCString(datum), reason) == 0;
	}
	systable_endscan(scan);
	pfree(first);
	pfree(last);
	return n;
}

/*
 * Note that there are n more dead letters that nobody has resolved, of which none has
 * arrived before "oldest"; or that there are fewer of them.
 */
void
rsink_note_letter_count(const RsinkSink *sink, int64 n, TimestampTz oldest)
{
	RsinkTable	table;
	Datum		values[Natts_letter_count] = {0};
	bool		nulls[Natts_letter_count] = {false};

	rsink_table_open_named(&table, "letter_count");
	values[Anum_letter_count_sink_id - 1] = Int32GetDatum(sink->id);
	values[Anum_letter_count_letters - 1] = Int64GetDatum(n);
	values[Anum_letter_count_oldest - 1] = TimestampTzGetDatum(oldest);
	nulls[Anum_letter_count_oldest - 1] = n < 0;
	nulls[Anum_letter_count_counted_at - 1] = true;
	rsink_table_insert_values(&table, values, nulls);
	rsink_table_close(&table);
}

/*
 * Has a person resolved this event? Then it gets the status of a copy of a resolved
 * event. Completes the letter.
 */
static bool
is_resolved(RsinkResolutions *resolutions, RsinkEvent *event, const char *reason,
			StringInfo buf, unsigned char *letter)
{
	RsinkResolution found;

	rsink_letter(resolutions->sink, event, reason, buf, letter);
	rsink_resolution_find(resolutions, letter, &found);
	if (found.resolved)
		event->status = rsink_resolved_status(&found, event->status);
	return found.resolved;
}

/*
 * Keep n events as dead letters, each with its reason, unless there is the same
 * dead letter already, or a person has resolved the event. Takes RowExclusiveLock on
 * dead_letter_event and letter_count, AccessShareLock on resolved_event. Two concurrent transactions may both insert the same dead letter;
 * the view dead_letter then shows one of the two rows, and the worker removes the
 * other one.
 */
void
rsink_keep_dead_letters(const RsinkSink *sink, RsinkEvent *const *events,
						const char *const *reasons, int n)
{
	RsinkTable	table;
	RsinkResolutions resolutions;
	Oid			index;
	StringInfoData buf;
	Datum		values[Natts_dead_letter];
	bool		nulls[Natts_dead_letter] = {false};
	TimestampTz now = GetCurrentTimestamp();
	int64		kept = 0;

	initStringInfo(&buf);
	rsink_table_open_named(&table, "dead_letter_event");
	rsink_resolutions_open(&resolutions, sink, false);
	index = rsink_table_index(table.rel, Anum_dead_letter_sink_id);
	values[Anum_dead_letter_sink_id - 1] = Int32GetDatum(sink->id);
	values[Anum_dead_letter_arrived_at - 1] = TimestampTzGetDatum(now);
	for (int i = 0; i < n; i++)
	{
		unsigned char letter[RSINK_LETTER_BYTES];

		if (is_resolved(&resolutions, events[i], reasons[i], &buf, letter))
			continue;
		if (rsink_find_dead_letter(table.rel, index, sink->id, letter) != NULL)
			continue;
		values[Anum_dead_letter_letter - 1] = PointerGetDatum(rsink_letter_bytea(letter, sizeof(letter)));
		values[Anum_dead_letter_reason - 1] = CStringGetTextDatum(reasons[i]);
		rsink_event_values(events[i], values + Anum_dead_letter_order_id - 1,
						   nulls + Anum_dead_letter_order_id - 1);
		rsink_table_insert_values(&table, values, nulls);
		kept++;
	}
	rsink_resolutions_close(&resolutions);
	rsink_table_close(&table);
	if (kept > 0)
		rsink_note_letter_count(sink, kept, now);
}
