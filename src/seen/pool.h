/*-------------------------------------------------------------------------
 *
 * pool.h
 *	  The memory for seen events: chunks of one size, which all sinks share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_POOL_H
#define RSINK_POOL_H

#include "storage/spin.h"

/* The number of no chunk. */
#define RSINK_NO_CHUNK PG_UINT32_MAX

/* The size of a chunk in a small pool; in a larger one it is a power of two times that. */
#define RSINK_MIN_CHUNK_BYTES (64 * 1024)

/* Chunks begin at pages of memory. */
#define RSINK_CHUNK_ALIGN 4096

/* The depth at which a directory of chunks leads to the whole pool. */
#define RSINK_MAX_DEPTH 14

/* What the owner of a chunk notes about it, protected by what protects the chunk. */
typedef struct RsinkChunkInfo
{
	uint32		count;
	uint32		depth;
	uint32		next;			/* next free chunk; the pool's own */
} RsinkChunkInfo;

typedef struct RsinkPool
{
	slock_t		mutex;			/* protects first_free and nfree */
	uint32		first_free;
	uint32		nfree;			/* also a hint */
	uint32		nchunks;
	uint32		nkept;			/* chunks that only runs may take, rsink_max_sinks of them a
								 * sink's first run alone */
	Size		chunk_bytes;
	int			chunk_shift;	/* chunk_bytes as a power of two */
	char	   *chunks;
	RsinkChunkInfo info[FLEXIBLE_ARRAY_MEMBER];
} RsinkPool;

extern int	rsink_dedup_memory;
extern RsinkPool *rsink_pool;

extern Size rsink_pool_shmem_size(void);
extern void rsink_pool_shmem_init(void);
extern uint32 rsink_chunk_alloc(uint32 leave);
extern void rsink_chunk_free(uint32 chunk);
extern double rsink_pool_bytes(void);
extern double rsink_pool_free(void);
extern Size rsink_pool_total_bytes(void);
extern Size rsink_pool_used_bytes(void);

/* The address of a chunk. */
static inline void *
rsink_chunk(uint32 chunk)
{
	return rsink_pool->chunks + (Size) chunk * rsink_pool->chunk_bytes;
}

#endif							/* RSINK_POOL_H */
