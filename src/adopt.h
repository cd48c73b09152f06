/*-------------------------------------------------------------------------
 *
 * adopt.h
 *	  A sink becomes at home here.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_ADOPT_H
#define RSINK_ADOPT_H

#include "sink.h"

extern char *rsink_tend_problem(RsinkSink *sink);

#endif							/* RSINK_ADOPT_H */
