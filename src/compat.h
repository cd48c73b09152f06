/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  What differs between PostgreSQL 15 and 18, and nowhere else.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_COMPAT_H
#define RSINK_COMPAT_H

#include "access/genam.h"
#include "access/xlogdefs.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "executor/executor.h"
#include "nodes/parsenodes.h"
#include "replication/message.h"
#include "utils/acl.h"
#include "utils/rel.h"

#if PG_VERSION_NUM >= 160000
#include "catalog/pg_database.h"
#include "parser/parse_relation.h"
#include "varatt.h"
#define rsink_relfile(rel) ((rel)->rd_locator.relNumber)
#define rsink_owns_relation(relid, role) \
	object_ownercheck(RelationRelationId, (relid), (role))
#define rsink_schema_aclcheck(nsp, role, mode) \
	object_aclcheck(NamespaceRelationId, (nsp), (role), (mode))

/* What a hook of ExecutorCheckPerms gets; both types have relid and requiredPerms. */
typedef RTEPermissionInfo RsinkPermission;
#define RSINK_CHECK_PERMS_PARAMETERS \
	List *rangetable, List *permissions, bool raise
#define RSINK_CHECK_PERMS_ARGUMENTS rangetable, permissions, raise
#else
#define rsink_relfile(rel) ((rel)->rd_node.relNode)
#define rsink_owns_relation(relid, role) pg_class_ownercheck((relid), (role))
#define rsink_schema_aclcheck(nsp, role, mode) \
	pg_namespace_aclcheck((nsp), (role), (mode))

typedef RangeTblEntry RsinkPermission;
#define RSINK_CHECK_PERMS_PARAMETERS List *permissions, bool raise
#define RSINK_CHECK_PERMS_ARGUMENTS permissions, raise
#endif

/* Rows of a table, as its entry in the cumulative statistics has them. */
#if PG_VERSION_NUM >= 160000
#define rsink_live_tuples(entry) ((entry)->live_tuples)
#else
#define rsink_live_tuples(entry) ((entry)->n_live_tuples)
#endif

/* Of a database whose DROP was interrupted; 15.4 and 16 know it. */
#define RSINK_DATCONNLIMIT_INVALID (-2)

/* The next one of a sort, a copy. */
#if PG_VERSION_NUM >= 160000
#define rsink_tuplesort_getdatum(sort, value, isnull) \
	tuplesort_getdatum((sort), true, true, (value), (isnull), NULL)
#else
#define rsink_tuplesort_getdatum(sort, value, isnull) \
	tuplesort_getdatum((sort), true, (value), (isnull), NULL)
#endif

#if PG_VERSION_NUM >= 170000
#define rsink_log_message(prefix, msg, len) \
	LogLogicalMessage((prefix), (msg), (len), true, false)
#else
#define rsink_log_message(prefix, msg, len) \
	LogLogicalMessage((prefix), (msg), (len), true)
#endif

#if PG_VERSION_NUM >= 180000
#define rsink_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan((heap), (index), (snapshot), NULL, (nkeys), 0)
#else
#define rsink_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan((heap), (index), (snapshot), (nkeys), 0)
#endif

#endif							/* RSINK_COMPAT_H */
