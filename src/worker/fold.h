/*-------------------------------------------------------------------------
 *
 * fold.h
 *	  Folding: removes what no longer counts from tables into which writers only insert.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_FOLD_H
#define RSINK_FOLD_H

#include "sink/sink.h"

extern int	rsink_dead_letter_retention;
extern int	rsink_rejected_retention;
extern int	rsink_unresolved_retention;

extern void rsink_fold(RsinkSink *sink);

#endif							/* RSINK_FOLD_H */
