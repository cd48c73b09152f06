/*-------------------------------------------------------------------------
 *
 * memory.c
 *	  Having malloc keep memory that is needed again.
 *
 * Whoever takes some megabytes for a moment, again and again, pays for them each time
 * with page faults, if malloc gives the memory back to the kernel in between.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "core/memory.h"

/*
 * See to it that this process keeps the memory of chunks of up to so many bytes, which
 * are less than 32 MB, when they are freed. The malloc of glibc gives a chunk a mapping
 * of its own if it is larger than each that had one and was freed; and it gives free
 * memory at the end of its heap back if that is more than twice as large. So one chunk of
 * this size, which is never touched, comes and goes.
 */
void
rsink_keep_memory(Size bytes)
{
	static Size kept = 0;

	if (bytes > kept)
		pfree(palloc(bytes));
	kept = Max(kept, bytes);
}
