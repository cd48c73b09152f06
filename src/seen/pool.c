/*-------------------------------------------------------------------------
 *
 * pool.c
 *	  The memory for seen events: chunks of one size, which all sinks share.
 *
 * The pool has the size of revenue_sink.dedup_memory and, besides, a chunk per sink that
 * there can be, so that each can have a run. A spinlock of its own protects the list of
 * free chunks. A chunk that is in use belongs to one sink, and is
 * protected by whatever protects the part of the sink that has it. No function here
 * raises an error.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#ifndef WIN32
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "port/pg_bitutils.h"
#include "storage/shmem.h"
#include "storage/spin.h"

#include "core/compat.h"
#include "seen/pool.h"
#include "sink/slot.h"

/* The part of the pool that only runs may take, which keep what there is no other room for. */
#define KEPT_PART		(1.0 / 32)

int			rsink_dedup_memory = 256 * 1024;	/* kB */

RsinkPool  *rsink_pool;

static Size
chunk_bytes(void)
{
	Size		bytes = RSINK_MIN_CHUNK_BYTES;

	/* a full directory should be able to hold the whole pool */
	while (bytes << (RSINK_MAX_DEPTH - 1) < (Size) rsink_dedup_memory * 1024)
		bytes <<= 1;
	return bytes;
}

static uint32
chunk_count(void)
{
	return (uint32) ((Size) rsink_dedup_memory * 1024 / chunk_bytes()) + (uint32) rsink_max_sinks;
}

static Size
header_size(void)
{
	return CACHELINEALIGN(offsetof(RsinkPool, info) + chunk_count() * sizeof(RsinkChunkInfo));
}

/* Shared memory that the pool needs, in bytes. */
Size
rsink_pool_shmem_size(void)
{
	return add_size(add_size(header_size(), RSINK_CHUNK_ALIGN),
					mul_size(chunk_count(), chunk_bytes()));
}

/*
 * Ask for huge pages for the chunks, which are read at random, where the kernel can give
 * them to shared memory that isn't made of huge pages already. If the kernel knows nothing
 * of that, nothing changes. Processes that the postmaster forks inherit the request.
 */
static void
advise_huge_pages(void)
{
#ifdef MADV_HUGEPAGE
	uintptr_t	page = (uintptr_t) sysconf(_SC_PAGESIZE);
	uintptr_t	start = TYPEALIGN(page, (uintptr_t) rsink_pool->chunks);
	uintptr_t	end = TYPEALIGN_DOWN(page, (uintptr_t) rsink_chunk(rsink_pool->nchunks));

	(void) madvise((void *) start, end - start, MADV_HUGEPAGE);
#endif
}

/*
 * Attach to the pool, and create it if this is the first time. Caller holds
 * AddinShmemInitLock.
 */
void
rsink_pool_shmem_init(void)
{
	bool		found;

	rsink_pool = ShmemInitStruct("revenue_sink index", rsink_pool_shmem_size(), &found);
	if (found)
		return;
	SpinLockInit(&rsink_pool->mutex);
	rsink_pool->nchunks = rsink_pool->nfree = chunk_count();
	rsink_pool->nkept = (uint32) rsink_max_sinks +
		(uint32) ((rsink_pool->nchunks - (uint32) rsink_max_sinks) * KEPT_PART);
	rsink_pool->chunk_bytes = chunk_bytes();
	rsink_pool->chunk_shift = pg_leftmost_one_pos64(chunk_bytes());
	rsink_pool->chunks = (char *) TYPEALIGN(RSINK_CHUNK_ALIGN, (char *) rsink_pool + header_size());
	rsink_pool->first_free = 0;
	for (uint32 i = 0; i < rsink_pool->nchunks; i++)
		rsink_pool->info[i].next = i + 1 < rsink_pool->nchunks ? i + 1 : RSINK_NO_CHUNK;
	advise_huge_pages();
}

/*
 * Take a chunk from the pool, zeroed; RSINK_NO_CHUNK if that would leave fewer free ones
 * than this.
 */
uint32
rsink_chunk_alloc(uint32 leave)
{
	uint32		chunk = RSINK_NO_CHUNK;

	SpinLockAcquire(&rsink_pool->mutex);
	if (rsink_pool->nfree > leave)
		chunk = rsink_pool->first_free;
	if (chunk != RSINK_NO_CHUNK)
	{
		rsink_pool->first_free = rsink_pool->info[chunk].next;
		rsink_pool->nfree--;
	}
	SpinLockRelease(&rsink_pool->mutex);
	if (chunk == RSINK_NO_CHUNK)
		return RSINK_NO_CHUNK;
	memset(rsink_chunk(chunk), 0, rsink_pool->chunk_bytes);
	rsink_pool->info[chunk].count = 0;
	rsink_pool->info[chunk].depth = 0;
	return chunk;
}

/* Give a chunk back to the pool. */
void
rsink_chunk_free(uint32 chunk)
{
	SpinLockAcquire(&rsink_pool->mutex);
	rsink_pool->info[chunk].next = rsink_pool->first_free;
	rsink_pool->first_free = chunk;
	rsink_pool->nfree++;
	SpinLockRelease(&rsink_pool->mutex);
}

/* The size of the pool in bytes, without a chunk per sink. */
double
rsink_pool_bytes(void)
{
	return (double) (rsink_pool->nchunks - (uint32) rsink_max_sinks) * (double) rsink_pool->chunk_bytes;
}

/*
 * The free part of the pool, from 0 to 1, but for what is kept for runs; read without a
 * lock, so it may be slightly outdated.
 */
double
rsink_pool_free(void)
{
	uint32		nfree = rsink_pool->nfree;

	return nfree <= rsink_pool->nkept ? 0 :
		(double) (nfree - rsink_pool->nkept) * (double) rsink_pool->chunk_bytes / rsink_pool_bytes();
}

/* The bytes of all chunks. */
Size
rsink_pool_total_bytes(void)
{
	return rsink_pool->nchunks * rsink_pool->chunk_bytes;
}

/*
 * The bytes of the pool that are in use; read without a lock, so they may be slightly
 * outdated.
 */
Size
rsink_pool_used_bytes(void)
{
	return (rsink_pool->nchunks - rsink_pool->nfree) * rsink_pool->chunk_bytes;
}
