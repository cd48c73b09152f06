/*-------------------------------------------------------------------------
 *
 * sink.h
 *	  The sinks of a database: a cache of the sink catalog, and rights on sinks.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_SINK_H
#define RSINK_SINK_H

#include "access/tupdesc.h"
#include "datatype/timestamp.h"
#include "utils/relcache.h"

#include "apply/fingerprint.h"
#include "sink/choice.h"
#include "sink/right.h"
#include "sink/slot.h"

/*
 * Why a sink takes no events, and why the worker doesn't touch it. Some problems
 * don't keep the sink from being read; see rsink_sink_lookup().
 */
typedef enum RsinkProblem
{
	RSINK_READY,				/* no problem */
	RSINK_OLD,					/* the tables are of an older version */
	RSINK_BROKEN,				/* a relation is gone, or isn't the sink's */
	RSINK_FOREIGN,				/* this server hashes events in another way */
	RSINK_COPY,					/* a subscription writes to the sink */
	RSINK_ASLEEP				/* not at home here, as after a restore; see home.c */
} RsinkProblem;

/*
 * A row of the sink catalog, as the backend caches it. The OID of a relation that is
 * gone, or isn't the sink's, is InvalidOid.
 */
typedef struct RsinkSink
{
	char		name[NAMEDATALEN];	/* key of the cache */
	int32		id;
	bool		valid;			/* false: read the catalog again */
	RsinkMode	mode;
	RsinkLatePolicy late_policy;
	RsinkBadPolicy bad_policy;
	RsinkProblem problem;
	Oid			subscription;	/* writes to the sink; or InvalidOid */
	int			encoding;		/* in which text is hashed; -1 if unknown */
	Oid			conversion;		/* function that converts text to that encoding;
								 * InvalidOid if text is hashed as it is */
	Oid			fact;
	Oid			ingest;
	Oid			seen;
	Oid			slice;
	Oid			sealed;
	Oid			filter;
	Oid			delta;
	Oid			total;
	int64		bucket;			/* microseconds */
	int64		dedup_window;	/* microseconds */
	int64		max_future;		/* microseconds */
	int64		retain;			/* microseconds; 0 keeps everything */
	unsigned char key[RSINK_HASH_KEY_BYTES];
	RsinkShared *shared;		/* the slot; see rsink_sink_lookup() */
} RsinkSink;

extern RsinkSink *rsink_sink_lookup(const char *name, RsinkRight right);
extern RsinkSink *rsink_sink_lookup_finishing(const char *name, RsinkRight right);
extern RsinkSink *rsink_sink_lookup_owned(const char *name);
extern RsinkSink *rsink_sink_find(const char *name);
extern bool rsink_tables_are_old(void);
extern RsinkSink *rsink_sink_by_id(int32 id);
extern RsinkSink *rsink_sink_by_ingest(Oid relid, int32 id);
extern void rsink_sink_require_mode(const RsinkSink *sink, RsinkMode mode);
extern void rsink_sink_changed(void);
extern void rsink_init_sink(void);

#endif							/* RSINK_SINK_H */
