/*-------------------------------------------------------------------------
 *
 * launcher.h
 *	  What the launcher and its workers tell each other.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_LAUNCHER_H
#define RSINK_LAUNCHER_H

/* Why a worker ended. */
typedef enum RsinkExit
{
	RSINK_EXIT_CRASH,			/* it didn't say: an error, or a kill */
	RSINK_EXIT_YIELD,			/* it was in the way of DDL on the database */
	RSINK_EXIT_TURN,			/* another database needed its place, */
	RSINK_EXIT_IDLE,			/* the same, and it had nothing to do */
	RSINK_EXIT_NOT_INSTALLED	/* the database hasn't got the extension */
} RsinkExit;

extern bool rsink_worker_started(Oid db);
extern void rsink_worker_ended(Oid db, RsinkExit reason);
extern bool rsink_worker_place_is_needed(void);

#endif							/* RSINK_LAUNCHER_H */
