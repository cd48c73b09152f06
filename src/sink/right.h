/*-------------------------------------------------------------------------
 *
 * right.h
 *	  Who may do what with a sink.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_RIGHT_H
#define RSINK_RIGHT_H

/* What the caller must be allowed to do with a sink. */
typedef enum RsinkRight
{
	RSINK_MAY_ANYTHING,			/* no check: internal use */
	RSINK_MAY_APPLY,			/* INSERT on the ingest view */
	RSINK_MAY_READ,				/* SELECT on the fact view, or RSINK_MAY_APPLY, or
								 * ownership of a relation */
	RSINK_MAY_LOOK,				/* as RSINK_MAY_READ, whatever the sink's problem */
	RSINK_MAY_WATCH,			/* RSINK_MAY_LOOK, or the rights of pg_read_all_stats,
								 * whatever has become of the views; not for what
								 * shows events */
	RSINK_IS_OWNER				/* owns the ingest view */
} RsinkRight;

struct RsinkSink;

extern bool rsink_owns_extension(void);
extern bool rsink_reads_all_stats(void);
extern bool rsink_may_dispose(const struct RsinkSink *sink);
extern bool rsink_sink_allows(const struct RsinkSink *sink, RsinkRight right);
extern void rsink_require_owner(const struct RsinkSink *sink);
extern void rsink_require_right(const struct RsinkSink *sink, RsinkRight right);

#endif							/* RSINK_RIGHT_H */
