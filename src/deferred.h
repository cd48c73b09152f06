/*-------------------------------------------------------------------------
 *
 * deferred.h
 *	  Events that wait for another transaction's end, and the dead letters.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_DEFERRED_H
#define RSINK_DEFERRED_H

#include "batch.h"
#include "catalog.h"
#include "sink.h"

extern void rsink_defer(const RsinkSink *sink, RsinkTable *table,
						RsinkEvent *const *events, int n);
extern void rsink_reject(const RsinkSink *sink, RsinkEvent *const *events,
						 const char *const *reasons, int n);

#endif							/* RSINK_DEFERRED_H */
