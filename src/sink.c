/*-------------------------------------------------------------------------
 *
 * sink.c
 *	  The sinks: what the catalog says of them, and who may do what.
 *
 * A backend reads a sink's catalog row once and keeps it until the row, one of
 * the sink's relations or a subscription is changed: create, alter, drop and
 * adopt send a relcache invalidation for the catalog table, which every backend
 * receives with its next lock.
 *
 * A sink that isn't in order takes no events. What the problem is, is looked at
 * when its row is read: RsinkProblem names what there is.
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

#include "catalog.h"
#include "compat.h"
#include "home.h"
#include "problem.h"
#include "relations.h"
#include "sink.h"

/* A caller waits so long, in ms, for the worker to take a whole sink in. */
#define AWAIT_MS		30000
#define AWAIT_NAP_MS	50L

static HTAB *cache;
static Oid	catalog_relid = InvalidOid;
static uint64 invalidations;	/* of the cache, so far */

static bool
is_relation_of(const RsinkSink *sink, Oid relid)
{
	return relid == sink->fact || relid == sink->ingest || relid == sink->seen ||
		relid == sink->spill || relid == sink->delta || relid == sink->total;
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

/* A subscription takes a table in, or lets go of it. */
static void
subscription_changed(Datum arg, int cacheid, uint32 hash)
{
	cache_invalidate((Datum) 0, InvalidOid);
}

/* Called once a process, from _PG_init or with the first look-up. */
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

/* Tell all backends, at commit, that the catalog has changed. */
void
rsink_sink_changed(void)
{
	CacheInvalidateRelcacheByRelid(rsink_catalog_relid("sink_catalog"));
}

/*
 * Length of a fixed interval in microseconds. Raises for months, infinite and
 * negative ones; "what" names the argument.
 */
int64
rsink_interval_usecs(const Interval *interval, const char *what)
{
	int64		usecs;

	if (interval->month != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a fixed length of time", what),
				 errhint("Months and years vary in length; use days, hours or minutes.")));
	if (pg_mul_s64_overflow(interval->day, USECS_PER_DAY, &usecs) ||
		pg_add_s64_overflow(usecs, interval->time, &usecs) || usecs < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is out of range", what)));
	return usecs;
}

/* Are the extension's tables of an older version than this library? */
bool
rsink_tables_are_old(void)
{
	return get_attnum(rsink_catalog_relid("sink_catalog"), "encoding") == InvalidAttrNumber;
}

/* A column of the catalog, by its name; null where there is no such column. */
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

static char *
catalog_text(HeapTuple tuple, TupleDesc desc, const char *column)
{
	bool		isnull;
	Datum		datum = catalog_column(tuple, desc, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(datum);
}

/* The length of an interval; 0 where it is null, or there is no such column. */
static int64
catalog_interval(HeapTuple tuple, TupleDesc desc, const char *column)
{
	bool		isnull;
	Datum		datum = catalog_column(tuple, desc, column, &isnull);

	return isnull ? 0 : rsink_interval_usecs(DatumGetIntervalP(datum), column);
}

static bytea *
catalog_bytea(HeapTuple tuple, TupleDesc desc, const char *column)
{
	bool		isnull;
	Datum		datum = catalog_column(tuple, desc, column, &isnull);

	return isnull ? NULL : DatumGetByteaPP(datum);
}

/* The catalog of version 1.0 names a sink's relations. */
static void
believe_relations(RsinkSink *sink, HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;

	sink->fact = DatumGetObjectId(catalog_column(tuple, desc, "fact", &isnull));
	sink->ingest = DatumGetObjectId(catalog_column(tuple, desc, "ingest", &isnull));
	sink->seen = DatumGetObjectId(catalog_column(tuple, desc, "seen", &isnull));
	sink->spill = DatumGetObjectId(catalog_column(tuple, desc, "spill", &isnull));
	sink->delta = DatumGetObjectId(catalog_column(tuple, desc, "delta", &isnull));
	sink->total = DatumGetObjectId(catalog_column(tuple, desc, "total", &isnull));
}

/* Find the relations that are the sink's; mostly they are those of before. */
static void
find_relations(RsinkSink *sink)
{
	if (!rsink_is_view_of(sink->id, RSINK_FACT, sink->fact))
		sink->fact = rsink_find_view(sink->id, RSINK_FACT);
	if (!rsink_is_view_of(sink->id, RSINK_INGEST, sink->ingest))
		sink->ingest = rsink_find_view(sink->id, RSINK_INGEST);
	sink->seen = rsink_table_of(sink->id, "seen");
	sink->spill = rsink_table_of(sink->id, "spill");
	sink->delta = rsink_table_of(sink->id, "delta");
	sink->total = rsink_table_of(sink->id, "total");
}

static void
fill_sink(RsinkSink *sink, HeapTuple tuple, TupleDesc desc)
{
	bytea	   *key = catalog_bytea(tuple, desc, "hash_key");
	bool		isnull;

	sink->id = DatumGetInt32(heap_getattr(tuple, Anum_catalog_id, desc, &isnull));
	sink->totals = strcmp(catalog_text(tuple, desc, "mode"), "totals") == 0;
	sink->apply_late = strcmp(catalog_text(tuple, desc, "late_policy"), "apply") == 0;
	sink->reject_bad = strcmp(catalog_text(tuple, desc, "on_bad_event"), "reject") == 0;
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
 * Read a sink's row from the catalog into the cache. What is invalidated while
 * we read is read again next time.
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

static bool
has_privilege(Oid relid, AclMode mode)
{
	bool		is_missing = false;

	return pg_class_aclcheck_ext(relid, GetUserId(), mode, &is_missing) == ACLCHECK_OK;
}

static bool
owns(Oid relid)
{
	return SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)) &&
		rsink_owns_relation(relid, GetUserId());
}

/* Has the current user the rights of the extension's owner? */
bool
rsink_owns_extension(void)
{
	return has_privs_of_role(GetUserId(), rsink_relation_owner(rsink_catalog_relid("sink_catalog")));
}

/*
 * Has the current user the rights of a role to which the sink's table was given to
 * read? That is who owns the views, and who has owned them where they are gone.
 */
static bool
has_owned(const RsinkSink *sink)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(sink->seen));
	bool		found = false;
	bool		isnull;
	Datum		datum;

	if (!HeapTupleIsValid(tuple))
		return false;
	datum = SysCacheGetAttr(RELOID, tuple, Anum_pg_class_relacl, &isnull);
	if (!isnull)
	{
		Acl		   *acl = DatumGetAclP(datum);

		for (int i = 0; i < ACL_NUM(acl) && !found; i++)
		{
			AclItem    *item = &ACL_DAT(acl)[i];

			found = item->ai_grantee != ACL_ID_PUBLIC && (item->ai_privs & ACL_SELECT) != 0 &&
				item->ai_grantee != ((Form_pg_class) GETSTRUCT(tuple))->relowner &&
				has_privs_of_role(GetUserId(), item->ai_grantee);
		}
	}
	ReleaseSysCache(tuple);
	return found;
}

/*
 * May the current user drop the sink, or take it in? Its owner may; where the
 * ingest view is gone, whoever has owned it; and the extension's owner.
 */
bool
rsink_may_dispose(const RsinkSink *sink)
{
	return owns(sink->ingest) || (get_rel_name(sink->ingest) == NULL && has_owned(sink)) ||
		rsink_owns_extension();
}

/* May the current user do this with the sink? Nothing, of a view that is gone. */
bool
rsink_sink_allows(const RsinkSink *sink, RsinkRight right)
{
	switch (right)
	{
		case RSINK_MAY_ANYTHING:
			return true;
		case RSINK_MAY_APPLY:
			return has_privilege(sink->ingest, ACL_INSERT);
		case RSINK_MAY_READ:
		case RSINK_MAY_LOOK:
			return has_privilege(sink->fact, ACL_SELECT) || has_privilege(sink->ingest, ACL_INSERT) ||
				owns(sink->ingest) || owns(sink->total);
		case RSINK_IS_OWNER:
			return owns(sink->ingest);
	}
	return false;
}

static void
require_owner(const RsinkSink *sink)
{
	if (!rsink_sink_allows(sink, RSINK_IS_OWNER))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of sink \"%s\"", sink->name),
				 errhint("The owner of the ingest view \"%s\" owns the sink.",
						 get_rel_name(sink->ingest))));
}

/* May the current user do this, where the sink's views are there to tell? */
static void
require_right(const RsinkSink *sink, RsinkRight right)
{
	if (right == RSINK_MAY_ANYTHING)
		return;
	if (!OidIsValid(sink->ingest) || !OidIsValid(sink->fact) ||
		get_rel_name(sink->ingest) == NULL || get_rel_name(sink->fact) == NULL)
	{
		rsink_raise_problem(sink);
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("a view of sink \"%s\" has been dropped", sink->name),
				 errhint("Remove what is left of the sink with revenue_sink.drop_sink().")));
	}
	if (right == RSINK_IS_OWNER)
		require_owner(sink);
	else if (!rsink_sink_allows(sink, right))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for sink \"%s\"", sink->name),
				 right == RSINK_MAY_APPLY ?
				 errhint("Applying events needs the INSERT privilege on the ingest view \"%s\".",
						 get_rel_name(sink->ingest)) :
				 errhint("Reading needs the SELECT privilege on the fact view \"%s\".",
						 get_rel_name(sink->fact))));
}

static void
attach(RsinkSink *sink)
{
	RsinkShared *shared = sink->shared;

	/*
	 * Nothing decided on a standby may outlive its promotion. A transaction that
	 * is at work on a sink keeps its slot, though it be broken meanwhile.
	 */
	if (RecoveryInProgress() || !rsink_is_preloaded())
		sink->shared = NULL;
	else if (sink->problem == RSINK_READY &&
			 (shared == NULL || shared->db != MyDatabaseId || shared->seen != sink->seen))
		sink->shared = rsink_shared_attach(sink);
}

/*
 * Find a sink, in the cache or the catalog, whatever its state and the current
 * user's rights. Raises undefined_object.
 */
RsinkSink *
rsink_sink_find(const char *name)
{
	RsinkSink  *sink = NULL;

	/* where the library isn't preloaded this is the first call of all */
	if (cache == NULL)
		rsink_init_sink();

	/* receives what others have committed to the catalog */
	AcceptInvalidationMessages();
	if (strlen(name) < NAMEDATALEN)
	{
		bool		found;

		sink = hash_search(cache, name, HASH_ENTER, &found);
		if (!found)
		{
			sink->valid = false;
			sink->shared = NULL;
			sink->fact = sink->ingest = sink->seen = sink->spill = sink->delta = sink->total = InvalidOid;
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
 * Wait, for a while, until the worker has taken in a sink that is whole. Raises
 * object_not_in_prerequisite_state when that doesn't happen.
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
					 errmsg("sink \"%s\" has arrived whole, but no worker has taken it in", name),
					 errhint("See that there is a free place among max_worker_processes, or call revenue_sink.adopt_sink().")));
		rsink_ask_for_adoption();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 AWAIT_NAP_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * See that a sink is in order, or at least whole for who only reads. One that has
 * come by a restore is waited for until the worker has taken it in.
 */
static void
require_ready(RsinkSink *sink, RsinkRight right)
{
	if (sink->problem == RSINK_READY || right == RSINK_MAY_ANYTHING || right == RSINK_MAY_LOOK ||
		(sink->problem == RSINK_COPY && right == RSINK_MAY_READ))
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
 * Find a sink by its name and see that the current user has the right, and that
 * the sink is in order. The result stays valid until the end of the transaction,
 * though it may say what is committed later. ->shared is NULL on a standby and
 * where the library isn't preloaded, and stands for nothing where ->problem isn't
 * RSINK_READY, which can be for reading, RSINK_MAY_LOOK and RSINK_MAY_ANYTHING.
 *
 * Raises undefined_object for an unknown sink, insufficient_privilege,
 * object_not_in_prerequisite_state and configuration_limit_exceeded.
 */
RsinkSink *
rsink_sink_lookup(const char *name, RsinkRight right)
{
	RsinkSink  *sink;

	if (right == RSINK_MAY_APPLY || right == RSINK_IS_OWNER)
		rsink_require_preload();
	sink = rsink_sink_find(name);
	require_right(sink, right);
	require_ready(sink, right);
	attach(sink);
	return sink;
}

/*
 * The same for calls that finish prepared batches: these also work with tables of
 * an older version, since an update of the tables has to wait for them.
 */
RsinkSink *
rsink_sink_lookup_finishing(const char *name, RsinkRight right)
{
	RsinkSink  *sink = rsink_sink_find(name);

	if (sink->problem != RSINK_OLD)
		return rsink_sink_lookup(name, right);
	require_right(sink, right);
	return sink;
}

/*
 * Find a sink that is to be dropped or adopted, whatever its state, for its
 * owner; see rsink_may_dispose().
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
		require_owner(sink);
	else if (!rsink_may_dispose(sink))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must have owned the views of sink \"%s\" to dispose of what is left of it", sink->name),
				 errdetail("Its views are gone."),
				 errhint("Whoever may read its tables, or owns extension revenue_sink, can do it.")));
	return sink;
}

/* The name of the sink with this value in a column of the catalog, or NULL. */
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
 * The sink of a number, without a check of rights and of its state; NULL if there
 * is none.
 */
RsinkSink *
rsink_sink_by_id(int32 id)
{
	char	   *name = sink_name_where("id", Int32GetDatum(id));

	return name ? rsink_sink_lookup(name, RSINK_MAY_ANYTHING) : NULL;
}

/*
 * The sink of an ingest view, whose trigger is marked with this number; 0: it isn't,
 * as with version 1.0. The executor has checked the INSERT privilege. Raises
 * wrong_object_type for any other relation.
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
				 errhint("Its triggers belong to the views that revenue_sink.create_sink() makes.")));
	return sink;
}

/* Raise wrong_object_type unless the sink has the mode that a call needs. */
void
rsink_sink_require_mode(const RsinkSink *sink, bool totals)
{
	if (sink->totals != totals)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("sink \"%s\" is in mode '%s'", sink->name,
						sink->totals ? "totals" : "events"),
				 sink->totals ?
				 errhint("Write to it with revenue_sink.upsert().") :
				 errhint("Write to it with revenue_sink.apply().")));
}
