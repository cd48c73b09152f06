/*-------------------------------------------------------------------------
 *
 * relations.c
 *	  A sink's views and tables: creating them, and recognizing them.
 *
 * The OID of a relation proves nothing, because after a restore another relation
 * may have it. A table belongs to a sink if it has the sink's number in its name, is
 * in the extension's schema, and is owned by the extension's owner or, after a
 * restore, by another superuser: nobody else can create tables in that schema. A
 * view is in a schema of the user's, and may be renamed, moved and given to another
 * owner. So the sink's views bear marks: triggers with the sink's number as their
 * argument, of a function for which only the extension's owner may create triggers.
 * A dump contains these triggers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/spi_util.h"
#include "sink/relations.h"

PG_FUNCTION_INFO_V1(revenue_sink_refuse_write);

/* The kinds of a sink's own tables; a table's name is its kind and the sink's number. */
const char *const rsink_own_tables[RSINK_NOWN_TABLES] = {
	"seen", "slice", "sealed", "filter", "delta", "total"
};

/*
 * Create the index by which the fact view finds the deltas of a bucket and group, if
 * the sink's table of deltas lacks it, and drop the BRIN index that version 1.0 made
 * instead. Caller is connected by rsink_spi_begin().
 */
void
rsink_index_deltas(int32 id)
{
	char	   *query = psprintf("SELECT quote_ident(c.relname), a.amname = 'brin' FROM pg_index i "
								 "  JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam "
								 "WHERE i.indrelid = 'revenue_sink.delta_%d'::regclass "
								 "ORDER BY a.amname = 'brin' DESC", id);
	bool		isnull;

	while (rsink_spi(SPI_OK_SELECT, "%s", query) > 0 &&
		   DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull)))
		rsink_spi(SPI_OK_UTILITY, "DROP INDEX revenue_sink.%s",
				  SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	if (SPI_processed == 0)
		rsink_spi(SPI_OK_UTILITY, "CREATE INDEX ON revenue_sink.delta_%d (minute, group_key)", id);
}

/*
 * Create the tables of the sealed slices of sink number id, unless they are there.
 * Caller is connected by rsink_spi_begin().
 */
void
rsink_create_sealed(int32 id)
{
	if (rsink_spi(SPI_OK_SELECT, "SELECT FROM pg_class WHERE oid = to_regclass('revenue_sink.sealed_%d')", id) > 0)
		return;
	rsink_spi(SPI_OK_UTILITY,
			  "CREATE TABLE revenue_sink.slice_%d (slice integer PRIMARY KEY, events bigint NOT NULL, "
			  "  newest timestamptz NOT NULL, rows integer NOT NULL, lines integer NOT NULL, own_newest timestamptz)", id);
	rsink_spi(SPI_OK_UTILITY,
			  "CREATE TABLE revenue_sink.sealed_%d (first bigint NOT NULL, slice integer NOT NULL, "
			  "  events integer NOT NULL, fingerprints bytea NOT NULL, PRIMARY KEY (slice, first)) "
			  "  WITH (fillfactor = 100, autovacuum_vacuum_insert_threshold = -1)", id);
	rsink_spi(SPI_OK_UTILITY,
			  "ALTER TABLE revenue_sink.sealed_%d ALTER COLUMN fingerprints SET STORAGE PLAIN", id);
	rsink_spi(SPI_OK_UTILITY,
			  "CREATE TABLE revenue_sink.filter_%d (slice integer NOT NULL, piece integer NOT NULL, "
			  "  lines bytea NOT NULL, PRIMARY KEY (slice, piece)) "
			  "  WITH (fillfactor = 100, autovacuum_vacuum_insert_threshold = -1)", id);
	rsink_spi(SPI_OK_UTILITY, "ALTER TABLE revenue_sink.filter_%d ALTER COLUMN lines SET STORAGE PLAIN", id);
}

/*
 * Drop the table in which version 1.0 kept a second time what had no place in memory, if
 * sink number id has it. The page rows have all of it. Caller is connected by
 * rsink_spi_begin().
 */
void
rsink_drop_spill(int32 id)
{
	if (rsink_spi(SPI_OK_SELECT, "SELECT FROM pg_class WHERE oid = to_regclass('revenue_sink.spill_%d')", id) > 0)
		rsink_spi(SPI_OK_UTILITY, "DROP TABLE revenue_sink.spill_%d", id);
}

/*
 * Add the column that tells of imported totals whether the number of their events is
 * unknown, unless it is there; the totals of version 1.0 lack it. Caller is connected
 * by rsink_spi_begin().
 */
void
rsink_add_uncounted(int32 id)
{
	if (rsink_spi(SPI_OK_SELECT,
				  "SELECT FROM pg_attribute WHERE attrelid = 'revenue_sink.total_%d'::regclass "
				  "  AND attname = 'uncounted' AND NOT attisdropped", id) == 0)
		rsink_spi(SPI_OK_UTILITY, "ALTER TABLE revenue_sink.total_%d ADD COLUMN uncounted boolean", id);
}

/*
 * Create the tables of sink number id, owned by the extension's owner, and grant to
 * the role "owner" SELECT on the tables that the sink's views read. Caller is
 * connected by rsink_spi_begin().
 */
void
rsink_create_tables(int32 id, bool totals, const char *owner)
{
	const char *quoted = quote_identifier(owner);

	rsink_spi(SPI_OK_UTILITY,
			  "CREATE TABLE revenue_sink.seen_%d (oldest timestamptz NOT NULL, newest timestamptz NOT NULL, "
			  "  events integer NOT NULL, fingerprints bytea NOT NULL) "
			  "  WITH (fillfactor = 100, autovacuum_vacuum_insert_threshold = -1)", id);
	rsink_spi(SPI_OK_UTILITY,
			  "ALTER TABLE revenue_sink.seen_%d ALTER COLUMN fingerprints SET STORAGE PLAIN", id);
	rsink_spi(SPI_OK_UTILITY, "CREATE INDEX ON revenue_sink.seen_%d (oldest)", id);
	rsink_spi(SPI_OK_UTILITY, "CREATE INDEX ON revenue_sink.seen_%d (newest)", id);
	rsink_create_sealed(id);
	for (int i = 0; i < 2; i++)
		rsink_spi(SPI_OK_UTILITY,
				  "CREATE TABLE revenue_sink.%s_%d (minute timestamptz NOT NULL, "
				  "  group_key text COLLATE \"C\" NOT NULL, revenue numeric NOT NULL, %s%s)",
				  i == 0 ? "delta" : "total", id,
				  totals ?
				  "version bigint, epoch bigint NOT NULL, number bigint NOT NULL, sequence bigint NOT NULL" :
				  "events bigint NOT NULL",
				  i == 0 ? "" : totals ? ", PRIMARY KEY (minute, group_key)" :
				  ", uncounted boolean, PRIMARY KEY (minute, group_key)");

	rsink_index_deltas(id);
	rsink_spi(SPI_OK_UTILITY,
			  "ALTER TABLE revenue_sink.delta_%d SET (autovacuum_vacuum_scale_factor = 0, "
			  "  autovacuum_vacuum_threshold = 1000)", id);
	rsink_spi(SPI_OK_UTILITY, "ALTER TABLE revenue_sink.delta_%d REPLICA IDENTITY FULL", id);
	rsink_spi(SPI_OK_UTILITY, "ALTER TABLE revenue_sink.seen_%d REPLICA IDENTITY FULL", id);
	rsink_spi(SPI_OK_UTILITY, "GRANT SELECT ON revenue_sink.delta_%d, revenue_sink.total_%d TO %s",
			  id, id, quoted);
	rsink_spi(SPI_OK_UTILITY, "GRANT SELECT ON revenue_sink.seen_%d TO %s", id, quoted);
}

/*
 * Create the ingest view of sink number id, as the current user. "name" is the
 * view's qualified and quoted name. Caller is connected to SPI.
 */
void
rsink_create_ingest(int32 id, bool totals, const char *name)
{
	if (totals)
		rsink_spi(SPI_OK_UTILITY,
				  "CREATE VIEW %s AS SELECT newest AS minute, NULL::text AS group_key, "
				  "  NULL::numeric AS revenue, NULL::bigint AS version "
				  "FROM revenue_sink.seen_%d LIMIT 0", name, id);
	else
		rsink_spi(SPI_OK_UTILITY,
				  "CREATE VIEW %s AS SELECT NULL::text AS order_id, NULL::text AS event_id, "
				  "  newest AS event_time, NULL::numeric AS amount, NULL::text AS group_key "
				  "FROM revenue_sink.seen_%d LIMIT 0", name, id);
}

/*
 * Comment on the views of a sink, as the current user. "fact" and "ingest" are their
 * qualified and quoted names. Caller is connected to SPI.
 */
void
rsink_comment_views(const char *sink, const char *fact, const char *ingest)
{
	rsink_spi(SPI_OK_UTILITY, "COMMENT ON VIEW %s IS %s", fact,
			  quote_literal_cstr(psprintf("revenue of sink %s", sink)));
	rsink_spi(SPI_OK_UTILITY, "COMMENT ON VIEW %s IS %s", ingest,
			  quote_literal_cstr(psprintf("INSERT and COPY into it write to sink %s", sink)));
}

/* The qualified and quoted name of a relation, or NULL if the relation is gone. */
char *
rsink_view_name(Oid relid)
{
	char	   *name = get_rel_name(relid);

	return name ? quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), name) : NULL;
}

/*
 * The function whose triggers mark a view of this kind; InvalidOid if the extension
 * isn't installed.
 */
static Oid
mark_function(RsinkView which)
{
	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
						   CStringGetDatum(which == RSINK_FACT ? "refuse_write" : "ingest"),
						   PointerGetDatum(buildoidvector(NULL, 0)),
						   ObjectIdGetDatum(get_namespace_oid(RSINK_SCHEMA, true)));
}

/*
 * Mark a view as a view of sink number id; marks that the view has are replaced.
 * Connects to SPI by itself. The extension's owner creates the triggers. If that
 * role isn't a superuser, the view's owner grants it TRIGGER on the view meanwhile.
 */
void
rsink_mark_view(int32 id, RsinkView which, Oid relid)
{
	const char *view = rsink_view_name(relid);
	Oid			extension_owner = rsink_relation_owner(rsink_catalog_relid("sink_catalog"));
	bool		lend = !superuser_arg(extension_owner);
	const char *maker = quote_identifier(GetUserNameFromId(extension_owner, false));
	RsinkSpi	spi;

	rsink_spi_begin_as(&spi, rsink_relation_owner(relid));
	if (lend)
		rsink_spi(SPI_OK_UTILITY, "GRANT TRIGGER ON %s TO %s", view, maker);
	while (rsink_spi(SPI_OK_SELECT, "SELECT quote_ident(tgname) FROM pg_trigger WHERE tgrelid = %u AND tgfoid = %u",
					 relid, mark_function(which)) > 0)
		rsink_spi(SPI_OK_UTILITY, "DROP TRIGGER %s ON %s",
				  SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1), view);
	rsink_spi_end(&spi);

	rsink_spi_begin(&spi);
	if (which == RSINK_FACT)
		rsink_spi(SPI_OK_UTILITY,
				  "CREATE TRIGGER revenue_sink_fact BEFORE INSERT OR UPDATE OR DELETE ON %s "
				  "FOR EACH STATEMENT EXECUTE FUNCTION revenue_sink.refuse_write('%d')", view, id);
	else
	{
		rsink_spi(SPI_OK_UTILITY,
				  "CREATE TRIGGER revenue_sink_row INSTEAD OF INSERT ON %s "
				  "FOR EACH ROW EXECUTE FUNCTION revenue_sink.ingest('%d')", view, id);
		rsink_spi(SPI_OK_UTILITY,
				  "CREATE TRIGGER revenue_sink_statement AFTER INSERT ON %s "
				  "FOR EACH STATEMENT EXECUTE FUNCTION revenue_sink.ingest('%d')", view, id);
	}
	rsink_spi_end(&spi);

	if (lend)
	{
		rsink_spi_begin_as(&spi, rsink_relation_owner(relid));
		rsink_spi(SPI_OK_UTILITY, "REVOKE TRIGGER ON %s FROM %s", view, maker);
		rsink_spi_end(&spi);
	}
}

/* Is the number of the sink the only argument of this trigger? */
static bool
has_argument(HeapTuple tuple, TupleDesc desc, int32 id)
{
	char		wanted[16];
	bool		isnull;
	Datum		datum = heap_getattr(tuple, Anum_pg_trigger_tgargs, desc, &isnull);
	bytea	   *arguments;

	if (isnull || ((Form_pg_trigger) GETSTRUCT(tuple))->tgnargs != 1)
		return false;
	arguments = DatumGetByteaPP(datum);
	snprintf(wanted, sizeof(wanted), "%d", id);
	return VARSIZE_ANY_EXHDR(arguments) == strlen(wanted) + 1 &&
		memcmp(VARDATA_ANY(arguments), wanted, strlen(wanted) + 1) == 0;
}

/*
 * Which of the triggers are there, a row trigger and a statement trigger, that mark
 * a view as a view of the sink with this number, or of any sink if the number is 0?
 * Reads the catalogs and takes no lock on the view.
 */
static void
find_marks(int32 id, RsinkView which, Oid relid, bool *of_row, bool *of_statement)
{
	Oid			function = mark_function(which);
	Relation	rel;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	*of_row = *of_statement = false;
	if (!OidIsValid(function) || !OidIsValid(relid) || get_rel_relkind(relid) != RELKIND_VIEW)
		return;
	rel = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, TriggerRelidNameIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger form = (Form_pg_trigger) GETSTRUCT(tuple);

		if (form->tgfoid != function || (id > 0 && !has_argument(tuple, RelationGetDescr(rel), id)))
			continue;
		if (TRIGGER_FOR_ROW(form->tgtype))
			*of_row = true;
		else
			*of_statement = true;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/*
 * Is this relation a view of this kind with the marks of the sink? Takes no lock on
 * the relation.
 */
bool
rsink_is_view_of(int32 id, RsinkView which, Oid relid)
{
	bool		of_row;
	bool		of_statement;

	find_marks(id, which, relid, &of_row, &of_statement);
	return of_statement && of_row == (which == RSINK_INGEST);
}

/* Is this relation the ingest view of any sink? Takes no lock on the relation. */
bool
rsink_is_ingest_view(Oid relid)
{
	bool		of_row;
	bool		of_statement;

	if (!OidIsValid(get_namespace_oid(RSINK_SCHEMA, true)))
		return false;
	find_marks(0, RSINK_INGEST, relid, &of_row, &of_statement);
	return of_row;
}

/*
 * Find the view of this kind that bears the marks of a sink; returns InvalidOid if
 * there is none. A restore beside a sink of the same number may leave several such
 * views; then the one with the lowest OID, mostly the oldest, is the sink's.
 */
Oid
rsink_find_view(int32 id, RsinkView which)
{
	Relation	depend = table_open(DependRelationId, AccessShareLock);
	Relation	triggers = table_open(TriggerRelationId, AccessShareLock);
	Oid			function = mark_function(which);
	Oid			found = InvalidOid;
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&keys[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(ProcedureRelationId));
	ScanKeyInit(&keys[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(function));
	scan = systable_beginscan(depend, DependReferenceIndexId, true, NULL, 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend form = (Form_pg_depend) GETSTRUCT(tuple);
		ScanKeyData key;
		SysScanDesc trigger_scan;
		HeapTuple	trigger;

		if (form->classid != TriggerRelationId)
			continue;
		ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ,
					ObjectIdGetDatum(form->objid));
		trigger_scan = systable_beginscan(triggers, TriggerOidIndexId, true, NULL, 1, &key);
		trigger = systable_getnext(trigger_scan);
		if (HeapTupleIsValid(trigger) && has_argument(trigger, RelationGetDescr(triggers), id))
		{
			Oid			relid = ((Form_pg_trigger) GETSTRUCT(trigger))->tgrelid;

			if ((!OidIsValid(found) || relid < found) && rsink_is_view_of(id, which, relid))
				found = relid;
		}
		systable_endscan(trigger_scan);
	}
	systable_endscan(scan);
	table_close(triggers, AccessShareLock);
	table_close(depend, AccessShareLock);
	return found;
}

/*
 * The sink's table of a kind, which is one of rsink_own_tables. Returns
 * InvalidOid if there is no such table, or it isn't a heap that belongs to the sink.
 */
Oid
rsink_table_of(int32 id, const char *kind)
{
	char		name[NAMEDATALEN];
	Oid			relid;
	HeapTuple	tuple;
	Form_pg_class form;
	bool		ours;

	snprintf(name, sizeof(name), "%s_%d", kind, id);
	relid = get_relname_relid(name, get_namespace_oid(RSINK_SCHEMA, false));
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	form = (Form_pg_class) GETSTRUCT(tuple);
	ours = form->relkind == RELKIND_RELATION && form->relam == HEAP_TABLE_AM_OID &&
		(form->relowner == rsink_relation_owner(rsink_catalog_relid("sink_catalog")) ||
		 superuser_arg(form->relowner));
	ReleaseSysCache(tuple);
	return ours ? relid : InvalidOid;
}

/*
 * refuse_write(), the trigger of fact views
 *
 * Always raises object_not_in_prerequisite_state.
 */
Datum
revenue_sink_refuse_write(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("revenue_sink.refuse_write() is a trigger for fact views")));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot write to the fact view \"%s\"", RelationGetRelationName(trigger->tg_relation)),
			 errhint("Send events to the sink's ingest view, or to revenue_sink.apply().")));
	return PointerGetDatum(NULL);	/* not reached */
}
