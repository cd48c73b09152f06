/*-------------------------------------------------------------------------
 *
 * pack.h
 *	  Packing: replaces the small page rows that small calls insert with full ones.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_PACK_H
#define RSINK_PACK_H

#include "sink/sink.h"

extern int64 rsink_pack(RsinkSink *sink);

#endif							/* RSINK_PACK_H */
