/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  The worker of a database: its rounds.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_WORKER_H
#define RSINK_WORKER_H

extern int	rsink_worker_interval;

#endif							/* RSINK_WORKER_H */
