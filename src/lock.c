/*-------------------------------------------------------------------------
 *
 * lock.c
 *	  Taking relations away from everybody else, to drop or to change them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/lmgr.h"

#include "compat.h"
#include "lock.h"
#include "spi_util.h"

/* The gid of a prepared transaction that has a lock on one of them, or NULL. */
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
 * Take relations away from everybody else, to the end of the transaction, in the
 * order given: the one in which a statement that writes takes them. Open
 * transactions are waited for. Raises object_in_use, naming the gid, where a
 * prepared one has used a relation: nobody knows for how long that will be held,
 * and all others would queue up behind us. "used" is what the message speaks of.
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
