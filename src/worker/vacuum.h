/*-------------------------------------------------------------------------
 *
 * vacuum.h
 *	  Vacuuming a table from which the worker has moved rows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_VACUUM_H
#define RSINK_VACUUM_H

extern void rsink_vacuum(Oid relid);

#endif							/* RSINK_VACUUM_H */
