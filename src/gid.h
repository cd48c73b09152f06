/*-------------------------------------------------------------------------
 *
 * gid.h
 *	  Identifiers of prepared transactions: made once, known again for ever.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_GID_H
#define RSINK_GID_H

#include "access/transam.h"

#include "writer.h"

/* What a gid of ours says. */
typedef struct RsinkGid
{
	RsinkSink  *sink;
	char		job[NAMEDATALEN];	/* as written in the gid */
	char		writer[NAMEDATALEN];
	int64		epoch;
	int64		number;
	FullTransactionId xid;
} RsinkGid;

extern char *rsink_gid_make(const RsinkBatch *batch);
extern bool rsink_gid_parse(const char *text, RsinkGid *gid);
extern void rsink_gid_name(const RsinkSink *sink, const char *name, char *out);

#endif							/* RSINK_GID_H */
