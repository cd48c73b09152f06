/*-------------------------------------------------------------------------
 *
 * problem.h
 *	  Finding out why a sink takes no events, and reporting it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_PROBLEM_H
#define RSINK_PROBLEM_H

#include "sink/sink.h"

extern RsinkProblem rsink_find_problem(RsinkSink *sink, const char *encoding, const bytea *sample);
extern void rsink_require_tables(void);
extern char *rsink_sink_problem(const RsinkSink *sink);
extern char *rsink_sentence(const char *problem);
extern void rsink_raise_problem(const RsinkSink *sink);

#endif							/* RSINK_PROBLEM_H */
