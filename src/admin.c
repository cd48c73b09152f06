/*-------------------------------------------------------------------------
 *
 * admin.c
 *	  create_sink, alter_sink, drop_sink.
 *
 * A sink's views belong to whoever creates it, and are made with that role's
 * rights. The tables behind them belong to the extension's owner: no role can
 * write fingerprints, deltas or the ledger but through the functions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sodium.h>

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "argument.h"
#include "catalog.h"
#include "compat.h"
#include "expire.h"
#include "spi_util.h"
#include "worker.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(revenue_sink_create_sink);
PG_FUNCTION_INFO_V1(revenue_sink_alter_sink);
PG_FUNCTION_INFO_V1(revenue_sink_drop_sink);

static void
require_one_of(const char *argument, const char *value, const char *one, const char *other)
{
	if (strcmp(value, one) != 0 && strcmp(value, other) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for %s: \"%s\"", argument, value),
				 errhint("Use '%s' or '%s'.", one, other)));
}

static char *
text_argument(FunctionCallInfo fcinfo, int argno, const char *name)
{
	rsink_require_argument(fcinfo, argno, name);
	return text_to_cstring(PG_GETARG_TEXT_PP(argno));
}

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

/* A view's name, qualified with the schema in which it will be made. */
static char *
creation_name(FunctionCallInfo fcinfo, int argno, const char *name)
{
	text	   *value = (text_argument(fcinfo, argno, name), PG_GETARG_TEXT_PP(argno));
	RangeVar   *range = makeRangeVarFromNameList(textToQualifiedNameList(value));
	Oid			schema = RangeVarGetCreationNamespace(range);

	if (get_relname_relid(range->relname, schema) != InvalidOid)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("relation \"%s\" already exists", range->relname),
				 errhint("Give the view another name with the argument %s.", name)));
	return quote_qualified_identifier(get_namespace_name(schema), range->relname);
}

/* Tables, owned by the extension's owner, that one sink needs. */
static void
create_tables(int id, bool totals, const char *owner)
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
	rsink_spi(SPI_OK_UTILITY,
			  "CREATE TABLE revenue_sink.spill_%d (hi bigint NOT NULL, lo bigint NOT NULL, "
			  "  payload integer NOT NULL, event_time timestamptz NOT NULL)", id);
	rsink_spi(SPI_OK_UTILITY, "CREATE INDEX ON revenue_sink.spill_%d (hi, lo)", id);
	rsink_spi(SPI_OK_UTILITY, "CREATE INDEX ON revenue_sink.spill_%d USING brin (event_time)", id);
	if (totals)
	{
		for (int i = 0; i < 2; i++)
			rsink_spi(SPI_OK_UTILITY,
					  "CREATE TABLE revenue_sink.%s_%d (minute timestamptz NOT NULL, "
					  "  group_key text COLLATE \"C\" NOT NULL, revenue numeric NOT NULL, version bigint, "
					  "  epoch bigint NOT NULL, number bigint NOT NULL, sequence bigint NOT NULL%s)",
					  i == 0 ? "delta" : "total", id,
					  i == 0 ? "" : ", PRIMARY KEY (minute, group_key)");
	}
	else
	{
		for (int i = 0; i < 2; i++)
			rsink_spi(SPI_OK_UTILITY,
					  "CREATE TABLE revenue_sink.%s_%d (minute timestamptz NOT NULL, "
					  "  group_key text COLLATE \"C\" NOT NULL, revenue numeric NOT NULL, "
					  "  events bigint NOT NULL%s)",
					  i == 0 ? "delta" : "total", id,
					  i == 0 ? "" : ", PRIMARY KEY (minute, group_key)");
	}

	/*
	 * Deltas come nearly in order of their minutes, and live for a second: a
	 * b-tree would cost a small batch more than the deltas themselves.
	 */
	rsink_spi(SPI_OK_UTILITY,
			  "CREATE INDEX ON revenue_sink.delta_%d USING brin (minute, group_key) "
			  "  WITH (pages_per_range = 8, autosummarize = on)", id);
	rsink_spi(SPI_OK_UTILITY,
			  "ALTER TABLE revenue_sink.delta_%d SET (autovacuum_vacuum_scale_factor = 0, "
			  "  autovacuum_vacuum_threshold = 1000)", id);
	rsink_spi(SPI_OK_UTILITY, "ALTER TABLE revenue_sink.delta_%d REPLICA IDENTITY FULL", id);
	rsink_spi(SPI_OK_UTILITY, "ALTER TABLE revenue_sink.spill_%d REPLICA IDENTITY FULL", id);
	rsink_spi(SPI_OK_UTILITY, "ALTER TABLE revenue_sink.seen_%d REPLICA IDENTITY FULL", id);
	rsink_spi(SPI_OK_UTILITY, "GRANT SELECT ON revenue_sink.delta_%d, revenue_sink.total_%d TO %s",
			  id, id, quoted);
	rsink_spi(SPI_OK_UTILITY, "GRANT SELECT ON revenue_sink.seen_%d TO %s", id, quoted);
}

/* The views, as the current user. */
static void
create_views(int id, bool totals, const char *sink, const char *fact, const char *ingest)
{
	if (totals)
	{
		rsink_spi(SPI_OK_UTILITY,
				  "CREATE VIEW %s AS SELECT DISTINCT ON (minute, group_key) minute, group_key, revenue, "
				  "  NULL::bigint AS events FROM "
				  "(SELECT DISTINCT ON (minute, group_key, version IS NULL) * FROM "
				  "  (SELECT *, max(version) OVER (PARTITION BY minute, group_key) AS highest FROM "
				  "    (SELECT * FROM revenue_sink.total_%d UNION ALL "
				  "     SELECT * FROM revenue_sink.delta_%d) AS every) AS ranked "
				  "  WHERE version IS NULL OR version = highest ORDER BY minute, group_key, "
				  "  version IS NULL, epoch DESC, number DESC, sequence DESC) AS best "
				  "ORDER BY minute, group_key, sequence DESC", fact, id, id);
		rsink_spi(SPI_OK_UTILITY,
				  "CREATE VIEW %s AS SELECT newest AS minute, NULL::text AS group_key, "
				  "  NULL::numeric AS revenue, NULL::bigint AS version "
				  "FROM revenue_sink.seen_%d LIMIT 0", ingest, id);
	}
	else
	{
		rsink_spi(SPI_OK_UTILITY,
				  "CREATE VIEW %s AS SELECT minute, group_key, sum(revenue) AS revenue, "
				  "  sum(events)::bigint AS events "
				  "FROM (SELECT minute, group_key, revenue, events FROM revenue_sink.total_%d UNION ALL "
				  "      SELECT minute, group_key, revenue, events FROM revenue_sink.delta_%d) AS every "
				  "GROUP BY minute, group_key", fact, id, id);
		rsink_spi(SPI_OK_UTILITY,
				  "CREATE VIEW %s AS SELECT NULL::text AS order_id, NULL::text AS event_id, "
				  "  newest AS event_time, NULL::numeric AS amount, NULL::text AS group_key "
				  "FROM revenue_sink.seen_%d LIMIT 0", ingest, id);
	}
	rsink_spi(SPI_OK_UTILITY, "COMMENT ON VIEW %s IS %s", fact,
			  quote_literal_cstr(psprintf("revenue of sink %s", sink)));
	rsink_spi(SPI_OK_UTILITY, "COMMENT ON VIEW %s IS %s", ingest,
			  quote_literal_cstr(psprintf("INSERT and COPY into it write to sink %s", sink)));
	rsink_spi(SPI_OK_UTILITY,
			  "CREATE TRIGGER revenue_sink_row INSTEAD OF INSERT ON %s "
			  "FOR EACH ROW EXECUTE FUNCTION revenue_sink.ingest()", ingest);
	rsink_spi(SPI_OK_UTILITY,
			  "CREATE TRIGGER revenue_sink_statement AFTER INSERT ON %s "
			  "FOR EACH STATEMENT EXECUTE FUNCTION revenue_sink.ingest()", ingest);
}

/*
 * create_sink(sink, fact, ingest, bucket, dedup_window, max_future, mode,
 *			   late_policy, on_bad_event)
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
	char	   *owner = GetUserNameFromId(GetUserId(), false);
	unsigned char key[RSINK_HASH_KEY_BYTES];
	StringInfoData hex;
	RsinkSpi	spi;
	int			id;
	int			nest;

	rsink_require_preload();
	PreventCommandIfReadOnly("create_sink()");
	require_one_of("mode", mode, "events", "totals");
	require_one_of("late_policy", late_policy, "reject", "apply");
	require_one_of("on_bad_event", on_bad_event, "error", "reject");
	if (sink[0] == '\0' || strlen(sink) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("the name of a sink has 1 to %d bytes", NAMEDATALEN - 1)));
	if (strcmp(fact, ingest) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("the fact view and the ingest view must have different names")));
	rsink_forbid_prepare("create_sink()");

	if (sodium_init() < 0)
		elog(ERROR, "libsodium cannot be initialized");
	randombytes_buf(key, sizeof(key));
	initStringInfo(&hex);
	for (int i = 0; i < RSINK_HASH_KEY_BYTES; i++)
		appendStringInfo(&hex, "%02x", key[i]);

	rsink_spi_begin(&spi);
	if (rsink_spi(SPI_OK_SELECT, "SELECT FROM revenue_sink.sink_catalog WHERE name = %s",
				  quote_literal_cstr(sink)) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("sink \"%s\" already exists", sink)));
	rsink_spi(SPI_OK_SELECT, "SELECT nextval('revenue_sink.sink_id')");
	id = (int) rsink_spi_int64(0, 1, 0);
	create_tables(id, strcmp(mode, "totals") == 0, owner);
	rsink_spi_end(&spi);

	nest = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	create_views(id, strcmp(mode, "totals") == 0, sink, fact, ingest);
	SPI_finish();
	AtEOXact_GUC(true, nest);

	rsink_spi_begin(&spi);
	rsink_spi(SPI_OK_INSERT,
			  "INSERT INTO revenue_sink.sink_catalog (id, name, mode, bucket, dedup_window, max_future, "
			  "  late_policy, on_bad_event, fact, ingest, seen, spill, delta, total, hash_key) "
			  "VALUES (%d, %s, '%s', %s, %s, %s, '%s', '%s', %s::regclass, %s::regclass, "
			  "  'revenue_sink.seen_%d', 'revenue_sink.spill_%d', 'revenue_sink.delta_%d', "
			  "  'revenue_sink.total_%d', '\\x%s')",
			  id, quote_literal_cstr(sink), mode, bucket, dedup_window, max_future,
			  late_policy, on_bad_event, quote_literal_cstr(fact), quote_literal_cstr(ingest),
			  id, id, id, id, hex.data);
	rsink_spi_end(&spi);
	rsink_sink_changed();
	rsink_worker_wanted();
	PG_RETURN_VOID();
}

/*
 * Run a statement on the sink's tables for each role that a query names; the
 * format gets the three tables and the role.
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

/* Only the present owners of the views may read the tables behind them. */
static void
pass_on_tables(const RsinkSink *sink)
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
 * alter_sink(sink, dedup_window, max_future, late_policy, on_bad_event)
 *
 * NULL leaves a setting as it is. Also gives the present owners of the views
 * the rights they need, after ALTER VIEW .. OWNER TO, and takes former ones'.
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
		require_one_of("late_policy", late_policy, "reject", "apply");
	if (on_bad_event)
		require_one_of("on_bad_event", on_bad_event, "error", "reject");
	rsink_forbid_prepare("alter_sink()");
	rsink_spi_begin(&spi);
	rsink_spi(SPI_OK_UPDATE,
			  "UPDATE revenue_sink.sink_catalog SET dedup_window = coalesce(%s, dedup_window), "
			  "  max_future = coalesce(%s, max_future), late_policy = coalesce(%s, late_policy), "
			  "  on_bad_event = coalesce(%s, on_bad_event) WHERE id = %d",
			  PG_ARGISNULL(1) ? "NULL" : interval_argument(fcinfo, 1, "dedup_window", false),
			  PG_ARGISNULL(2) ? "NULL" : interval_argument(fcinfo, 2, "max_future", true),
			  late_policy ? quote_literal_cstr(late_policy) : "NULL",
			  on_bad_event ? quote_literal_cstr(on_bad_event) : "NULL", sink->id);
	pass_on_tables(sink);
	rsink_spi_end(&spi);
	rsink_sink_changed();
	PG_RETURN_VOID();
}

/*
 * Take what is to be dropped away from everybody else, in the order in which a
 * statement that writes takes it. Refuses, naming the gid, where a prepared
 * transaction has used it: nobody knows for how long that will be held, and all
 * others would queue up behind us.
 */
static void
lock_for_drop(const RsinkSink *sink)
{
	const Oid	relids[] = {sink->ingest, sink->fact, sink->delta, sink->seen};

	for (int i = 0; i < lengthof(relids); i++)
	{
		RsinkSpi	spi;

		if (ConditionalLockRelationOid(relids[i], AccessExclusiveLock))
			continue;
		rsink_spi_begin(&spi);
		if (rsink_spi(SPI_OK_SELECT,
					  "SELECT p.gid FROM pg_locks l "
					  "  JOIN pg_locks x ON x.virtualtransaction = l.virtualtransaction "
					  "    AND x.locktype = 'transactionid' AND x.pid IS NULL "
					  "  JOIN pg_prepared_xacts p ON p.transaction = x.transactionid "
					  "WHERE l.locktype = 'relation' AND l.pid IS NULL AND l.database = "
					  "  (SELECT oid FROM pg_database WHERE datname = current_database()) "
					  "  AND l.relation IN (%u, %u, %u, %u) LIMIT 1",
					  relids[0], relids[1], relids[2], relids[3]) > 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("sink \"%s\" is used by the prepared transaction \"%s\"", sink->name,
							SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1)),
					 errhint("Commit or roll back the prepared transaction first.")));
		rsink_spi_end(&spi);
		LockRelationOid(relids[i], AccessExclusiveLock);
	}
}

/*
 * drop_sink(sink)
 *
 * Removes views, tables and all that is known of the sink; its shared memory is
 * given back by the worker's next round. Waits for open transactions, as DROP
 * TABLE does; raises object_in_use for prepared ones.
 */
Datum
revenue_sink_drop_sink(PG_FUNCTION_ARGS)
{
	static const char *const shared_tables[] = {
		"sink_state", "deferred_event", "rejected", "epoch", "batch", "committed_offset", "decision"
	};
	char	   *name = text_argument(fcinfo, 0, "sink");
	RsinkSink  *sink = rsink_sink_lookup_dropping(name);
	RsinkSpi	spi;
	Oid			views[2];
	Oid			tables[4];

	PreventCommandIfReadOnly("drop_sink()");
	lock_for_drop(sink);
	rsink_forbid_prepare("drop_sink()");
	views[0] = sink->ingest;
	views[1] = sink->fact;
	tables[0] = sink->seen;
	tables[1] = sink->spill;
	tables[2] = sink->delta;
	tables[3] = sink->total;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	for (int i = 0; i < 2; i++)
	{
		char	   *view = get_rel_name(views[i]);

		if (view != NULL)
			rsink_spi(SPI_OK_UTILITY, "DROP VIEW %s",
					  quote_qualified_identifier(get_namespace_name(get_rel_namespace(views[i])), view));
	}
	SPI_finish();
	rsink_spi_begin(&spi);
	for (int i = 0; i < 4; i++)
	{
		char	   *table = get_rel_name(tables[i]);

		if (table != NULL)
			rsink_spi(SPI_OK_UTILITY, "DROP TABLE revenue_sink.%s", table);
	}
	for (int i = 0; i < lengthof(shared_tables); i++)
		rsink_spi(SPI_OK_DELETE, "DELETE FROM revenue_sink.%s WHERE sink_id = %d",
				  shared_tables[i], sink->id);
	rsink_spi(SPI_OK_DELETE, "DELETE FROM revenue_sink.sink_catalog WHERE id = %d", sink->id);
	rsink_spi_end(&spi);
	rsink_sink_changed();
	rsink_worker_wanted();
	PG_RETURN_VOID();
}
