/*-------------------------------------------------------------------------
 *
 * answers.h
 *	  The answers to the events of a call, as an array of text.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_ANSWERS_H
#define RSINK_ANSWERS_H

#include "utils/array.h"

#include "apply/event.h"

/* An array of answers that is being filled from front to back. */
typedef struct RsinkAnswers
{
	ArrayType  *array;
	char	   *next;			/* where the next element goes */
} RsinkAnswers;

extern void rsink_answers_begin(RsinkAnswers *answers, int n);
extern void rsink_answers_add(RsinkAnswers *answers, const RsinkEvent *events, int n);
extern ArrayType *rsink_answers_end(RsinkAnswers *answers);

#endif							/* RSINK_ANSWERS_H */
