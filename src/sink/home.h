/*-------------------------------------------------------------------------
 *
 * home.h
 *	  Where a sink is at home, and how it comes to be at home elsewhere.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_HOME_H
#define RSINK_HOME_H

#include "sink/sink.h"

/* The tables with rows of all sinks, which have a column sink_id. */
#define RSINK_NSHARED_TABLES 9
extern const char *const rsink_shared_tables[RSINK_NSHARED_TABLES];

extern bool rsink_is_at_home(int32 id);
extern bool rsink_is_copy(int32 id);
extern Oid	rsink_subscription_of(const RsinkSink *sink);
extern char *rsink_missing_relation(const RsinkSink *sink, bool views);
extern char *rsink_missing_rows(const RsinkSink *sink, bool streamed);
extern char *rsink_home_missing(const RsinkSink *sink, bool streamed);
extern bool rsink_is_synchronized(const RsinkSink *sink);
extern const char *rsink_noted_totals(RsinkMode mode);
extern char *rsink_missing_totals(const RsinkSink *sink);
extern void rsink_balance(int32 id, int64 *counted, int64 *seen);
extern void rsink_home_create(int32 id, const char *sink);
extern void rsink_home_drop(int32 id);
extern void rsink_note_copy(int32 id, const char *sink);
extern void rsink_insert_arrival_rows(int32 id, bool totals);

#endif							/* RSINK_HOME_H */
