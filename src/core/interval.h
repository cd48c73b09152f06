/*-------------------------------------------------------------------------
 *
 * interval.h
 *	  Intervals of fixed length: the values of some settings of a sink.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_INTERVAL_H
#define RSINK_INTERVAL_H

#include "datatype/timestamp.h"

extern int64 rsink_interval_usecs(const Interval *interval, const char *what);

#endif							/* RSINK_INTERVAL_H */
