/*-------------------------------------------------------------------------
 *
 * memory.h
 *	  Having malloc keep memory that is needed again.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_MEMORY_H
#define RSINK_MEMORY_H

extern void rsink_keep_memory(Size bytes);

#endif							/* RSINK_MEMORY_H */
