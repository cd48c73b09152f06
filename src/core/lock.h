/*-------------------------------------------------------------------------
 *
 * lock.h
 *	  The maintenance lock of a sink, and exclusive locks on relations.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_LOCK_H
#define RSINK_LOCK_H

#include "sink/sink.h"

extern bool rsink_maintenance_lock(const RsinkSink *sink, bool wait);
extern void rsink_lock_exclusively(const Oid *relids, int n, const char *used);

#endif							/* RSINK_LOCK_H */
