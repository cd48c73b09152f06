/*-------------------------------------------------------------------------
 *
 * gid.h
 *	  Identifiers of prepared transactions: made once, known again for ever.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_GID_H
#define RSINK_GID_H

#include "access/skey.h"
#include "access/transam.h"

#include "writer.h"

/* The most keys that find a gid's rows in the ledger. */
#define RSINK_GID_KEYS 5

/* What a gid of ours says. */
typedef struct RsinkGid
{
	RsinkSink  *sink;
	char		job[NAMEDATALEN];	/* as written in the gid */
	char		writer[NAMEDATALEN];
	int64		epoch;
	int64		number;
	FullTransactionId xid;
	bool		elsewhere;		/* made in another database or on another server,
								 * where xid may be any transaction's */
} RsinkGid;

extern char *rsink_gid_make(const RsinkBatch *batch);
extern bool rsink_gid_parse(const char *text, RsinkGid *gid);
extern int	rsink_gid_keys(const RsinkGid *gid, ScanKeyData *keys);
extern void rsink_gid_name(const RsinkSink *sink, const char *name, char *out);

#endif							/* RSINK_GID_H */
