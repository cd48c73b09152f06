/*-------------------------------------------------------------------------
 *
 * extent.c
 *	  Extents: chunks of the pool that belong together.
 *
 * The chunks of an extent are one after another: the numbers of the chunks, the fences,
 * and then the lines. Neither a fence nor a line ever lies across two chunks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "seen/extent.h"
#include "seen/filter.h"
#include "seen/pool.h"

StaticAssertDecl(RSINK_LINE_BYTES % sizeof(RsinkFence) == 0, "no fence lies across two lines");

/*
 * Take chunks for so many fences and lines from the pool, as long as more than the part
 * "reserve" of the pool is free. The chunks are zeroed. False: there is no room for all,
 * and the extent is empty.
 */
bool
rsink_extent_allocate(RsinkExtent *extent, uint32 nfences, uint32 nlines, double reserve)
{
	Size		most = (Size) nfences * sizeof(RsinkFence) + (Size) nlines * RSINK_LINE_BYTES + RSINK_LINE_BYTES;
	uint32		nchunks;

	/* the numbers of the chunks take room in the first chunk themselves */
	most += (most / rsink_pool->chunk_bytes + 2) * sizeof(uint32);
	if (nlines > 0)
		most += RSINK_EXTENT_ALIGN;
	nchunks = (uint32) ((most + rsink_pool->chunk_bytes - 1) / rsink_pool->chunk_bytes);
	extent->head = RSINK_NO_CHUNK;
	extent->nchunks = 0;
	extent->nfences = nfences;
	extent->nlines = nlines;
	while (extent->nchunks < nchunks && nchunks * sizeof(uint32) <= rsink_pool->chunk_bytes)
	{
		uint32		chunk = rsink_pool_free() > reserve ? rsink_chunk_alloc(rsink_pool->nkept) : RSINK_NO_CHUNK;

		if (chunk == RSINK_NO_CHUNK)
			break;
		if (extent->head == RSINK_NO_CHUNK)
			extent->head = chunk;
		((uint32 *) rsink_chunk(extent->head))[extent->nchunks++] = chunk;
	}
	if (extent->nchunks == nchunks)
		return true;
	rsink_extent_free(extent);
	return false;
}

/* Give the chunks of an extent back to the pool. */
void
rsink_extent_free(RsinkExtent *extent)
{
	if (extent->head != RSINK_NO_CHUNK)
	{
		const uint32 *map = rsink_chunk(extent->head);

		/* the first chunk, which has the map, comes last */
		for (uint32 i = extent->nchunks; i-- > 0;)
			rsink_chunk_free(map[i]);
	}
	extent->head = RSINK_NO_CHUNK;
	extent->nchunks = extent->nfences = extent->nlines = 0;
}

/* The memory that an extent takes, in bytes. */
Size
rsink_extent_bytes(const RsinkExtent *extent)
{
	return extent->nchunks * rsink_pool->chunk_bytes;
}
