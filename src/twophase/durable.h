/*-------------------------------------------------------------------------
 *
 * durable.h
 *	  Answers that are as durable as what they speak of.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_DURABLE_H
#define RSINK_DURABLE_H

extern void rsink_durable_answer(void);

#endif							/* RSINK_DURABLE_H */
