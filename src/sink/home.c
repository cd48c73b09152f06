/*-------------------------------------------------------------------------
 *
 * home.c
 *	  Where a sink is at home, and how it comes to be at home elsewhere.
 *
 * A sink's rows are spread over a dozen tables, and the sink works correctly only
 * if it has the rows of all of them. A restore brings the rows table by table, in
 * any order, and may leave tables out; a subscription brings them row by row, and
 * goes on bringing more. Merging or applying events in between would spoil the
 * sink. So a sink has a home, the database where it was made. The home is a type
 * revenue_sink.home_N, a member of the extension, which doesn't move with the
 * sink's rows. It moves with the files of the database (to a standby, a copied
 * database, a backup, through pg_upgrade), but a dump leaves out the members of an
 * extension, and logical replication copies tables only.
 *
 * Where a sink isn't at home it is asleep: neither the worker nor callers touch it.
 * The worker adopts the sink once it finds that the sink is whole, that is, once
 * all of this is there:
 *
 *	- The sink's tables and their indexes, and views that bear the sink's marks.
 *	- In each shared table, and in the sink's tables but the totals, the sink's
 *	  arrival row, which is there from the time that the sink was made. In the
 *	  page rows and the deltas it is a row of no events at -infinity; in the tables
 *	  of sealed slices it is a row of slice 0, which has no events; in
 *	  sink_state it is the sink's only row; in another shared table it is the row
 *	  whose sink_id is the negative number of the sink. One COPY brings either
 *	  all rows of a table or none, so the arrival row tells that the table's other
 *	  rows are there, too. Rows that came by single INSERTs (pg_dump --inserts)
 *	  have another xmin than the arrival row; then nobody can know whether all
 *	  rows have come.
 *	- As many events in the revenue as were seen or, in mode 'totals', as many
 *	  totals as sink_state says.
 *
 * While a subscription writes to a sink, the sink is a copy. The copy is whole as
 * soon as each table has been synchronized, and then becomes a sink at home when
 * the subscription is dropped. Before, the tables have the state of different
 * moments, and nothing in their rows shows that. So a trigger (see adopt.c) notes
 * with another type, copy_N, that a sink has come by a subscription. That type is
 * dropped when the copy is whole.
 *
 * adopt_sink() adopts a sink because its owner says so, and warns of rows that are
 * missing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_subscription_rel.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/spi_util.h"
#include "sink/choice.h"
#include "sink/home.h"
#include "sink/relations.h"
#include "sink/sink.h"

/* The tables with rows of all sinks, which have a column sink_id. */
const char *const rsink_shared_tables[RSINK_NSHARED_TABLES] = {
	"sink_state", "deferred_event", "settled_event", "dead_letter_event", "resolved_event", "epoch", "ledger",
	"committed_offset", "decision"
};

/*
 * The type that notes something about a sink; "kind" is "home" or "copy". Returns
 * InvalidOid if there is none.
 */
static Oid
type_of(const char *kind, int32 id)
{
	char		name[NAMEDATALEN];

	snprintf(name, sizeof(name), "%s_%d", kind, id);
	return GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid, CStringGetDatum(name),
						   ObjectIdGetDatum(get_namespace_oid(RSINK_SCHEMA, false)));
}

/*
 * Is there such a type that is a member of the extension? One that isn't a member
 * has come by a dump, and notes nothing about this database.
 */
static bool
has_type(const char *kind, int32 id)
{
	Oid			type = type_of(kind, id);

	return OidIsValid(type) &&
		getExtensionOfObject(TypeRelationId, type) == get_extension_oid("revenue_sink", true);
}

/* Create such a type, or make it a member of the extension. */
static void
create_type(const char *kind, int32 id, const char *comment)
{
	if (has_type(kind, id))
		return;
	if (!OidIsValid(type_of(kind, id)))
		rsink_spi(SPI_OK_UTILITY, "CREATE TYPE revenue_sink.%s_%d AS ()", kind, id);
	rsink_spi(SPI_OK_UTILITY, "COMMENT ON TYPE revenue_sink.%s_%d IS %s", kind, id, quote_literal_cstr(comment));
	rsink_spi(SPI_OK_UTILITY, "ALTER EXTENSION revenue_sink ADD TYPE revenue_sink.%s_%d", kind, id);
}

/* Drop such a type if there is one. */
static void
drop_type(const char *kind, int32 id)
{
	if (has_type(kind, id))
		rsink_spi(SPI_OK_UTILITY, "ALTER EXTENSION revenue_sink DROP TYPE revenue_sink.%s_%d", kind, id);
	if (OidIsValid(type_of(kind, id)))
		rsink_spi(SPI_OK_UTILITY, "DROP TYPE revenue_sink.%s_%d", kind, id);
}

/* Is this database the home of the sink with this number? */
bool
rsink_is_at_home(int32 id)
{
	return has_type("home", id);
}

/*
 * Is it noted that a subscription has brought the sink with this number, and that
 * nobody has yet seen the whole of it?
 */
bool
rsink_is_copy(int32 id)
{
	return has_type("copy", id);
}

/*
 * Make the current database the home of a sink, which is given by its number and
 * its name. Caller is connected by rsink_spi_begin().
 */
void
rsink_home_create(int32 id, const char *sink)
{
	create_type("home", id, psprintf("sink %s is at home in this database", sink));
	/* says nothing of rows that a restore has brought */
	rsink_spi(SPI_OK_DELETE, "DELETE FROM revenue_sink.letter_count WHERE sink_id = %d", id);
	rsink_shared_unload(rsink_table_of(id, "seen"));
	drop_type("copy", id);
}

/*
 * Drop the home of a sink, and the note that the sink is a copy. Caller is connected
 * by rsink_spi_begin().
 */
void
rsink_home_drop(int32 id)
{
	drop_type("home", id);
	drop_type("copy", id);
}

/*
 * Note that a sink is a copy that may not be whole, and drop its home. Caller is
 * connected by rsink_spi_begin().
 */
void
rsink_note_copy(int32 id, const char *sink)
{
	drop_type("home", id);
	create_type("copy", id, psprintf("sink %s is a copy that may not be whole yet", sink));
}

/*
 * A subscription that writes to this relation, or InvalidOid. *ready is true if one
 * has synchronized the relation.
 */
static Oid
subscription_of_relation(Oid relid, bool *ready)
{
	CatCList   *list = SearchSysCacheList1(SUBSCRIPTIONRELMAP, ObjectIdGetDatum(relid));
	Oid			subscription = InvalidOid;

	*ready = false;
	for (int i = 0; i < list->n_members; i++)
	{
		Form_pg_subscription_rel form = (Form_pg_subscription_rel) GETSTRUCT(&list->members[i]->tuple);

		subscription = form->srsubid;
		*ready |= form->srsubstate == SUBREL_STATE_READY;
	}
	ReleaseSysCacheList(list);
	return subscription;
}

/* A subscription that writes to one of the sink's own tables, or InvalidOid. */
Oid
rsink_subscription_of(const RsinkSink *sink)
{
	Oid			subscription = InvalidOid;
	bool		ready;

	for (int i = 0; i < RSINK_NOWN_TABLES && !OidIsValid(subscription); i++)
	{
		Oid			relid = rsink_table_of(sink->id, rsink_own_tables[i]);

		if (OidIsValid(relid))
			subscription = subscription_of_relation(relid, &ready);
	}
	return subscription;
}

/*
 * Has a subscription synchronized all tables of the sink, its own and the shared
 * ones, so that they all have the state of one commit?
 */
bool
rsink_is_synchronized(const RsinkSink *sink)
{
	bool		ready;

	for (int i = 0; i < RSINK_NOWN_TABLES; i++)
	{
		Oid			relid = rsink_table_of(sink->id, rsink_own_tables[i]);

		if (!OidIsValid(relid) || !OidIsValid(subscription_of_relation(relid, &ready)) || !ready)
			return false;
	}
	for (int i = 0; i < RSINK_NSHARED_TABLES; i++)
		if (!OidIsValid(subscription_of_relation(rsink_catalog_relid(rsink_shared_tables[i]), &ready)) ||
			!ready)
			return false;
	return true;
}

/*
 * The condition, in SQL, for the arrival row of a sink. "table" is a kind of the
 * sink's own tables or the name of a shared table.
 */
static char *
arrival_condition(const char *table, int32 id)
{
	if (strcmp(table, "seen") == 0)
		return "newest = '-infinity'";
	if (strcmp(table, "delta") == 0)
		return "minute = '-infinity'";
	if (strcmp(table, "slice") == 0 || strcmp(table, "sealed") == 0 || strcmp(table, "filter") == 0)
		return "slice = 0";
	if (strcmp(table, "sink_state") == 0)
		return psprintf("sink_id = %d", id);
	return psprintf("sink_id = -%d", id);
}

/* The name of such a table, without the schema. */
static char *
table_name(const char *table, int32 id)
{
	for (int i = 0; i < RSINK_NOWN_TABLES; i++)
		if (strcmp(table, rsink_own_tables[i]) == 0)
			return psprintf("%s_%d", table, id);
	return pstrdup(table);
}

/* Does the table have its arrival row? */
static bool
has_arrived(const char *table, int32 id)
{
	return rsink_spi(SPI_OK_SELECT, "SELECT FROM revenue_sink.%s WHERE %s LIMIT 1",
					 table_name(table, id), arrival_condition(table, id)) > 0;
}

/* Insert the arrival row into a table that has none. */
static void
insert_arrival_row(const char *table, int32 id, const char *values)
{
	if (!has_arrived(table, id))
		rsink_spi(SPI_OK_INSERT, "INSERT INTO revenue_sink.%s VALUES (%s)",
				  table_name(table, id), values);
}

/*
 * Insert the arrival rows of a sink into those of its tables that have none. Caller
 * is connected by rsink_spi_begin().
 */
void
rsink_insert_arrival_rows(int32 id, bool totals)
{
	insert_arrival_row("sink_state", id, psprintf("%d, NULL, NULL, 0, 0, NULL, 0, 0, 0, 0", id));
	insert_arrival_row("deferred_event", id, psprintf("-%d, '', '', '-infinity', 0, '', now()", id));
	insert_arrival_row("settled_event", id, psprintf("-%d, '', '', '', now()", id));
	insert_arrival_row("dead_letter_event", id,
					   psprintf("-%d, '', '', NULL, NULL, NULL, NULL, NULL, now()", id));
	insert_arrival_row("resolved_event", id, psprintf("-%d, '', '', '', NULL, NULL, '', now(), '', NULL", id));
	insert_arrival_row("epoch", id, psprintf("-%d, '', NULL, 0, now(), NULL", id));
	insert_arrival_row("ledger", id, psprintf("-%d, '', '', 0, 0, 0, 0, NULL, now()", id));
	insert_arrival_row("committed_offset", id, psprintf("-%d, '', 0, 0, 0, 0, 0", id));
	insert_arrival_row("decision", id, psprintf("-%d, '', '', 0, 0, '0', false, now()", id));
	insert_arrival_row("seen", id, "'-infinity', '-infinity', 0, ''");
	insert_arrival_row("slice", id, "0, 0, '-infinity', 0, 0, NULL");
	insert_arrival_row("sealed", id, "0, 0, 0, ''");
	insert_arrival_row("filter", id, "0, 0, ''");

	/* the group key of this row is a secret; see may_ask() in fact.c */
	insert_arrival_row("delta", id, totals ? "'-infinity', gen_random_uuid()::text, 0, NULL, 0, 0, 0" :
					   "'-infinity', gen_random_uuid()::text, 0, 0");
}

/*
 * Which table or index the sink lacks, or with "views" also which view, as a
 * sentence without a full stop; NULL if it lacks none. Caller is connected by
 * rsink_spi_begin().
 */
char *
rsink_missing_relation(const RsinkSink *sink, bool views)
{
	static const struct
	{
		const char *kind;
		const char *columns;
	}			indexes[] = {
		{"seen", "oldest"}, {"seen", "newest"}, {"slice", "slice"},
		{"sealed", "slice"}, {"filter", "slice"}, {"delta", "minute"}, {"total", "minute"}
	};

	for (int i = 0; i < RSINK_NOWN_TABLES; i++)
		if (!OidIsValid(rsink_table_of(sink->id, rsink_own_tables[i])))
			return psprintf("table \"revenue_sink.%s_%d\" is missing", rsink_own_tables[i], sink->id);
	for (int i = 0; i < lengthof(indexes); i++)
		if (rsink_spi(SPI_OK_SELECT,
					  "SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid "
					  "  AND a.attnum = i.indkey[0] WHERE i.indrelid = %u AND i.indisvalid AND a.attname = '%s' "
					  "  AND (i.indisprimary OR '%s' <> 'total')",
					  rsink_table_of(sink->id, indexes[i].kind), indexes[i].columns, indexes[i].kind) == 0)
			return psprintf("table \"revenue_sink.%s_%d\" has no index on its column \"%s\"",
							indexes[i].kind, sink->id, indexes[i].columns);
	if (!views)
		return NULL;
	if (!OidIsValid(rsink_find_view(sink->id, RSINK_FACT)))
		return "no fact view has the triggers of the sink";
	if (!OidIsValid(rsink_find_view(sink->id, RSINK_INGEST)))
		return "no ingest view has the triggers of the sink";
	return NULL;
}

static char *
one_by_one(const char *table)
{
	return psprintf("the rows of table \"revenue_sink.%s\" came one by one, so it is not known whether all have come", table);
}

/*
 * Which table's rows haven't all come, as a sentence without a full stop; NULL if
 * all have. "streamed" is true if a subscription has brought them row by row and has
 * synchronized the tables.
 */
static char *
missing_table(const RsinkSink *sink, bool streamed)
{
	const char *tables[RSINK_NSHARED_TABLES + 5] = {"seen", "delta", "slice", "sealed", "filter"};
	const int	nown = 5;
	int			n = nown;

	for (int i = 0; i < RSINK_NSHARED_TABLES; i++)
		tables[n++] = rsink_shared_tables[i];
	for (int i = 0; i < n; i++)
		if (!has_arrived(tables[i], sink->id))
			return psprintf("the rows of table \"revenue_sink.%s\" have not arrived",
							table_name(tables[i], sink->id));
	for (int i = 0; i < n && !streamed; i++)
	{
		char	   *name = table_name(tables[i], sink->id);
		char	   *others = i < nown ? "true" : psprintf("sink_id IN (%d, -%d)", sink->id, sink->id);

		if (rsink_spi(SPI_OK_SELECT,
					  "SELECT FROM revenue_sink.%s WHERE %s AND xmin <> "
					  "  (SELECT xmin FROM revenue_sink.%s WHERE %s LIMIT 1) LIMIT 1",
					  name, others, name, arrival_condition(tables[i], sink->id)) > 0)
			return one_by_one(name);
	}
	if (!streamed &&
		rsink_spi(SPI_OK_SELECT, "SELECT FROM revenue_sink.total_%d WHERE xmin <> "
				  "  (SELECT xmin FROM revenue_sink.total_%d LIMIT 1) LIMIT 1", sink->id, sink->id) > 0)
		return one_by_one(table_name("total", sink->id));
	return NULL;
}

/*
 * The condition, in SQL, for the totals of which sink_state says how many there are: in
 * mode 'totals' all of them, in mode 'events' imported ones of which it is not known
 * how many events they have.
 */
const char *
rsink_noted_totals(RsinkMode mode)
{
	return mode == RSINK_TOTALS ? "true" : "uncounted";
}

/*
 * How many totals of a sink are missing, or too many, according to sink_state, as a
 * sentence without a full stop; NULL if none are. Caller is connected by
 * rsink_spi_begin().
 */
char *
rsink_missing_totals(const RsinkSink *sink)
{
	int64		there;
	int64		noted;

	rsink_spi(SPI_OK_SELECT, "SELECT (SELECT count(*) FROM revenue_sink.total_%d WHERE %s), "
			  "(SELECT totals FROM revenue_sink.sink_state WHERE sink_id = %d)",
			  sink->id, rsink_noted_totals(sink->mode), sink->id);
	there = rsink_spi_int64(0, 1, 0);
	noted = rsink_spi_int64(0, 2, 0);
	if (there == noted)
		return NULL;
	return psprintf(sink->mode == RSINK_TOTALS ? INT64_FORMAT " totals were merged, but " INT64_FORMAT " are there" :
					INT64_FORMAT " totals were imported without a number of events, but " INT64_FORMAT " are there",
					noted, there);
}

/*
 * Count the events of a sink in the current snapshot: *counted by its revenue, removed
 * buckets included, and *seen by its page rows and slices, expired events included.
 * What was imported as seen doesn't count there; the events of imported totals do, as
 * far as their number is known. In a sink that is whole the two are equal. Caller is
 * connected by rsink_spi_begin().
 */
void
rsink_balance(int32 id, int64 *counted, int64 *seen)
{
	rsink_spi(SPI_OK_SELECT,
			  "SELECT coalesce((SELECT sum(events) FROM revenue_sink.total_%d), 0)::bigint "
			  "  + coalesce((SELECT sum(events) FROM revenue_sink.delta_%d), 0)::bigint "
			  "  + coalesce((SELECT removed FROM revenue_sink.sink_state WHERE sink_id = %d), 0), "
			  "  coalesce((SELECT sum(events) FROM revenue_sink.seen_%d), 0)::bigint "
			  "  + coalesce((SELECT sum(events) FROM revenue_sink.slice_%d), 0)::bigint "
			  "  + coalesce((SELECT expired - imported_seen + imported_events FROM revenue_sink.sink_state WHERE sink_id = %d), 0)",
			  id, id, id, id, id, id);
	*counted = rsink_spi_int64(0, 1, 0);
	*seen = rsink_spi_int64(0, 2, 0);
}

/* How the sink's tables contradict each other, or NULL if they don't. */
static char *
contradiction(const RsinkSink *sink)
{
	char	   *missing = rsink_missing_totals(sink);
	int64		counted;
	int64		seen;

	if (missing != NULL || sink->mode == RSINK_TOTALS)
		return missing;
	rsink_balance(sink->id, &counted, &seen);
	return counted == seen ? NULL :
		psprintf("revenue counts " INT64_FORMAT " events, but " INT64_FORMAT " were seen", counted, seen);
}

/*
 * Which rows a sink lacks that a restore or a subscription has brought here, as a
 * sentence without a full stop; NULL if it lacks none. "streamed" is true if a
 * subscription has synchronized the tables. Caller is connected by rsink_spi_begin().
 */
char *
rsink_missing_rows(const RsinkSink *sink, bool streamed)
{
	bool		is_copy = rsink_is_copy(sink->id);
	char	   *missing = missing_table(sink, streamed || is_copy);

	if (missing == NULL)
		missing = contradiction(sink);
	if (missing == NULL && is_copy && !streamed)
		missing = "the sink came by a subscription that may not have synchronized all tables";
	return missing;
}

/*
 * Which relation or which rows a sink lacks that a restore or a subscription has
 * brought here, as a sentence without a full stop in the current memory context;
 * NULL if the sink is whole. "streamed" is true if a subscription has synchronized
 * the tables. Reads all of the sink's tables unless it finds something missing.
 * Connects to SPI by itself.
 */
char *
rsink_home_missing(const RsinkSink *sink, bool streamed)
{
	MemoryContext context = CurrentMemoryContext;
	char	   *missing;
	RsinkSpi	spi;

	rsink_spi_begin(&spi);
	missing = rsink_missing_relation(sink, true);
	if (missing == NULL && sink->encoding < 0)
		missing = "the sink comes from version 1.0, which does not record whether a sink is whole";
	if (missing == NULL)
		missing = rsink_missing_rows(sink, streamed);
	if (missing != NULL)
		missing = MemoryContextStrdup(context, missing);
	rsink_spi_end(&spi);
	return missing;
}
