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
 * "reserve" of the pool is free. The chunks are zeroed. If there is no room for all
 * fences, the extent stays empty; if there is none for a line, that line is missing.
 */
void
rsink_extent_allocate(RsinkExtent *extent, uint32 nrows, uint32 nlines, double reserve)
{
	Size		most = (Size) nrows * sizeof(RsinkFence) + (Size) nlines * RSINK_LINE_BYTES + RSINK_LINE_BYTES;
	uint32	   *map;

	/* the numbers of the chunks take room in the first chunk themselves */
	most += (most / rsink_pool->chunk_bytes + 2) * sizeof(uint32);
	if (nlines > 0)
		most += RSINK_EXTENT_ALIGN;
	extent->head = RSINK_NO_CHUNK;
	extent->nchunks = (uint32) ((most + rsink_pool->chunk_bytes - 1) / rsink_pool->chunk_bytes);
	extent->nrows = nrows;
	extent->nlines = nlines;
	if (rsink_extent_map_bytes(extent) <= rsink_pool->chunk_bytes && rsink_pool_free() > reserve)
		extent->head = rsink_chunk_alloc();
	if (extent->head == RSINK_NO_CHUNK)
	{
		extent->nchunks = extent->nrows = extent->nlines = 0;
		return;
	}
	map = rsink_chunk(extent->head);
	map[0] = extent->head;
	for (uint32 i = 1; i < extent->nchunks; i++)
	{
		map[i] = rsink_pool_free() > reserve ? rsink_chunk_alloc() : RSINK_NO_CHUNK;
		if (map[i] == RSINK_NO_CHUNK && i * rsink_pool->chunk_bytes < rsink_extent_lines_start(extent))
		{
			extent->nchunks = i;
			rsink_extent_free(extent);
			return;
		}
	}
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
			if (map[i] != RSINK_NO_CHUNK)
				rsink_chunk_free(map[i]);
	}
	extent->head = RSINK_NO_CHUNK;
	extent->nchunks = extent->nrows = extent->nlines = 0;
}

/* The memory that an extent takes, in bytes. */
Size
rsink_extent_bytes(const RsinkExtent *extent)
{
	const uint32 *map;
	Size		bytes = 0;

	if (extent->head == RSINK_NO_CHUNK)
		return 0;
	map = rsink_chunk(extent->head);
	for (uint32 i = 0; i < extent->nchunks; i++)
		bytes += map[i] != RSINK_NO_CHUNK ? rsink_pool->chunk_bytes : 0;
	return bytes;
}
