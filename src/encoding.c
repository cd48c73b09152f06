/*-------------------------------------------------------------------------
 *
 * encoding.c
 *	  Text as it is hashed: the same bytes on each server that holds a sink.
 *
 * A restore converts text to the encoding of the new database, but not the
 * hashes of it. So the sink catalog says in which encoding text is hashed: UTF8
 * in sinks that are made now, and that of the database in those of version 1.0.
 * A database of another encoding converts text before it hashes it. Where that
 * can't be done for all text, the sink can't be used there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_conversion.h"
#include "catalog/pg_namespace.h"
#include "mb/pg_wchar.h"

#include "compat.h"
#include "encoding.h"

/*
 * The encoding in which a sink that is made in this database hashes text.
 * SQL_ASCII means bytes of which nobody knows the encoding.
 */
const char *
rsink_encoding_of_new_sinks(void)
{
	return pg_encoding_to_char(GetDatabaseEncoding() == PG_SQL_ASCII ? PG_SQL_ASCII : PG_UTF8);
}

/*
 * Prepare a sink that hashes text in the encoding of this name. False: text of
 * this database can't be hashed so. Only UTF8 has all characters of the others.
 * PostgreSQL's own conversion is used, whatever the search_path has to offer.
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
 * The bytes of a text that are to be hashed, and in *len, which has its length,
 * theirs. NULL where a character can't be converted. The result is the text
 * itself, or allocated in the current memory context. What is too long in any
 * encoding stays as it is.
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
