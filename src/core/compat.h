/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  The differences between PostgreSQL 15 and 18.
 *
 * No other file asks for the server's version.
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
#define rsink_locator(rel) ((rel)->rd_locator)
#define rsink_owns_relation(relid, role) \
	object_ownercheck(RelationRelationId, (relid), (role))
#define rsink_schema_aclcheck(nsp, role, mode) \
	object_aclcheck(NamespaceRelationId, (nsp), (role), (mode))

/* What ExecutorCheckPerms_hook gets. Both types have relid and requiredPerms. */
typedef RTEPermissionInfo RsinkPermission;
#define RSINK_CHECK_PERMS_PARAMETERS \
	List *rangetable, List *permissions, bool raise
#define RSINK_CHECK_PERMS_ARGUMENTS rangetable, permissions, raise
#else
#define rsink_relfile(rel) ((rel)->rd_node.relNode)
#define rsink_locator(rel) ((rel)->rd_node)
#define rsink_owns_relation(relid, role) pg_class_ownercheck((relid), (role))
#define rsink_schema_aclcheck(nsp, role, mode) \
	pg_namespace_aclcheck((nsp), (role), (mode))

typedef RangeTblEntry RsinkPermission;
#define RSINK_CHECK_PERMS_PARAMETERS List *permissions, bool raise
#define RSINK_CHECK_PERMS_ARGUMENTS permissions, raise
#endif

/* How many live rows a table's entry in the cumulative statistics has. */
#if PG_VERSION_NUM >= 160000
#define rsink_live_tuples(entry) ((entry)->live_tuples)
#else
#define rsink_live_tuples(entry) ((entry)->n_live_tuples)
#endif

/*
 * datconnlimit of a database whose DROP was interrupted. PostgreSQL 15.4 and 16
 * define a macro for this value, earlier ones don't.
 */
#define RSINK_DATCONNLIMIT_INVALID (-2)

/* The next datum of a sort, as a copy. */
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

/* Vacuum a list of tables, at the top level. */
#if PG_VERSION_NUM >= 160000
#define rsink_vacuum_list(relations, params, context) \
	vacuum((relations), (params), NULL, (context), true)
#else
#define rsink_vacuum_list(relations, params, context) \
	vacuum((relations), (params), NULL, true)
#endif

#endif							/* RSINK_COMPAT_H */
