/*-------------------------------------------------------------------------
 *
 * problem.c
 *	  Finding out why a sink takes no events, and reporting it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_subscription.h"
#include "mb/pg_wchar.h"
#include "utils/lsyscache.h"

#include "apply/encoding.h"
#include "apply/fingerprint.h"
#include "core/compat.h"
#include "sink/home.h"
#include "sink/problem.h"
#include "sink/relations.h"
#include "sink/sink.h"

/*
 * Does this server compute the hashes that the sink's events have? "sample" is the
 * fingerprint of the sample event, as the server that made the sink has computed it.
 */
static bool
hashes_alike(RsinkSink *sink, const char *encoding, const bytea *sample)
{
	unsigned char ours[RSINK_FINGERPRINT_BYTES];

	rsink_fingerprint_sample(sink->key, ours);
	return rsink_encoding_set(sink, encoding) && VARSIZE_ANY_EXHDR(sample) == sizeof(ours) &&
		memcmp(VARDATA_ANY(sample), ours, sizeof(ours)) == 0;
}

/*
 * Raise object_not_in_prerequisite_state if the extension's tables are of an older
 * version than this library.
 */
void
rsink_require_tables(void)
{
	if (rsink_tables_are_old())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the tables of extension revenue_sink are of an older version than its library"),
				 errhint("Run ALTER EXTENSION revenue_sink UPDATE in this database.")));
}

/* The kind of a table that the sink lacks; NULL if it lacks none. */
static const char *
missing_table(const RsinkSink *sink)
{
	const Oid	tables[RSINK_NOWN_TABLES] = {
		sink->seen, sink->slice, sink->sealed, sink->filter, sink->delta, sink->total
	};

	for (int i = 0; i < RSINK_NOWN_TABLES; i++)
		if (!OidIsValid(tables[i]))
			return rsink_own_tables[i];
	return NULL;
}

/*
 * Find out what is wrong with a sink whose relations have been looked up, and set
 * its encoding, conversion and subscription. "encoding" and "sample" are those
 * columns of the sink's catalog row; both are NULL if the row comes from version 1.0.
 */
RsinkProblem
rsink_find_problem(RsinkSink *sink, const char *encoding, const bytea *sample)
{
	sink->encoding = -1;
	sink->conversion = InvalidOid;
	sink->subscription = rsink_subscription_of(sink);
	if (encoding != NULL && sample != NULL && !hashes_alike(sink, encoding, sample))
		return RSINK_FOREIGN;
	if (OidIsValid(sink->subscription))
		return RSINK_COPY;
	if (!rsink_is_at_home(sink->id))
		return RSINK_ASLEEP;
	if (!OidIsValid(sink->fact) || !OidIsValid(sink->ingest) || missing_table(sink) != NULL)
		return RSINK_BROKEN;
	return RSINK_READY;
}

/* Which relation of a broken sink is missing, as a sentence without a full stop. */
static char *
broken_relation(const RsinkSink *sink)
{
	const char *table = missing_table(sink);

	if (!OidIsValid(sink->fact) || !OidIsValid(sink->ingest))
		return pstrdup("a view of the sink is gone, or is not the one that was made for the sink");
	return psprintf("table \"revenue_sink.%s_%d\" is gone, or is not a heap that was made for the sink", table, sink->id);
}

/*
 * What is wrong with a sink, as a sentence without a full stop; NULL if nothing is.
 * Reads the tables of a sink that is asleep.
 */
char *
rsink_sink_problem(const RsinkSink *sink)
{
	char	   *missing;

	switch (sink->problem)
	{
		case RSINK_READY:
			return NULL;
		case RSINK_OLD:
			return "the extension's tables are of an older version than its library";
		case RSINK_BROKEN:
			return broken_relation(sink);
		case RSINK_FOREIGN:
			return sink->encoding == GetDatabaseEncoding() || OidIsValid(sink->conversion) ?
				pstrdup("this server hashes events in another way than the server that made the sink") :
				psprintf("the events of the sink are hashed in encoding %s, to which text in encoding %s cannot be converted",
						 sink->encoding < 0 ? "unknown" : pg_encoding_to_char(sink->encoding),
						 GetDatabaseEncodingName());
		case RSINK_COPY:
			return psprintf("the sink is a copy, written by subscription \"%s\"%s",
							get_subscription_name(sink->subscription, false),
							rsink_is_at_home(sink->id) ? "; the copy is whole" : "");
		case RSINK_ASLEEP:
			missing = rsink_home_missing(sink, false);
			return missing ? psprintf("the sink has not arrived whole: %s", missing) :
				"the sink has arrived whole, and waits for the worker to adopt it";
	}
	return NULL;
}

/* What the user can do about it. */
static const char *
problem_hint(const RsinkSink *sink)
{
	switch (sink->problem)
	{
		case RSINK_READY:
			break;
		case RSINK_OLD:
			return "Run ALTER EXTENSION revenue_sink UPDATE in this database.";
		case RSINK_BROKEN:
			return "If only triggers of a view are gone, the extension's owner can create them again with revenue_sink.adopt_sink(). Otherwise remove what is left of the sink with revenue_sink.drop_sink().";
		case RSINK_FOREIGN:
			return "Move the sink to a database with the encoding, and on a server with the byte order, that the sink comes from.";
		case RSINK_COPY:
			return "Write to the publisher. After DROP SUBSCRIPTION the copy becomes a sink of its own.";
		case RSINK_ASLEEP:
			return "Wait until the restore has ended. If nothing more will come, call revenue_sink.adopt_sink().";
	}
	return NULL;
}

/* Turn a problem into a sentence with a capital letter and a full stop, for DETAIL. */
char *
rsink_sentence(const char *problem)
{
	char	   *sentence = psprintf("%s.", problem);

	sentence[0] = (char) pg_toupper((unsigned char) sentence[0]);
	return sentence;
}

/*
 * Raise object_not_in_prerequisite_state, or undefined_table for a broken sink, with
 * the sink's problem as detail. Returns if the sink has none.
 */
void
rsink_raise_problem(const RsinkSink *sink)
{
	char	   *problem = rsink_sink_problem(sink);

	if (problem == NULL)
		return;
	ereport(ERROR,
			(errcode(sink->problem == RSINK_BROKEN ? ERRCODE_UNDEFINED_TABLE :
					 ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("sink \"%s\" cannot be used in this database", sink->name),
			 errdetail_internal("%s", rsink_sentence(problem)),
			 errhint("%s", problem_hint(sink))));
}
