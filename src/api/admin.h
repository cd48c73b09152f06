/*-------------------------------------------------------------------------
 *
 * admin.h
 *	  Creating, altering and dropping sinks.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_ADMIN_H
#define RSINK_ADMIN_H

#include "sink/sink.h"

extern void rsink_pass_on_tables(const RsinkSink *sink);
extern void rsink_mend_rights(const RsinkSink *sink);

#endif							/* RSINK_ADMIN_H */
