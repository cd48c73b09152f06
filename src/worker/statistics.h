/*-------------------------------------------------------------------------
 *
 * statistics.h
 *	  What the planner knows of tables whose rows come and go.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_STATISTICS_H
#define RSINK_STATISTICS_H

extern void rsink_refresh_statistics(Oid relid);

#endif							/* RSINK_STATISTICS_H */
