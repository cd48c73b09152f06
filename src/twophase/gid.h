/*-------------------------------------------------------------------------
 *
 * gid.h
 *	  Identifiers of prepared transactions (gids): making them, and reading them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_GID_H
#define RSINK_GID_H

#include "access/skey.h"
#include "access/transam.h"

#include "sink/sink.h"
#include "writer/batch.h"

/* What a gid says. */
typedef struct RsinkGid
{
	RsinkSink  *sink;
	char		job[NAMEDATALEN];	/* as in the gid: maybe hashed */
	char		writer[NAMEDATALEN];
	int64		epoch;
	int64		number;
	FullTransactionId xid;
	bool		elsewhere;		/* made in another database or on another server,
								 * where xid may be any transaction's */
	bool		of_1_0;			/* doesn't name the server: may be made elsewhere */
} RsinkGid;

extern char *rsink_gid_make(const RsinkBatch *batch);
extern bool rsink_gid_parse(const char *text, RsinkGid *gid);
extern int	rsink_gid_keys(const RsinkGid *gid, ScanKeyData *keys);
extern bool rsink_gid_is_of(const RsinkGid *gid, const Datum *values);
extern void rsink_gid_name(const RsinkSink *sink, const char *name, char *out);

#endif							/* RSINK_GID_H */
