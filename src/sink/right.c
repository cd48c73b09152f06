/*-------------------------------------------------------------------------
 *
 * right.c
 *	  Who may do what with a sink.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "sink/problem.h"
#include "sink/right.h"
#include "sink/sink.h"

/* Has the current user this privilege on a relation that may be gone? */
static bool
has_privilege(Oid relid, AclMode mode)
{
	bool		is_missing = false;

	return pg_class_aclcheck_ext(relid, GetUserId(), mode, &is_missing) == ACLCHECK_OK;
}

/* Does the current user own a relation that may be gone? */
static bool
owns(Oid relid)
{
	return SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)) &&
		rsink_owns_relation(relid, GetUserId());
}

/* Has the current user the rights of the role that owns the extension? */
bool
rsink_owns_extension(void)
{
	return has_privs_of_role(GetUserId(), rsink_relation_owner(rsink_catalog_relid("sink_catalog")));
}

/* Has the current user the rights of pg_read_all_stats, as members of pg_monitor do? */
bool
rsink_reads_all_stats(void)
{
	return has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);
}

/*
 * Has the current user the rights of a role that has been granted SELECT on the
 * sink's page rows? Such roles own the sink's views, or owned them until the views
 * were dropped.
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
 * May the current user drop or adopt the sink? The sink's owner may, and so may the
 * extension's owner; if the ingest view is gone, roles that have owned it may, too.
 */
bool
rsink_may_dispose(const RsinkSink *sink)
{
	return owns(sink->ingest) || (get_rel_name(sink->ingest) == NULL && has_owned(sink)) ||
		rsink_owns_extension();
}

/*
 * Has the current user this right on the sink? A view that is gone gives no rights.
 */
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
		case RSINK_MAY_WATCH:
			return rsink_sink_allows(sink, RSINK_MAY_LOOK) || rsink_reads_all_stats();
		case RSINK_IS_OWNER:
			return owns(sink->ingest);
	}
	return false;
}

/* Raise insufficient_privilege unless the current user owns the sink. */
void
rsink_require_owner(const RsinkSink *sink)
{
	if (!rsink_sink_allows(sink, RSINK_IS_OWNER))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of sink \"%s\"", sink->name),
				 errhint("The owner of the ingest view \"%s\" owns the sink.",
						 get_rel_name(sink->ingest))));
}

/*
 * Raise insufficient_privilege unless the current user has the right, and
 * undefined_table or the sink's problem if one of its views is gone. The rights of
 * pg_read_all_stats don't come from a view, and so remain when the views are gone.
 */
void
rsink_require_right(const RsinkSink *sink, RsinkRight right)
{
	if (right == RSINK_MAY_ANYTHING || (right == RSINK_MAY_WATCH && rsink_reads_all_stats()))
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
		rsink_require_owner(sink);
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
