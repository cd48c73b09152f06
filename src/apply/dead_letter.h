/*-------------------------------------------------------------------------
 *
 * dead_letter.h
 *	  Dead letters: events that are kept aside for a person.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_DEAD_LETTER_H
#define RSINK_DEAD_LETTER_H

#include "apply/event.h"
#include "sink/sink.h"

extern void rsink_keep_dead_letters(const RsinkSink *sink, RsinkEvent *const *events,
									const char *const *reasons, int n);

#endif							/* RSINK_DEAD_LETTER_H */
