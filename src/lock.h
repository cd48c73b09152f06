/*-------------------------------------------------------------------------
 *
 * lock.h
 *	  Taking relations away from everybody else, to drop or to change them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_LOCK_H
#define RSINK_LOCK_H

extern void rsink_lock_exclusively(const Oid *relids, int n, const char *used);

#endif							/* RSINK_LOCK_H */
