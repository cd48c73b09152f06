/*-------------------------------------------------------------------------
 *
 * ingest.h
 *	  Events by INSERT and COPY into the ingest view.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_INGEST_H
#define RSINK_INGEST_H

extern void rsink_init_ingest(void);

#endif							/* RSINK_INGEST_H */
