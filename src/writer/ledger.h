/*-------------------------------------------------------------------------
 *
 * ledger.h
 *	  The ledger: a row per batch, or per range of batches, and how it is found.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_LEDGER_H
#define RSINK_LEDGER_H

#include "access/skey.h"
#include "utils/relcache.h"

#include "writer/batch.h"

/* What the ledger says of the number of a batch. */
typedef enum RsinkLedgerState
{
	RSINK_LEDGER_NEW,				/* nothing: the batch may begin */
	RSINK_LEDGER_DONE,				/* committed, or prepared */
	RSINK_LEDGER_OPEN,				/* the number's transaction is open */
	RSINK_LEDGER_PASSED				/* a higher number of the epoch is done */
} RsinkLedgerState;

/* A batch, as its row in the ledger names it. */
typedef struct RsinkLedgerBatch
{
	char	   *job;
	char	   *writer;
	int64		number;
	TimestampTz ended_at;
} RsinkLedgerBatch;

/*
 * The most scan keys that find rows of the ledger, those of
 * rsink_ledger_keys_from() included.
 */
#define RSINK_LEDGER_KEYS 5

extern int	rsink_ledger_keys(int32 sink_id, const char *job, const char *writer, ScanKeyData *keys);
extern int	rsink_ledger_keys_from(int64 epoch, int64 number, ScanKeyData *keys, int nkeys);
extern RsinkLedgerState rsink_ledger_state(Relation ledger, const RsinkBatch *b);
extern bool rsink_ledger_find(int32 sink_id, TransactionId xid, RsinkLedgerBatch *batch);
extern void rsink_ledger_register(RsinkBatch *b);
extern void rsink_ledger_complete(RsinkBatch *b);

#endif							/* RSINK_LEDGER_H */
