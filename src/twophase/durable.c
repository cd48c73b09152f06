/*-------------------------------------------------------------------------
 *
 * durable.c
 *	  Answers that are as durable as what they speak of.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"

#include "core/compat.h"
#include "twophase/durable.h"

/*
 * See to it that the COMMIT of the current transaction waits for disk and
 * synchronous standbys, though the transaction has written nothing. It has told
 * its client of effects that others have committed, and this answer must not
 * outlive those effects.
 *
 * A commit without a transaction id, or without WAL before its own record, waits
 * for nothing. A logical message gives the transaction both, and no resource
 * manager of ours is needed to replay it.
 */
void
rsink_durable_answer(void)
{
	if (!TransactionIdIsValid(GetTopTransactionIdIfAny()) || XactLastRecEnd == InvalidXLogRecPtr)
		rsink_log_message("revenue_sink", "answer", 6);
}
