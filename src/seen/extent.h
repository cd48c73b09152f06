/*-------------------------------------------------------------------------
 *
 * extent.h
 *	  Extents: chunks of the pool that belong together.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_EXTENT_H
#define RSINK_EXTENT_H

#include "storage/block.h"
#include "storage/itemptr.h"
#include "storage/off.h"
#include "storage/spin.h"

#include "seen/filter.h"
#include "seen/pool.h"

/* Where a row of a slice, or a piece of its filter, was when that was noted. */
typedef struct RsinkFence
{
	uint64		first;			/* of a row: upper half of its least fingerprint; of a piece:
								 * the buffer in which it was last, or InvalidBuffer */
	BlockNumber block;
	OffsetNumber offset;
} RsinkFence;

/* Lines begin at a multiple of this many bytes, the size of a page of memory. */
#define RSINK_EXTENT_ALIGN 4096

/* Fences or lines; one that is empty has neither. */
typedef struct RsinkExtent
{
	uint32		head;			/* the first chunk, which begins with the numbers of all
								 * chunks; or RSINK_NO_CHUNK */
	uint32		nchunks;
	uint32		nfences;
	uint32		nlines;
} RsinkExtent;

extern bool rsink_extent_allocate(RsinkExtent *extent, uint32 nfences, uint32 nlines, double reserve);
extern void rsink_extent_free(RsinkExtent *extent);
extern Size rsink_extent_bytes(const RsinkExtent *extent);

/* Note where a row of a slice, or a piece of its filter, is. */
static inline void
rsink_fence_set(RsinkFence *fence, uint64 first, const ItemPointerData *tid)
{
	fence->first = first;
	fence->block = ItemPointerGetBlockNumberNoCheck(tid);
	fence->offset = ItemPointerGetOffsetNumberNoCheck(tid);
}

/* The length of what comes before the fences, and before the lines. */
static inline Size
rsink_extent_map_bytes(const RsinkExtent *extent)
{
	return TYPEALIGN(RSINK_LINE_BYTES, extent->nchunks * sizeof(uint32));
}

static inline Size
rsink_extent_lines_start(const RsinkExtent *extent)
{
	return TYPEALIGN(RSINK_EXTENT_ALIGN, rsink_extent_map_bytes(extent) + extent->nfences * sizeof(RsinkFence));
}

/* The byte at this position. */
static inline char *
rsink_extent_byte(const RsinkExtent *extent, Size position)
{
	const uint32 *map = (const uint32 *) rsink_chunk(extent->head);

	return (char *) rsink_chunk(map[position >> rsink_pool->chunk_shift]) + (position & (rsink_pool->chunk_bytes - 1));
}

/* The i-th fence. */
static inline RsinkFence *
rsink_extent_fence(const RsinkExtent *extent, uint32 i)
{
	return (RsinkFence *) rsink_extent_byte(extent, rsink_extent_map_bytes(extent) + (Size) i * sizeof(RsinkFence));
}

/* The i-th line. */
static inline uint64 *
rsink_extent_line(const RsinkExtent *extent, uint32 i)
{
	return (uint64 *) rsink_extent_byte(extent, rsink_extent_lines_start(extent) + (Size) i * RSINK_LINE_BYTES);
}

#endif							/* RSINK_EXTENT_H */
