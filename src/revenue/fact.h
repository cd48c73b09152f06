/*-------------------------------------------------------------------------
 *
 * fact.h
 *	  The fact view: its definition, and the functions that it calls.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_FACT_H
#define RSINK_FACT_H

extern void rsink_create_fact(int32 id, bool totals, const char *view);
extern void rsink_replace_fact(int32 id, bool totals, Oid relid);

#endif							/* RSINK_FACT_H */
