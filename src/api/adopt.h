/*-------------------------------------------------------------------------
 *
 * adopt.h
 *	  Adoption: making this database the home of a sink.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_ADOPT_H
#define RSINK_ADOPT_H

#include "sink/sink.h"

extern char *rsink_tend_problem(RsinkSink *sink);

#endif							/* RSINK_ADOPT_H */
