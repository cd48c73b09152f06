/*-------------------------------------------------------------------------
 *
 * lock.c
 *	  The maintenance lock of a sink, and exclusive locks on relations.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/lmgr.h"

#include "core/compat.h"
#include "core/lock.h"
#include "core/spi_util.h"
#include "sink/sink.h"

/*
 * The gid of a prepared transaction that holds a lock on one of these relations, or
 * NULL. Caller is connected by rsink_spi_begin().
 */
static char *
prepared_user(const Oid *relids, int n)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < n; i++)
		appendStringInfo(&list, "%s%u", i > 0 ? ", " : "", relids[i]);
	if (rsink_spi(SPI_OK_SELECT,
				  "SELECT p.gid FROM pg_locks l "
				  "  JOIN pg_locks x ON x.virtualtransaction = l.virtualtransaction "
				  "    AND x.locktype = 'transactionid' AND x.pid IS NULL "
				  "  JOIN pg_prepared_xacts p ON p.transaction = x.transactionid "
				  "WHERE l.locktype = 'relation' AND l.pid IS NULL AND l.database = "
				  "  (SELECT oid FROM pg_database WHERE datname = current_database()) "
				  "  AND l.relation IN (%s) ORDER BY p.prepared LIMIT 1", list.data) == 0)
		return NULL;
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
}

/*
 * Take AccessExclusiveLock on n relations, until the end of the transaction. The
 * caller gives them in the order in which a statement that writes locks them, so
 * that no deadlock arises. Waits for open transactions. Raises object_in_use, with
 * the gid, if a prepared transaction holds a lock on one of the relations: nobody
 * knows when it will end, and everybody else would queue up behind us. "used" names
 * in the message what is locked. InvalidOid among the relations is skipped.
 */
void
rsink_lock_exclusively(const Oid *relids, int n, const char *used)
{
	for (int i = 0; i < n; i++)
	{
		RsinkSpi	spi;
		char	   *gid;

		if (!OidIsValid(relids[i]) || ConditionalLockRelationOid(relids[i], AccessExclusiveLock))
			continue;
		rsink_spi_begin(&spi);
		if ((gid = prepared_user(relids, n)) != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("%s is used by the prepared transaction \"%s\"", used, gid),
					 errhint("Commit or roll back the prepared transaction first.")));
		rsink_spi_end(&spi);
		LockRelationOid(relids[i], AccessExclusiveLock);
	}
}

/*
 * Take the maintenance lock of a sink, until the end of the transaction. Whoever
 * settles, merges, expires, packs, imports or adopts holds it; no writer ever asks for it.
 * Returns false if somebody else has the lock and "wait" is false.
 */
bool
rsink_maintenance_lock(const RsinkSink *sink, bool wait)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, RelationRelationId, sink->total, 0);
	return LockAcquire(&tag, ExclusiveLock, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}
