/*-------------------------------------------------------------------------
 *
 * encoding.h
 *	  The bytes of text that are hashed, equal on each server that holds a sink.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_ENCODING_H
#define RSINK_ENCODING_H

#include "apply/fingerprint.h"
#include "sink/sink.h"

extern const char *rsink_encoding_of_new_sinks(void);
extern bool rsink_encoding_set(RsinkSink *sink, const char *name);
extern const char *rsink_hashed_text(const RsinkSink *sink, const char *text, int32 *len);
extern bool rsink_event_identity(const RsinkSink *sink, const text *order_id, const text *event_id,
								 RsinkFingerprint *fp);

#endif							/* RSINK_ENCODING_H */
