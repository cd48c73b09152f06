/*-------------------------------------------------------------------------
 *
 * catalog.c
 *	  The extension's tables as C sees them, and how rows get into them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/subtrans.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "commands/extension.h"
#include "executor/tuptable.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "catalog.h"
#include "compat.h"

/*
 * The OID of one of the extension's tables. Raises undefined_table where the
 * extension isn't installed in this database.
 */
Oid
rsink_catalog_relid(const char *name)
{
	Oid			schema = get_namespace_oid(RSINK_SCHEMA, true);
	Oid			relid = OidIsValid(schema) ? get_relname_relid(name, schema) : InvalidOid;

	if (!OidIsValid(relid))
	{
		Oid			extension = get_extension_oid("revenue_sink", true);

		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table \"%s.%s\" does not exist", RSINK_SCHEMA, name),
				 !OidIsValid(extension) ? errhint("Run CREATE EXTENSION revenue_sink in this database.") :
				 OidIsValid(schema) ? errhint("Run ALTER EXTENSION revenue_sink UPDATE in this database.") :
				 errhint("The schema of the extension has been renamed; give it back the name \"%s\" with ALTER SCHEMA.",
						 RSINK_SCHEMA)));
	}
	return relid;
}

/*
 * The OID of the ledger. Version 1.0 has it under another name: calls that finish
 * prepared batches read it before an update, too.
 */
Oid
rsink_ledger_relid(void)
{
	Oid			schema = get_namespace_oid(RSINK_SCHEMA, true);
	Oid			old = OidIsValid(schema) ? get_relname_relid("batch", schema) : InvalidOid;

	return OidIsValid(old) ? old : rsink_catalog_relid("ledger");
}

/* The owner of a relation. */
Oid
rsink_relation_owner(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * Raise wrong_object_type for a table of another access method: rows are written
 * as a heap has them.
 */
void
rsink_require_heap(Relation rel)
{
	if (rel->rd_rel->relam != HEAP_TABLE_AM_OID)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("table \"%s\" is not a heap", RelationGetRelationName(rel)),
				 errhint("Run ALTER TABLE %s SET ACCESS METHOD heap.",
						 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
													RelationGetRelationName(rel)))));
}

/*
 * Open a table and its indexes for inserting; takes RowExclusiveLock. Raises
 * undefined_object where its sink was dropped while we waited for the lock.
 */
void
rsink_table_open(RsinkTable *table, Oid relid)
{
	table->rel = try_table_open(relid, RowExclusiveLock);
	if (table->rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the sink has just been dropped"),
				 errhint("revenue_sink.sink lists the sinks of this database.")));
	rsink_require_heap(table->rel);
	table->indexes = CatalogOpenIndexes(table->rel);
}

/* The same for one of the extension's own tables. */
void
rsink_table_open_named(RsinkTable *table, const char *name)
{
	rsink_table_open(table, rsink_catalog_relid(name));
}

/* Insert a row; its address is in tuple->t_self afterwards. */
void
rsink_table_insert(RsinkTable *table, HeapTuple tuple)
{
	CatalogTupleInsertWithInfo(table->rel, tuple, table->indexes);
}

/* The same from an array of values. */
void
rsink_table_insert_values(RsinkTable *table, Datum *values, bool *nulls)
{
	HeapTuple	tuple = heap_form_tuple(RelationGetDescr(table->rel), values, nulls);

	rsink_table_insert(table, tuple);
	heap_freetuple(tuple);
}

/* The same for many rows at once: one WAL record a page. */
void
rsink_table_insert_many(RsinkTable *table, HeapTuple *tuples, int n)
{
	TupleTableSlot **slots = palloc(n * sizeof(TupleTableSlot *));

	for (int i = 0; i < n; i++)
	{
		slots[i] = MakeSingleTupleTableSlot(RelationGetDescr(table->rel), &TTSOpsHeapTuple);
		ExecStoreHeapTuple(tuples[i], slots[i], false);
	}
	CatalogTuplesMultiInsertWithInfo(table->rel, slots, n, table->indexes);
	for (int i = 0; i < n; i++)
		ExecDropSingleTupleTableSlot(slots[i]);
	pfree(slots);
}

static void
raise_no_index(Relation rel, int attnum)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("table \"%s\" has no index on its column %d",
					RelationGetRelationName(rel), attnum),
			 errhint("Create the index again as a new sink has it.")));
}

/* Close it; the lock stays until the end of the transaction. */
void
rsink_table_close(RsinkTable *table)
{
	CatalogCloseIndexes(table->indexes);
	table_close(table->rel, NoLock);
}

/*
 * The top-level transaction of xid, a transaction in progress. pg_subtrans is kept
 * only back to the oldest snapshot's TransactionXmin, so we hold a snapshot while
 * we look; a transaction from before TransactionXmin isn't in progress.
 */
TransactionId
rsink_topmost_xid(TransactionId xid)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

	if (TransactionIdFollowsOrEquals(xid, TransactionXmin))
		xid = SubTransGetTopmostTransaction(xid);
	UnregisterSnapshot(snapshot);
	return xid;
}

/*
 * Is this transaction a prepared one? Prepared transactions are those in
 * progress that no process runs, whose processes know their top-level ids only.
 * In this order: one that a process has just ended isn't in progress any more.
 */
bool
rsink_xid_is_prepared(TransactionId xid)
{
	TransactionId top;

	if (!TransactionIdIsInProgress(xid))
		return false;
	top = rsink_topmost_xid(xid);
	return BackendXidGetPid(top) == 0 && TransactionIdIsInProgress(top);
}

/* The open index of an open table whose first column is attnum. */
Relation
rsink_table_open_index(const RsinkTable *table, int attnum)
{
	for (int i = 0; i < table->indexes->ri_NumIndices; i++)
	{
		Relation	index = table->indexes->ri_IndexRelationDescs[i];

		if (index->rd_index->indkey.values[0] == attnum && index->rd_index->indisvalid &&
			index->rd_rel->relam == BTREE_AM_OID)
			return index;
	}
	raise_no_index(table->rel, attnum);
	return NULL;				/* not reached */
}

/* The index of a table whose first column is attnum. */
Oid
rsink_table_index(Relation rel, int attnum)
{
	List	   *indexes = RelationGetIndexList(rel);
	Oid			result = InvalidOid;
	ListCell   *lc;

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (index->rd_index->indkey.values[0] == attnum && index->rd_index->indisvalid)
			result = RelationGetRelid(index);
		index_close(index, AccessShareLock);
		if (OidIsValid(result))
			break;
	}
	list_free(indexes);
	if (!OidIsValid(result))
		raise_no_index(rel, attnum);
	return result;
}

/*
 * A time in a sink's row of the table sink_state, whose OID is given, in a snapshot
 * or, if that is NULL, as of now; DT_NOBEGIN if it is null, or there is no such row.
 */
TimestampTz
rsink_state_time(Oid state, int32 id, int attnum, Snapshot snapshot)
{
	Relation	rel = table_open(state, AccessShareLock);
	Snapshot	registered = RegisterSnapshot(snapshot ? snapshot : GetLatestSnapshot());
	TimestampTz time = DT_NOBEGIN;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_state_sink_id, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(id));
	scan = systable_beginscan(rel, rsink_table_index(rel, Anum_state_sink_id), true, registered, 1, &key);
	if (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		Datum		datum = heap_getattr(tuple, attnum, RelationGetDescr(rel), &isnull);

		if (!isnull)
			time = DatumGetTimestampTz(datum);
	}
	systable_endscan(scan);
	UnregisterSnapshot(registered);
	table_close(rel, AccessShareLock);
	return time;
}
