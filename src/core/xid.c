/*-------------------------------------------------------------------------
 *
 * xid.c
 *	  The top-level transaction of a transaction id, and whether it is prepared.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/subtrans.h"
#include "access/transam.h"
#include "storage/procarray.h"
#include "utils/snapmgr.h"

#include "core/xid.h"

/*
 * The top-level transaction of xid, which was in progress a moment ago. pg_subtrans
 * may be read only back to TransactionXmin, so we hold a snapshot while we look. An
 * xid before TransactionXmin isn't in progress any more, and is returned as it is.
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
 * Is this transaction prepared? A transaction in progress that no process runs is
 * a prepared one. A process shows only its top-level transaction id, so we ask for
 * that. We ask whether the transaction is in progress after we have looked for its
 * process, because the process may just have ended the transaction.
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

