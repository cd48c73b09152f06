/*-------------------------------------------------------------------------
 *
 * unpreparable.c
 *	  Calls after which a transaction must not be prepared.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"

#include "twophase/unpreparable.h"

static const char *unpreparable;	/* the last such call of this transaction, or NULL */

/*
 * From now on the current transaction must not be prepared. "call" names the
 * function that it has called, in static memory.
 */
void
rsink_forbid_prepare(const char *call)
{
	unpreparable = call;
}

/* Raise feature_not_supported if the current transaction must not be prepared. */
void
rsink_refuse_unpreparable(void)
{
	if (unpreparable)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction that has called %s", unpreparable),
				 errhint("COMMIT instead: while the transaction is prepared, its locks would stop the sink.")));
}

static void
xact_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_PREPARE)
		rsink_refuse_unpreparable();
	else if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT)
		unpreparable = NULL;
}

/* Called once per process, from _PG_init. */
void
rsink_init_unpreparable(void)
{
	RegisterXactCallback(xact_callback, NULL);
}
