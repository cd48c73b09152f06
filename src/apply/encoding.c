/*-------------------------------------------------------------------------
 *
 * encoding.c
 *	  The bytes of text that are hashed, equal on each server that holds a sink.
 *
 * A restore converts text to the encoding of the new database, but can't convert
 * the hashes of text. So the sink catalog says in which encoding a sink hashes
 * text: a new sink in UTF8, a sink of version 1.0 in the encoding of the database
 * in which it was made. In a database of another encoding text is converted before
 * it is hashed. Where not every text can be converted, the sink can't be used.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_conversion.h"
#include "catalog/pg_namespace.h"
#include "mb/pg_wchar.h"

#include "apply/encoding.h"
#include "apply/event.h"
#include "apply/fingerprint.h"
#include "core/compat.h"
#include "sink/sink.h"

/*
 * The name of the encoding in which a new sink of this database hashes text. In an
 * SQL_ASCII database nobody knows the encoding of text, so its bytes are hashed.
 */
const char *
rsink_encoding_of_new_sinks(void)
{
	return pg_encoding_to_char(GetDatabaseEncoding() == PG_SQL_ASCII ? PG_SQL_ASCII : PG_UTF8);
}

/*
 * Set the encoding in which a sink hashes text, and the conversion to that encoding.
 * Returns false if this database's text can't be converted: only UTF8 has the
 * characters of all other encodings. The conversion is PostgreSQL's own, whatever
 * other conversions are in the search_path.
 */
bool
rsink_encoding_set(RsinkSink *sink, const char *name)
{
	sink->encoding = pg_char_to_encoding(name);
	sink->conversion = InvalidOid;
	if (sink->encoding == GetDatabaseEncoding())
		return true;
	if (sink->encoding != PG_UTF8 || GetDatabaseEncoding() == PG_SQL_ASCII)
		return false;
	sink->conversion = FindDefaultConversion(PG_CATALOG_NAMESPACE, GetDatabaseEncoding(), PG_UTF8);
	return OidIsValid(sink->conversion);
}

static bool
is_ascii(const char *text, int32 len)
{
	for (int i = 0; i < len; i++)
		if (IS_HIGHBIT_SET(text[i]))
			return false;
	return true;
}

/*
 * The bytes of a text that are hashed. *len is the length of the text in bytes, and
 * becomes that of the result. Returns NULL if a character can't be converted. The
 * result is the text itself, or allocated in the current memory context. A text
 * that is too long for an id in any encoding is returned as it is.
 */
const char *
rsink_hashed_text(const RsinkSink *sink, const char *text, int32 *len)
{
	int			size;
	char	   *converted;

	if (likely(!OidIsValid(sink->conversion)) ||
		*len > RSINK_ID_MAX * MAX_CONVERSION_GROWTH || is_ascii(text, *len))
		return text;
	size = *len * MAX_CONVERSION_GROWTH + 1;
	converted = palloc(size);
	if (pg_do_encoding_conversion_buf(sink->conversion, GetDatabaseEncoding(), sink->encoding,
									  (unsigned char *) text, *len,
									  (unsigned char *) converted, size, true) != *len)
		return NULL;
	*len = (int32) strlen(converted);
	return converted;
}

/* Compute the identity of an event. Returns false if no event can have such ids. */
bool
rsink_event_identity(const RsinkSink *sink, const text *order_id, const text *event_id, RsinkFingerprint *fp)
{
	int32		order_len = VARSIZE_ANY_EXHDR(order_id);
	int32		event_len = VARSIZE_ANY_EXHDR(event_id);
	const char *order = rsink_hashed_text(sink, VARDATA_ANY(order_id), &order_len);
	const char *event = rsink_hashed_text(sink, VARDATA_ANY(event_id), &event_len);

	if (order == NULL || event == NULL || order_len > RSINK_ID_MAX || event_len > RSINK_ID_MAX)
		return false;
	rsink_fingerprint_id(sink->key, order, order_len, event, event_len, fp);
	return true;
}
