/*-------------------------------------------------------------------------
 *
 * admin.c
 *	  The functions create_sink(), alter_sink() and drop_sink().
 *
 * A sink's views belong to the role that creates the sink, and are made with
 * that role's rights. The tables behind the views belong to the extension's
 * owner, so no other role can write fingerprints, deltas or the ledger except
 * through the extension's functions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sodium.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "api/admin.h"
#include "api/argument.h"
#include "apply/encoding.h"
#include "apply/fingerprint.h"
#include "core/catalog.h"
#include "core/compat.h"
#include "core/interval.h"
#include "core/lock.h"
#include "core/spi_util.h"
#include "revenue/fact.h"
#include "sink/choice.h"
#include "sink/home.h"
#include "sink/problem.h"
#include "sink/relations.h"
#include "sink/right.h"
#include "sink/sink.h"
#include "sink/slot.h"
#include "twophase/unpreparable.h"
#include "worker/launcher.h"

PG_FUNCTION_INFO_V1(revenue_sink_create_sink);
PG_FUNCTION_INFO_V1(revenue_sink_alter_sink);
PG_FUNCTION_INFO_V1(revenue_sink_drop_sink);

/* Raise invalid_parameter_value unless the argument's value is one of these two. */
static char *
text_argument(FunctionCallInfo fcinfo, int argno, const char *name)
{
	rsink_require_argument(fcinfo, argno, name);
	return text_to_cstring(PG_GETARG_TEXT_PP(argno));
}

/*
 * An interval argument as a quoted literal for SQL. Raises for NULL and for an
 * interval that is not a fixed length of time.
 */
static char *
interval_argument(FunctionCallInfo fcinfo, int argno, const char *name, bool may_be_zero)
{
	int64		usecs;

	rsink_require_argument(fcinfo, argno, name);
	usecs = rsink_interval_usecs(PG_GETARG_INTERVAL_P(argno), name);
	if (usecs == 0 && !may_be_zero)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be greater than zero", name)));
	return quote_literal_cstr(DatumGetCString(DirectFunctionCall1(interval_out,
																  PG_GETARG_DATUM(argno))));
}

/*
 * The name of a view to be made, quoted and qualified with the schema in which
 * it will be made. Raises duplicate_table if a relation has the name already.
 */
static char *
creation_name(FunctionCallInfo fcinfo, int argno, const char *name)
{
	text	   *value = (text_argument(fcinfo, argno, name), PG_GETARG_TEXT_PP(argno));
	RangeVar   *range = makeRangeVarFromNameList(textToQualifiedNameList(value));
	Oid			schema = RangeVarGetCreationNamespace(range);

	if (isAnyTempNamespace(schema))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("cannot create view \"%s\" in a temporary schema", range->relname),
				 errdetail("A sink outlives the session in which it is made."),
				 errhint("Name a permanent schema in the argument %s.", name)));
	if (get_relname_relid(range->relname, schema) != InvalidOid)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("relation \"%s\" already exists", range->relname),
				 errhint("Give the view another name with the argument %s.", name)));
	return quote_qualified_identifier(get_namespace_name(schema), range->relname);
}

/*
 * Choose the number of a new sink: one that no relation, type or row bears yet. A
 * restore that is still running may have brought a sink's tables or rows before
 * the sequence, so the sequence alone doesn't tell which numbers are in use.
 */
static int
new_sink_id(void)
{
	int			id;
	bool		taken = true;

	do
	{
		rsink_spi(SPI_OK_SELECT, "SELECT nextval('revenue_sink.sink_id')");
		id = (int) rsink_spi_int64(0, 1, 0);
		taken = rsink_spi(SPI_OK_SELECT,
						  "SELECT FROM pg_class WHERE relnamespace = 'revenue_sink'::regnamespace AND "
						  "relname ~ '^[a-z]+_%d$'", id) > 0 ||
			rsink_spi(SPI_OK_SELECT, "SELECT FROM revenue_sink.sink_catalog WHERE id = %d", id) > 0;
		for (int i = 0; i < RSINK_NSHARED_TABLES && !taken; i++)
			taken = rsink_spi(SPI_OK_SELECT, "SELECT FROM revenue_sink.%s WHERE sink_id IN (%d, -%d) LIMIT 1",
							  rsink_shared_tables[i], id, id) > 0;
	} while (taken);
	return id;
}

/*
 * Store the secret hash key in the catalog row of a new sink. This is done
 * without SQL, because the text of a statement gets into messages, logs and
 * statistics.
 */
static void
set_hash_key(int32 id, const unsigned char *key)
{
	Relation	rel = table_open(rsink_catalog_relid("sink_catalog"), RowExclusiveLock);
	AttrNumber	column = get_attnum(RelationGetRelid(rel), "hash_key");
	bytea	   *value = palloc(VARHDRSZ + RSINK_HASH_KEY_BYTES);
	Datum	   *values = palloc0(RelationGetNumberOfAttributes(rel) * sizeof(Datum));
	bool	   *nulls = palloc0(RelationGetNumberOfAttributes(rel) * sizeof(bool));
	bool	   *replace = palloc0(RelationGetNumberOfAttributes(rel) * sizeof(bool));
	ScanKeyData scan_key;
	SysScanDesc scan;
	HeapTuple	tuple;

	SET_VARSIZE(value, VARHDRSZ + RSINK_HASH_KEY_BYTES);
	memcpy(VARDATA(value), key, RSINK_HASH_KEY_BYTES);
	values[column - 1] = PointerGetDatum(value);
	replace[column - 1] = true;
	CommandCounterIncrement();
	ScanKeyInit(&scan_key, Anum_catalog_id, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(id));
	scan = systable_beginscan(rel, rsink_table_index(rel, Anum_catalog_id), true, SnapshotSelf, 1, &scan_key);
	if (!HeapTupleIsValid(tuple = systable_getnext(scan)))
		elog(ERROR, "the catalog row of the new sink is gone");
	tuple = heap_modify_tuple(tuple, RelationGetDescr(rel), values, nulls, replace);
	CatalogTupleUpdate(rel, &tuple->t_self, tuple);
	systable_endscan(scan);
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

/* The OID of the relation with this quoted and qualified name. */
static Oid
relation_named(const char *name)
{
	return RangeVarGetRelid(makeRangeVarFromNameList(textToQualifiedNameList(cstring_to_text(name))),
							NoLock, false);
}

/* Raise invalid_parameter_value for a retain that is shorter than dedup_window. */
static void
raise_short_retain(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("retain must not be shorter than dedup_window"),
			 errdetail("Events inside the dedup window still change the revenue of their buckets."),
			 errhint("Make retain longer or dedup_window shorter; retain => '0' in alter_sink() keeps everything.")));
}

/*
 * create_sink(sink, fact, ingest, bucket, dedup_window, max_future, mode,
 *			   late_policy, on_bad_event, retain)
 *
 * Creates a sink: its tables, its two views and its home in this database. Raises
 * duplicate_object or duplicate_table for names that are in use, and
 * invalid_parameter_value for settings that contradict each other.
 */
Datum
revenue_sink_create_sink(PG_FUNCTION_ARGS)
{
	char	   *sink = text_argument(fcinfo, 0, "sink");
	char	   *fact = creation_name(fcinfo, 1, "fact");
	char	   *ingest = creation_name(fcinfo, 2, "ingest");
	char	   *bucket = interval_argument(fcinfo, 3, "bucket", false);
	char	   *dedup_window = interval_argument(fcinfo, 4, "dedup_window", false);
	char	   *max_future = interval_argument(fcinfo, 5, "max_future", true);
	char	   *mode = text_argument(fcinfo, 6, "mode");
	char	   *late_policy = text_argument(fcinfo, 7, "late_policy");
	char	   *on_bad_event = text_argument(fcinfo, 8, "on_bad_event");
	char	   *retain = "NULL";
	char	   *owner = GetUserNameFromId(GetUserId(), false);
	unsigned char key[RSINK_HASH_KEY_BYTES];
	bool		totals;
	RsinkSpi	spi;
	int			id;

	rsink_require_preload();
	rsink_require_tables();
	PreventCommandIfReadOnly("create_sink()");
	if (!PG_ARGISNULL(9))
	{
		retain = interval_argument(fcinfo, 9, "retain", false);
		if (rsink_interval_usecs(PG_GETARG_INTERVAL_P(9), "retain") <
			rsink_interval_usecs(PG_GETARG_INTERVAL_P(4), "dedup_window"))
			raise_short_retain();
	}
	totals = rsink_choice("mode", rsink_mode_names, mode) == RSINK_TOTALS;
	(void) rsink_choice("late_policy", rsink_late_policy_names, late_policy);
	(void) rsink_choice("on_bad_event", rsink_bad_policy_names, on_bad_event);
	if (sink[0] == '\0' || strlen(sink) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("the name of a sink must have 1 to %d bytes", NAMEDATALEN - 1)));
	if (strcmp(fact, ingest) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("the fact view and the ingest view must have different names")));
	rsink_forbid_prepare("create_sink()");

	if (sodium_init() < 0)
		elog(ERROR, "libsodium cannot be initialized");
	randombytes_buf(key, sizeof(key));

	rsink_spi_begin(&spi);
	if (rsink_spi(SPI_OK_SELECT, "SELECT FROM revenue_sink.sink_catalog WHERE name = %s",
				  quote_literal_cstr(sink)) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("sink \"%s\" already exists", sink),
				 rsink_sink_find(sink)->problem == RSINK_BROKEN ?
				 errhint("Remove what is left of the sink with revenue_sink.drop_sink().") : 0));
	id = new_sink_id();
	rsink_create_tables(id, totals, owner);
	rsink_spi_end(&spi);

	rsink_spi_begin_as(&spi, GetUserId());
	rsink_create_fact(id, totals, fact);
	rsink_create_ingest(id, totals, ingest);
	rsink_comment_views(sink, fact, ingest);
	rsink_spi_end(&spi);
	rsink_mark_view(id, RSINK_FACT, relation_named(fact));
	rsink_mark_view(id, RSINK_INGEST, relation_named(ingest));

	rsink_spi_begin(&spi);
	rsink_spi(SPI_OK_INSERT,
			  "INSERT INTO revenue_sink.sink_catalog (id, name, mode, bucket, dedup_window, max_future, "
			  "  late_policy, on_bad_event, hash_key, encoding, sample, retain) "
			  "VALUES (%d, %s, '%s', %s, %s, %s, '%s', '%s', '', '%s', '\\x%s', %s)",
			  id, quote_literal_cstr(sink), mode, bucket, dedup_window, max_future,
			  late_policy, on_bad_event, rsink_encoding_of_new_sinks(), rsink_sample_hex(key), retain);
	set_hash_key(id, key);
	rsink_insert_arrival_rows(id, totals);
	rsink_home_create(id, sink);
	rsink_spi_end(&spi);
	rsink_sink_changed();
	rsink_worker_wanted();
	PG_RETURN_VOID();
}

/*
 * Run a statement for each role that the query returns. "statement" is a format
 * that gets the names of the sink's tables delta, total and seen, and the role.
 */
static void
for_each_role(const RsinkSink *sink, const char *query, const char *statement)
{
	uint64		n = rsink_spi(SPI_OK_SELECT, "%s", query);
	char	  **roles = palloc((n + 1) * sizeof(char *));

	for (uint64 i = 0; i < n; i++)
		roles[i] = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
	for (uint64 i = 0; i < n; i++)
		rsink_spi(SPI_OK_UTILITY, "%s", psprintf(statement, get_rel_name(sink->delta),
												 get_rel_name(sink->total),
												 get_rel_name(sink->seen), roles[i]));
}

/*
 * Grant SELECT on the tables behind the views to the present owners of the views,
 * and revoke it from all other roles. Caller is connected by rsink_spi_begin().
 */
void
rsink_pass_on_tables(const RsinkSink *sink)
{
	for_each_role(sink,
				  psprintf("SELECT DISTINCT quote_ident(pg_get_userbyid(a.grantee)) "
						   "FROM pg_class c, aclexplode(c.relacl) a "
						   "WHERE c.oid IN (%u, %u, %u) AND a.grantee NOT IN (0, c.relowner)",
						   sink->delta, sink->total, sink->seen),
				  "REVOKE ALL ON revenue_sink.%s, revenue_sink.%s, revenue_sink.%s FROM %s");
	for_each_role(sink,
				  psprintf("SELECT DISTINCT quote_ident(pg_get_userbyid(relowner)) FROM pg_class "
						   "WHERE oid IN (%u, %u)", sink->fact, sink->ingest),
				  "GRANT SELECT ON revenue_sink.%s, revenue_sink.%s, revenue_sink.%s TO %s");
}

/*
 * Give the owners of the views back their rights on the tables behind the views
 * where they have lost them, for example by a restore with --no-privileges.
 * Connects to SPI by itself. Caller holds the maintenance lock.
 */
void
rsink_mend_rights(const RsinkSink *sink)
{
	const Oid	views[] = {sink->fact, sink->ingest};
	const Oid	tables[] = {sink->delta, sink->total, sink->seen};
	bool		lost = false;

	for (int i = 0; i < lengthof(views); i++)
		for (int j = 0; j < lengthof(tables); j++)
			lost |= pg_class_aclcheck(tables[j], rsink_relation_owner(views[i]), ACL_SELECT) != ACLCHECK_OK;
	if (lost)
	{
		RsinkSpi	spi;

		rsink_spi_begin(&spi);
		rsink_pass_on_tables(sink);
		rsink_spi_end(&spi);
	}
}

/*
 * Raise serialization_failure for a sink whose catalog row the statement's snapshot
 * doesn't show: the sink was made after the transaction had taken its snapshot, or has
 * just been dropped.
 */
static void
raise_invisible_sink(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not serialize access to sink \"%s\", which was made or dropped meanwhile", name),
			 errhint("Roll back, and repeat the transaction.")));
}

/*
 * alter_sink(sink, dedup_window, max_future, late_policy, on_bad_event, retain)
 *
 * NULL leaves a setting as it is; a retain of 0 turns that setting off. After
 * ALTER VIEW .. OWNER TO, alter_sink() also gives the present owners of the views
 * the rights they need, and takes those rights from former owners. Raises
 * invalid_parameter_value for settings that contradict each other, and
 * serialization_failure for a sink that the transaction's snapshot doesn't show.
 */
Datum
revenue_sink_alter_sink(PG_FUNCTION_ARGS)
{
	RsinkSink  *sink = rsink_sink_argument(fcinfo, 0, RSINK_IS_OWNER);
	char	   *late_policy = PG_ARGISNULL(3) ? NULL : text_argument(fcinfo, 3, "late_policy");
	char	   *on_bad_event = PG_ARGISNULL(4) ? NULL : text_argument(fcinfo, 4, "on_bad_event");
	RsinkSpi	spi;

	PreventCommandIfReadOnly("alter_sink()");
	if (late_policy)
		(void) rsink_choice("late_policy", rsink_late_policy_names, late_policy);
	if (on_bad_event)
		(void) rsink_choice("on_bad_event", rsink_bad_policy_names, on_bad_event);
	rsink_forbid_prepare("alter_sink()");
	rsink_spi_begin(&spi);
	if (rsink_spi(SPI_OK_UPDATE_RETURNING,
				  "UPDATE revenue_sink.sink_catalog SET dedup_window = coalesce(%s, dedup_window), "
				  "  max_future = coalesce(%s, max_future), late_policy = coalesce(%s, late_policy), "
				  "  on_bad_event = coalesce(%s, on_bad_event), retain = nullif(coalesce(%s, retain), '0') "
				  "WHERE id = %d RETURNING coalesce(retain < dedup_window, false)::int::bigint",
				  PG_ARGISNULL(1) ? "NULL" : interval_argument(fcinfo, 1, "dedup_window", false),
				  PG_ARGISNULL(2) ? "NULL" : interval_argument(fcinfo, 2, "max_future", true),
				  late_policy ? quote_literal_cstr(late_policy) : "NULL",
				  on_bad_event ? quote_literal_cstr(on_bad_event) : "NULL",
				  PG_ARGISNULL(5) ? "NULL" : interval_argument(fcinfo, 5, "retain", true), sink->id) == 0)
		raise_invisible_sink(sink->name);
	if (rsink_spi_int64(0, 1, 0) != 0)
		raise_short_retain();
	rsink_pass_on_tables(sink);
	rsink_spi_end(&spi);
	rsink_sink_changed();
	PG_RETURN_VOID();
}

/*
 * drop_sink(sink)
 *
 * Removes the sink's views, its tables and its rows in all shared tables; the
 * worker's next round releases the sink's slot in shared memory. Takes
 * AccessExclusiveLock on the views and tables, and so waits for open transactions
 * as DROP TABLE does. Raises object_in_use if a prepared transaction uses the sink, and
 * serialization_failure for a sink that the transaction's snapshot doesn't show.
 */
Datum
revenue_sink_drop_sink(PG_FUNCTION_ARGS)
{
	char	   *name = text_argument(fcinfo, 0, "sink");
	RsinkSink  *sink = rsink_sink_lookup_owned(name);
	RsinkSpi	spi;
	Oid			relids[4];
	Oid			views[2];

	PreventCommandIfReadOnly("drop_sink()");
	relids[0] = sink->ingest;
	relids[1] = sink->fact;
	relids[2] = sink->delta;
	relids[3] = sink->seen;
	rsink_lock_exclusively(relids, lengthof(relids), psprintf("sink \"%s\"", sink->name));
	rsink_forbid_prepare("drop_sink()");
	views[0] = sink->ingest;
	views[1] = sink->fact;
	rsink_spi_begin_as(&spi, GetUserId());
	for (int i = 0; i < 2; i++)
	{
		char	   *view = rsink_view_name(views[i]);

		if (view != NULL)
			rsink_spi(SPI_OK_UTILITY, "DROP VIEW %s", view);
	}
	rsink_spi_end(&spi);
	rsink_spi_begin(&spi);
	rsink_home_drop(sink->id);
	for (int i = 0; i < RSINK_NOWN_TABLES; i++)
	{
		char	   *table = get_rel_name(rsink_table_of(sink->id, rsink_own_tables[i]));

		if (table != NULL)
			rsink_spi(SPI_OK_UTILITY, "DROP TABLE revenue_sink.%s", table);
	}
	for (int i = 0; i < RSINK_NSHARED_TABLES; i++)
		rsink_spi(SPI_OK_DELETE, "DELETE FROM revenue_sink.%s WHERE sink_id IN (%d, -%d)",
				  rsink_shared_tables[i], sink->id, sink->id);
	rsink_spi(SPI_OK_DELETE, "DELETE FROM revenue_sink.letter_count WHERE sink_id = %d", sink->id);
	if (rsink_spi(SPI_OK_DELETE, "DELETE FROM revenue_sink.sink_catalog WHERE id = %d", sink->id) == 0)
		raise_invisible_sink(name);
	rsink_spi_end(&spi);
	rsink_sink_changed();
	rsink_worker_wanted();
	PG_RETURN_VOID();
}
