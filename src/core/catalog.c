/*-------------------------------------------------------------------------
 *
 * catalog.c
 *	  Access from C to the extension's tables, and inserting rows into them.
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

#include "core/catalog.h"
#include "core/compat.h"

/*
 * The OID of one of the extension's tables. Raises undefined_table if the
 * extension isn't installed in this database, lacks the table because it is of an
 * older version, or has had its schema renamed.
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
 * The OID of the ledger. In version 1.0 the ledger's name is "batch"; calls that
 * finish prepared batches work before the tables are updated, too, and then read
 * that table.
 */
Oid
rsink_ledger_relid(void)
{
	Oid			schema = get_namespace_oid(RSINK_SCHEMA, true);
	Oid			old = OidIsValid(schema) ? get_relname_relid("batch", schema) : InvalidOid;

	return OidIsValid(old) ? old : rsink_catalog_relid("ledger");
}

/* The role that owns a relation. */
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
 * Raise wrong_object_type for a table whose access method isn't heap, because our
 * code reads and writes rows as heap tuples.
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
 * Open a table and its indexes for inserting. Takes RowExclusiveLock on the table.
 * Raises undefined_object if the table's sink has been dropped while we waited for
 * the lock.
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

/*
 * Open one of the extension's shared tables, which is given by its name, for
 * inserting; see rsink_table_open().
 */
void
rsink_table_open_named(RsinkTable *table, const char *name)
{
	rsink_table_open(table, rsink_catalog_relid(name));
}

/* Insert a row, and set tuple->t_self to the address that it gets. */
void
rsink_table_insert(RsinkTable *table, HeapTuple tuple)
{
	CatalogTupleInsertWithInfo(table->rel, tuple, table->indexes);
}

/* Insert a row that has these values in its columns. */
void
rsink_table_insert_values(RsinkTable *table, Datum *values, bool *nulls)
{
	HeapTuple	tuple = heap_form_tuple(RelationGetDescr(table->rel), values, nulls);

	rsink_table_insert(table, tuple);
	heap_freetuple(tuple);
}

/* Insert many rows at once, with one WAL record per page. */
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

/* Raise undefined_object for an index that somebody has dropped. */
static void
raise_no_index(Relation rel, int attnum)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("table \"%s\" has no index on its column %d",
					RelationGetRelationName(rel), attnum),
			 errhint("Create the index again, as on the table of a new sink.")));
}

/* Close an open table. Its lock is held until the end of the transaction. */
void
rsink_table_close(RsinkTable *table)
{
	CatalogCloseIndexes(table->indexes);
	table_close(table->rel, NoLock);
}

/*
 * The b-tree index of an open table whose first column is attnum. The index is open
 * already and is closed with the table. Raises undefined_object if there is none.
 */
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

/*
 * The OID of an index of a table whose first column is attnum. Raises
 * undefined_object if there is none.
 */
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
 * Read a timestamp column from a sink's row of the table sink_state. "state" is the
 * OID of that table, "id" the sink's number. If the snapshot is NULL, the latest
 * one is used. Returns DT_NOBEGIN if the column is NULL or the sink has no row.
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
