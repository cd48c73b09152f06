/*-------------------------------------------------------------------------
 *
 * own.h
 *	  Events of a sink's own, which were not imported.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_OWN_H
#define RSINK_OWN_H

#include "seen/seen.h"
#include "sink/sink.h"

extern bool rsink_own_row_exists(const RsinkSeen *seen);
extern void rsink_raise_own(const RsinkSink *sink);
extern void rsink_require_no_own(const RsinkSink *sink);

#endif							/* RSINK_OWN_H */
