/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  The launcher, and one worker per database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_WORKER_H
#define RSINK_WORKER_H

extern int	rsink_worker_interval;

extern Size rsink_worker_shmem_size(void);
extern void rsink_worker_shmem_init(void);
extern void rsink_launcher_register(void);
extern void rsink_worker_wanted(void);
extern void rsink_init_worker(void);

#endif							/* RSINK_WORKER_H */
