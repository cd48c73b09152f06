/*-------------------------------------------------------------------------
 *
 * unpreparable.h
 *	  Calls after which a transaction must not be prepared.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_UNPREPARABLE_H
#define RSINK_UNPREPARABLE_H

extern void rsink_forbid_prepare(const char *call);
extern void rsink_refuse_unpreparable(void);
extern void rsink_init_unpreparable(void);

#endif							/* RSINK_UNPREPARABLE_H */
