/*-------------------------------------------------------------------------
 *
 * offsets.h
 *	  Offsets of the source, committed together with its events.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_OFFSETS_H
#define RSINK_OFFSETS_H

extern char *rsink_offsets_that_count(int32 sink_id);

#endif							/* RSINK_OFFSETS_H */
