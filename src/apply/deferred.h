/*-------------------------------------------------------------------------
 *
 * deferred.h
 *	  Deferred events: events that wait for another transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_DEFERRED_H
#define RSINK_DEFERRED_H

#include "apply/event.h"
#include "core/catalog.h"
#include "sink/sink.h"

extern void rsink_defer(const RsinkSink *sink, RsinkTable *table,
						RsinkEvent *const *events, int n);

#endif							/* RSINK_DEFERRED_H */
