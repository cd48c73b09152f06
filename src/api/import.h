/*-------------------------------------------------------------------------
 *
 * import.h
 *	  Importing totals and seen events into a new sink.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_IMPORT_H
#define RSINK_IMPORT_H

#include "fmgr.h"

#include "sink/sink.h"

extern RsinkSink *rsink_import_sink(FunctionCallInfo fcinfo, const char *call);
extern void rsink_import_note_seen(const RsinkSink *sink, int64 events);

#endif							/* RSINK_IMPORT_H */
