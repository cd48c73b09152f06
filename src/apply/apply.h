/*-------------------------------------------------------------------------
 *
 * apply.h
 *	  The path of all events: validate, fingerprint, check and claim, add up.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_APPLY_H
#define RSINK_APPLY_H

#include "apply/event.h"
#include "sink/sink.h"

/* A call that is under way, or a part of one. */
typedef struct RsinkApply RsinkApply;

extern RsinkApply *rsink_apply_begin(RsinkSink *sink, bool settling);
extern RsinkApply *rsink_apply_begin_import(RsinkSink *sink);
extern RsinkApply *rsink_apply_begin_resolving(RsinkSink *sink);
extern const char *rsink_apply_fault(const RsinkApply *apply, const RsinkEvent *event);
extern void rsink_apply_skip(RsinkApply *apply, int64 n);
extern void rsink_apply_events(RsinkApply *apply, RsinkEvent *events, int n);
extern void rsink_apply_end(RsinkApply *apply, RsinkCounts *counts);

#endif							/* RSINK_APPLY_H */
