/*-------------------------------------------------------------------------
 *
 * launcher.h
 *	  The launcher: sees that each database that needs a worker has one.
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

extern Size rsink_worker_shmem_size(void);
extern void rsink_worker_shmem_init(void);
extern void rsink_launcher_register(void);
extern void rsink_worker_wanted(void);
extern void rsink_init_worker(void);
extern bool rsink_worker_started(Oid db);
extern void rsink_worker_ended(Oid db, RsinkExit reason);
extern bool rsink_worker_place_is_needed(void);

#endif							/* RSINK_LAUNCHER_H */
