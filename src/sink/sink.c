/*-------------------------------------------------------------------------
 *
 * sink.c
 *	  The sinks of a database: a cache of the sink catalog, and rights on sinks.
 *
 * A backend reads a sink's catalog row once and keeps it until the row, one of
 * the sink's relations or a subscription is changed. create_sink(), alter_sink(),
 * drop_sink() and adopt_sink() send a relcache invalidation for the catalog table,
 * which every backend receives when it next looks up a sink or locks a relation.
 *
 * A sink with a problem takes no events. The problem is determined when the
 * catalog row is read; RsinkProblem lists the possible ones.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "common/int.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "apply/fingerprint.h"
#include "core/catalog.h"
#include "core/compat.h"
#include "core/interval.h"
#include "sink/choice.h"
#include "sink/home.h"
#include "sink/problem.h"
#include "sink/relations.h"
#include "sink/right.h"
#include "sink/sink.h"
#include "sink/slot.h"

/* How long a caller waits for the worker to adopt a whole sink, in milliseconds. */
#define AWAIT_MS		30000
#define AWAIT_NAP_MS	50L

static HTAB *cache;				/* of RsinkSink, by name */
static Oid	catalog_relid = InvalidOid;
static uint64 invalidations;	/* how many the cache has received */

static bool
is_relation_of(const RsinkSink *sink, Oid relid)
{
	return relid == sink->fact || relid == sink->ingest || relid == sink->seen ||
		relid == sink->slice || relid == sink->sealed || relid == sink->filter ||
		relid == sink->delta || relid == sink->total;
}

static void
cache_invalidate(Datum arg, Oid relid)
{
	bool		all = !OidIsValid(relid) || !OidIsValid(catalog_relid) || relid == catalog_relid;
	HASH_SEQ_STATUS seq;
	RsinkSink  *sink;

	if (all)
		catalog_relid = InvalidOid;
	invalidations++;
	hash_seq_init(&seq, cache);
	while ((sink = hash_seq_search(&seq)) != NULL)
		if (all || is_relation_of(sink, relid))
			sink->valid = false;
}

/* A table has been added to a subscription, or removed, or has changed its state. */
static void
subscription_changed(Datum arg, int cacheid, uint32 hash)
{
	cache_invalidate((Datum) 0, InvalidOid);
}

/*
 * Make the cache. This is called once per process: by _PG_init(), or by the first
 * look-up if the library isn't preloaded.
 */
void
rsink_init_sink(void)
{
	HASHCTL		ctl = {
		.keysize = NAMEDATALEN,
		.entrysize = sizeof(RsinkSink)
	};

	cache = hash_create("revenue_sink sinks", 16, &ctl, HASH_ELEM | HASH_STRINGS);
	CacheRegisterRelcacheCallback(cache_invalidate, (Datum) 0);
	CacheRegisterSyscacheCallback(SUBSCRIPTIONRELMAP, subscription_changed, (Datum) 0);
}

/* Invalidate all backends' caches of sinks when this transaction commits. */
void
rsink_sink_changed(void)
{
	CacheInvalidateRelcacheByRelid(rsink_catalog_relid("sink_catalog"));
}

/* Are the extension's tables of an older version than this library? */
bool
rsink_tables_are_old(void)
{
	return get_attnum(rsink_catalog_relid("sink_catalog"), "encoding") == InvalidAttrNumber;
}

/* A column of a catalog row, found by its name; null if there is no such column. */
static Datum
catalog_column(HeapTuple tuple, TupleDesc desc, const char *column, bool *isnull)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (!attribute->attisdropped && strcmp(NameStr(attribute->attname), column) == 0)
			return heap_getattr(tuple, i + 1, desc, isnull);
	}
	*isnull = true;
	return (Datum) 0;
}

/* A text column of a catalog row; NULL if it is null, or there is no such column. */
static char *
catalog_text(HeapTuple tuple, TupleDesc desc, const char *column)
{
	bool		isnull;
	Datum		datum = catalog_column(tuple, desc, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(datum);
}

/*
 * An interval column of a catalog row in microseconds; 0 if it is null, or there is
 * no such column.
 */
static int64
catalog_interval(HeapTuple tuple, TupleDesc desc, const char *column)
{
	bool		isnull;
	Datum		datum = catalog_column(tuple, desc, column, &isnull);

	return isnull ? 0 : rsink_interval_usecs(DatumGetIntervalP(datum), column);
}

/* A bytea column of a catalog row; NULL if it is null, or there is no such column. */
static bytea *
catalog_bytea(HeapTuple tuple, TupleDesc desc, const char *column)
{
	bool		isnull;
	Datum		datum = catalog_column(tuple, desc, column, &isnull);

	return isnull ? NULL : DatumGetByteaPP(datum);
}

/* Take the sink's relations from its catalog row, which names them in version 1.0. */
static void
believe_relations(RsinkSink *sink, HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;

	sink->fact = DatumGetObjectId(catalog_column(tuple, desc, "fact", &isnull));
	sink->ingest = DatumGetObjectId(catalog_column(tuple, desc, "ingest", &isnull));
	sink->seen = DatumGetObjectId(catalog_column(tuple, desc, "seen", &isnull));
	sink->delta = DatumGetObjectId(catalog_column(tuple, desc, "delta", &isnull));
	sink->total = DatumGetObjectId(catalog_column(tuple, desc, "total", &isnull));
}

/*
 * Find the sink's relations. Its views mostly are those that the cache had before,
 * which is cheaper to verify than to search for.
 */
static void
find_relations(RsinkSink *sink)
{
	if (!rsink_is_view_of(sink->id, RSINK_FACT, sink->fact))
		sink->fact = rsink_find_view(sink->id, RSINK_FACT);
	if (!rsink_is_view_of(sink->id, RSINK_INGEST, sink->ingest))
		sink->ingest = rsink_find_view(sink->id, RSINK_INGEST);
	sink->seen = rsink_table_of(sink->id, "seen");
	sink->slice = rsink_table_of(sink->id, "slice");
	sink->sealed = rsink_table_of(sink->id, "sealed");
	sink->filter = rsink_table_of(sink->id, "filter");
	sink->delta = rsink_table_of(sink->id, "delta");
	sink->total = rsink_table_of(sink->id, "total");
}

/* Fill a cache entry from a catalog row. */
static void
fill_sink(RsinkSink *sink, HeapTuple tuple, TupleDesc desc)
{
	bytea	   *key = catalog_bytea(tuple, desc, "hash_key");
	bool		isnull;

	sink->id = DatumGetInt32(heap_getattr(tuple, Anum_catalog_id, desc, &isnull));
	sink->mode = rsink_choice("mode", rsink_mode_names, catalog_text(tuple, desc, "mode"));
	sink->late_policy = rsink_choice("late_policy", rsink_late_policy_names, catalog_text(tuple, desc, "late_policy"));
	sink->bad_policy = rsink_choice("on_bad_event", rsink_bad_policy_names, catalog_text(tuple, desc, "on_bad_event"));
	sink->bucket = catalog_interval(tuple, desc, "bucket");
	sink->dedup_window = catalog_interval(tuple, desc, "dedup_window");
	sink->max_future = catalog_interval(tuple, desc, "max_future");
	sink->retain = catalog_interval(tuple, desc, "retain");
	if (key == NULL || VARSIZE_ANY_EXHDR(key) != RSINK_HASH_KEY_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("sink \"%s\" has a damaged hash key", sink->name)));
	memcpy(sink->key, VARDATA_ANY(key), RSINK_HASH_KEY_BYTES);
	if (rsink_tables_are_old())
	{
		sink->problem = RSINK_OLD;
		believe_relations(sink, tuple, desc);
		return;
	}
	find_relations(sink);
	sink->problem = rsink_find_problem(sink, catalog_text(tuple, desc, "encoding"),
									   catalog_bytea(tuple, desc, "sample"));
}

/*
 * Read a sink's catalog row into its cache entry. Returns false if there is no such
 * row. If an invalidation arrives meanwhile, the entry stays invalid and the next
 * look-up reads the row again.
 */
static bool
cache_load(RsinkSink *sink)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "revenue_sink lookup",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Relation	rel;
	Snapshot	snapshot;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	uint64		before;
	bool		found;

	rel = table_open(rsink_catalog_relid("sink_catalog"), AccessShareLock);
	catalog_relid = RelationGetRelid(rel);
	before = invalidations;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyInit(&key, Anum_catalog_name, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(sink->name));
	key.sk_collation = C_COLLATION_OID;
	scan = systable_beginscan(rel, rsink_table_index(rel, Anum_catalog_name), true,
							  snapshot, 1, &key);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
	{
		fill_sink(sink, tuple, RelationGetDescr(rel));
		sink->valid = invalidations == before;
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return found;
}

/* Find the slot of a sink, and set sink->shared. */
static void
attach(RsinkSink *sink)
{
	RsinkShared *shared = sink->shared;

	/*
	 * On a standby a sink has no slot, so that nothing that was found there
	 * outlives the promotion. A transaction that uses a sink keeps the pointer to
	 * the slot even if the sink gets a problem meanwhile.
	 */
	if (RecoveryInProgress() || !rsink_is_preloaded())
		sink->shared = NULL;
	else if (sink->problem == RSINK_READY &&
			 (shared == NULL || shared->db != MyDatabaseId || shared->seen != sink->seen))
		sink->shared = rsink_shared_attach(sink);
}

/*
 * Find a sink by its name, in the cache or the catalog, whatever its problem and the
 * current user's rights. Raises undefined_object if there is none.
 */
RsinkSink *
rsink_sink_find(const char *name)
{
	RsinkSink  *sink = NULL;

	/* if the library isn't preloaded, nobody has made the cache yet */
	if (cache == NULL)
		rsink_init_sink();

	/* learn of all catalog changes that are committed by now */
	AcceptInvalidationMessages();
	if (strlen(name) < NAMEDATALEN)
	{
		bool		found;

		sink = hash_search(cache, name, HASH_ENTER, &found);
		if (!found)
		{
			sink->valid = false;
			sink->shared = NULL;
			sink->fact = sink->ingest = sink->seen = InvalidOid;
			sink->slice = sink->sealed = sink->filter = sink->delta = sink->total = InvalidOid;
		}
		if ((!sink->valid || sink->problem != RSINK_READY) && !cache_load(sink))
		{
			hash_search(cache, name, HASH_REMOVE, NULL);
			sink = NULL;
		}
	}
	if (sink == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("sink \"%s\" does not exist", name),
				 errhint("revenue_sink.sink lists the sinks of this database; revenue_sink.create_sink() makes one.")));
	return sink;
}

/*
 * Wait until the worker has adopted a sink that is whole. Raises
 * object_not_in_prerequisite_state after AWAIT_MS.
 */
static void
await_adoption(RsinkSink *sink)
{
	char	   *name = pstrdup(sink->name);
	TimestampTz started = GetCurrentTimestamp();

	while (rsink_sink_find(name)->problem == RSINK_ASLEEP)
	{
		if (TimestampDifferenceExceeds(started, GetCurrentTimestamp(), AWAIT_MS))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("sink \"%s\" has arrived whole, but no worker has adopted it", name),
					 errhint("Make sure that max_worker_processes leaves a place for a worker, or call revenue_sink.adopt_sink().")));
		rsink_ask_for_adoption();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 AWAIT_NAP_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Raise unless the sink is in order or, for a caller that only reads, at least
 * whole. Waits for the worker to adopt a sink that is whole but asleep.
 */
static void
require_ready(RsinkSink *sink, RsinkRight right)
{
	if (sink->problem == RSINK_READY || right == RSINK_MAY_ANYTHING || right == RSINK_MAY_LOOK ||
		right == RSINK_MAY_WATCH || (sink->problem == RSINK_COPY && right == RSINK_MAY_READ))
		return;
	if (sink->problem == RSINK_ASLEEP && rsink_home_missing(sink, false) == NULL)
	{
		if (right != RSINK_MAY_READ && !RecoveryInProgress())
			await_adoption(sink);
		if (right == RSINK_MAY_READ || sink->problem == RSINK_READY)
			return;
	}
	rsink_raise_problem(sink);
}

/*
 * Find a sink by its name, and check that the current user has the right and that
 * the sink is in order.
 *
 * The result may be used until the end of the transaction, but its contents follow
 * what is committed to the catalog meanwhile. ->shared is NULL on a standby and if
 * the library isn't preloaded. With RSINK_MAY_READ, RSINK_MAY_LOOK,
 * RSINK_MAY_WATCH and RSINK_MAY_ANYTHING the sink may have a problem; then ->shared must not be used.
 *
 * Raises undefined_object for an unknown sink, insufficient_privilege if the right
 * is missing, undefined_table if a relation is, object_not_in_prerequisite_state for
 * other problems of the sink, and configuration_limit_exceeded if no slot is free.
 */
RsinkSink *
rsink_sink_lookup(const char *name, RsinkRight right)
{
	RsinkSink  *sink;

	if (right == RSINK_MAY_APPLY || right == RSINK_IS_OWNER)
		rsink_require_preload();
	sink = rsink_sink_find(name);
	rsink_require_right(sink, right);
	require_ready(sink, right);
	attach(sink);
	return sink;
}

/*
 * rsink_sink_lookup() for calls that finish prepared batches. These calls also work
 * on tables of an older version, because an update of the tables waits for prepared
 * batches to be finished.
 */
RsinkSink *
rsink_sink_lookup_finishing(const char *name, RsinkRight right)
{
	RsinkSink  *sink = rsink_sink_find(name);

	if (sink->problem != RSINK_OLD)
		return rsink_sink_lookup(name, right);
	rsink_require_right(sink, right);
	return sink;
}

/*
 * Find a sink that is to be dropped or adopted. Raises insufficient_privilege unless
 * the current user may do that; see rsink_may_dispose(). Also raises for tables of
 * an older version and for a copy; other problems don't matter.
 */
RsinkSink *
rsink_sink_lookup_owned(const char *name)
{
	RsinkSink  *sink;

	rsink_require_preload();
	sink = rsink_sink_find(name);
	if (sink->problem == RSINK_OLD || sink->problem == RSINK_COPY)
		rsink_raise_problem(sink);
	if (get_rel_name(sink->ingest) != NULL)
		rsink_require_owner(sink);
	else if (!rsink_may_dispose(sink))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must have owned the views of sink \"%s\" to drop or adopt what is left of it", sink->name),
				 errdetail("The views of the sink are gone."),
				 errhint("Ask a role that may read the tables of the sink, or the owner of extension revenue_sink.")));
	return sink;
}

/*
 * The name of the sink that has this value, passed by value, in a column of the
 * catalog; NULL if there is none.
 */
static char *
sink_name_where(const char *column, Datum value)
{
	Relation	rel = table_open(rsink_catalog_relid("sink_catalog"), AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	char	   *name = NULL;
	HeapTuple	tuple;

	while (name == NULL && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;

		if (catalog_column(tuple, RelationGetDescr(rel), column, &isnull) == value && !isnull)
			name = TextDatumGetCString(heap_getattr(tuple, Anum_catalog_name,
													RelationGetDescr(rel), &isnull));
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return name;
}

/*
 * The sink with this number, whatever its problem and the current user's rights;
 * NULL if there is none.
 */
RsinkSink *
rsink_sink_by_id(int32 id)
{
	char	   *name = sink_name_where("id", Int32GetDatum(id));

	return name ? rsink_sink_lookup(name, RSINK_MAY_ANYTHING) : NULL;
}

/*
 * The sink of an ingest view, given by the view's OID and the sink's number from the
 * argument of the view's trigger. The number is 0 if the trigger has no argument, as
 * in version 1.0. The executor has checked the INSERT privilege on the view. Raises
 * wrong_object_type if the relation isn't the sink's ingest view, and the sink's
 * problem if it has one.
 */
RsinkSink *
rsink_sink_by_ingest(Oid relid, int32 id)
{
	char	   *name = id > 0 ? sink_name_where("id", Int32GetDatum(id)) :
		sink_name_where("ingest", ObjectIdGetDatum(relid));
	RsinkSink  *sink = name ? rsink_sink_find(name) : NULL;

	rsink_require_preload();
	if (sink != NULL)
	{
		require_ready(sink, RSINK_MAY_APPLY);
		attach(sink);
	}
	if (sink == NULL || sink->ingest != relid)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not the ingest view of a sink", get_rel_name(relid)),
				 errhint("The trigger function is for the views that revenue_sink.create_sink() makes.")));
	return sink;
}

/* Raise wrong_object_type unless the sink has the mode that a call needs. */
void
rsink_sink_require_mode(const RsinkSink *sink, RsinkMode mode)
{
	if (sink->mode != mode)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("sink \"%s\" is in mode '%s'", sink->name,
						rsink_mode_names[sink->mode]),
				 sink->mode == RSINK_TOTALS ?
				 errhint("Write to the sink with revenue_sink.upsert().") :
				 errhint("Write to the sink with revenue_sink.apply().")));
}
