/*-------------------------------------------------------------------------
 *
 * seen_index.c
 *	  The table in shared memory: fingerprint -> address of a page row.
 *
 * This is an extendible hash table (Fagin et al., 1979). Its leaves are chunks of
 * one pool of fixed size, revenue_sink.dedup_memory, which all sinks share. A
 * chunk is an array of buckets of eight 64-bit entries, one cache line per
 * bucket. An entry may be in either of two buckets of its chunk (cuckoo hashing,
 * with the second bucket computed from the tag: Fan et al., 2014), so a look-up
 * reads two cache lines, and a chunk fills to some nine tenths. A full chunk
 * splits in two. Every entry keeps its bucket then, so a split is one pass.
 *
 * The directory is indexed with the upper bits of the fingerprint, skewed by a
 * monotone function: chunks at one end get twice the load of those at the other.
 * With uniform load all chunks would split at the same moment, and the memory per
 * event would jump between the least possible and twice that; with skewed load it
 * stays near its mean. Sorted fingerprints walk the directory in order.
 *
 * An entry is 24 bits of tag (the skewed upper bits of the fingerprint, of which
 * the directory uses up to 14), 31 bits of block and 9 of offset. Entries are
 * hints: a look-up may return addresses of other fingerprints' rows, of aborted
 * rows or of rows that have vanished. Whoever asks reads the row.
 *
 * A sink's index is protected by the sink lock, and the pool by a spinlock of its
 * own. No function here raises an error; an insert that finds no room says so.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "port/pg_bitutils.h"
#include "storage/spin.h"

#include "apply/fingerprint.h"
#include "seen/pool.h"
#include "seen/seen_index.h"

#define BUCKET_ENTRIES	8
#define TAG_BITS		24
#define BLOCK_BITS		31
#define OFFSET_BITS		9

StaticAssertDecl(TAG_BITS + BLOCK_BITS + OFFSET_BITS == 64, "an entry is 64 bits");
StaticAssertDecl((sizeof(uint32) << RSINK_MAX_DEPTH) <= RSINK_MIN_CHUNK_BYTES,
				 "a directory fits one chunk");

typedef struct Bucket
{
	uint64		entry[BUCKET_ENTRIES];	/* 0: free */
} Bucket;

/* Where the entries of a fingerprint belong. */
typedef struct Place
{
	uint32		tag;
	uint32		chunk;
	uint32		bucket[2];
} Place;

/* The number of buckets of a chunk, a power of two, less one. */
static inline uint32
bucket_mask(void)
{
	return (uint32) (rsink_pool->chunk_bytes / sizeof(Bucket)) - 1;
}

/* Take a chunk from the pool, zeroed. RSINK_NO_CHUNK: there is none but for runs. */
static uint32
chunk_alloc(RsinkIndex *index, uint32 depth)
{
	uint32		chunk = rsink_chunk_alloc(rsink_pool->nkept);

	if (chunk != RSINK_NO_CHUNK)
	{
		rsink_pool->info[chunk].depth = depth;
		index->nchunks++;
	}
	return chunk;
}

static void
chunk_free(RsinkIndex *index, uint32 chunk)
{
	rsink_chunk_free(chunk);
	index->nchunks--;
}

static inline uint32 *
directory(const RsinkIndex *index)
{
	return (uint32 *) rsink_chunk(index->dir - 1);
}

static inline uint32
tag_of(const RsinkFingerprint *fp)
{
	uint64		x = fp->hi >> 32;

	/* (4x - x^2) / 3 on the unit interval: density falls from 1.5 to 0.75 */
	return (uint32) ((4 * x - ((x * x) >> 32)) / 3) >> (32 - TAG_BITS);
}

/*
 * The other one of the two buckets in which an entry with this tag may be, given
 * one of them.
 */
static inline uint32
other_bucket(uint32 bucket, uint32 tag)
{
	return bucket ^ (((tag * 0x9E3779B1U) >> 8 | 1) & bucket_mask());
}

static inline void
place_of(const RsinkIndex *index, const RsinkFingerprint *fp, Place *place)
{
	place->tag = tag_of(fp);
	place->chunk = directory(index)[place->tag >> (TAG_BITS - index->depth)];
	place->bucket[0] = (uint32) fp->lo & bucket_mask();
	place->bucket[1] = other_bucket(place->bucket[0], place->tag);
}

static inline uint64
entry_make(uint32 tag, const ItemPointerData *tid)
{
	return (uint64) tag << (BLOCK_BITS + OFFSET_BITS) |
		(uint64) ItemPointerGetBlockNumberNoCheck(tid) << OFFSET_BITS |
		ItemPointerGetOffsetNumberNoCheck(tid);
}

static inline uint32
entry_tag(uint64 entry)
{
	return (uint32) (entry >> (BLOCK_BITS + OFFSET_BITS));
}

static inline void
entry_tid(uint64 entry, ItemPointerData *tid)
{
	ItemPointerSet(tid, (BlockNumber) (entry >> OFFSET_BITS) & ((1U << BLOCK_BITS) - 1),
				   (OffsetNumber) (entry & ((1 << OFFSET_BITS) - 1)));
}

/*
 * Look at a bucket: does it have this entry, how many of its entries are free,
 * and which is a free one? The loop has no exit, so that compilers turn it into
 * straight code.
 */
static inline bool
bucket_look(const Bucket *bucket, uint64 entry, int *nfree, int *place)
{
	bool		found = false;

	*nfree = 0;
	*place = 0;
	for (int i = 0; i < BUCKET_ENTRIES; i++)
	{
		found |= bucket->entry[i] == entry;
		*nfree += bucket->entry[i] == 0;
		*place = bucket->entry[i] == 0 ? i : *place;
	}
	return found;
}

/* What came of trying to put an entry into a chunk. */
typedef enum PutResult
{
	PUT_DONE,
	PUT_THERE_ALREADY,
	PUT_NO_ROOM
} PutResult;

/*
 * Put an entry into a chunk, moving at most one other entry to its other bucket.
 */
static PutResult
chunk_put(uint32 chunk, uint32 bucket, uint64 entry)
{
	Bucket	   *first = (Bucket *) rsink_chunk(chunk) + bucket;
	Bucket	   *second = (Bucket *) rsink_chunk(chunk) + other_bucket(bucket, entry_tag(entry));
	int			nfree[2];
	int			place[2];

	if (bucket_look(first, entry, &nfree[0], &place[0]) ||
		bucket_look(second, entry, &nfree[1], &place[1]))
		return PUT_THERE_ALREADY;
	if (nfree[0] >= nfree[1] && nfree[0] > 0)
		first->entry[place[0]] = entry;
	else if (nfree[1] > 0)
		second->entry[place[1]] = entry;
	else
	{
		int			i;

		for (i = 0; i < BUCKET_ENTRIES; i++)
		{
			uint64		old = first->entry[i];
			Bucket	   *other = (Bucket *) rsink_chunk(chunk) + other_bucket(bucket, entry_tag(old));

			(void) bucket_look(other, old, &nfree[0], &place[0]);
			if (nfree[0] > 0)
			{
				other->entry[place[0]] = old;
				break;
			}
		}
		if (i == BUCKET_ENTRIES)
			return PUT_NO_ROOM;
		first->entry[i] = entry;
	}
	rsink_pool->info[chunk].count++;
	return PUT_DONE;
}

/*
 * Split a full chunk in two. False, and nothing has changed, if the pool or the
 * directory is exhausted.
 */
static bool
chunk_split(RsinkIndex *index, uint32 chunk, uint32 tag)
{
	uint32		depth = rsink_pool->info[chunk].depth;
	uint32	   *dir = directory(index);
	uint32		bit = TAG_BITS - 1 - depth;
	uint32		sibling;
	uint32		first;
	uint32		span;
	Bucket	   *from;
	Bucket	   *to;

	if (depth == RSINK_MAX_DEPTH || (sibling = chunk_alloc(index, depth + 1)) == RSINK_NO_CHUNK)
		return false;
	if (depth == index->depth)
	{
		for (int64 i = (INT64CONST(1) << index->depth) - 1; i >= 0; i--)
			dir[2 * i] = dir[2 * i + 1] = dir[i];
		index->depth++;
	}

	from = rsink_chunk(chunk);
	to = rsink_chunk(sibling);
	for (uint32 b = 0; b <= bucket_mask(); b++)
	{
		for (int i = 0; i < BUCKET_ENTRIES; i++)
		{
			if (entry_tag(from[b].entry[i]) >> bit & 1)
			{
				to[b].entry[i] = from[b].entry[i];
				from[b].entry[i] = 0;
				rsink_pool->info[sibling].count++;
			}
		}
	}
	rsink_pool->info[chunk].count -= rsink_pool->info[sibling].count;
	rsink_pool->info[chunk].depth = depth + 1;

	/* the upper half of the chunk's part of the directory leads to the sibling */
	span = 1U << (index->depth - depth - 1);
	first = ((tag >> (bit + 1)) << 1 | 1) * span;
	for (uint32 i = 0; i < span; i++)
		dir[first + i] = sibling;
	return true;
}

/* Join a chunk with its sibling once both are nearly empty. */
static void
chunk_merge(RsinkIndex *index, uint32 tag)
{
	uint32	   *dir = directory(index);
	uint32		position = tag >> (TAG_BITS - index->depth);
	uint32		chunk = dir[position];
	uint32		depth = rsink_pool->info[chunk].depth;
	uint32		span;
	uint32		first;
	uint32		sibling;
	Bucket	   *from;

	if (depth == 0)
		return;
	span = 1U << (index->depth - depth);
	first = position / span * span;
	sibling = dir[first ^ span];
	if (rsink_pool->info[sibling].depth != depth ||
		rsink_pool->info[chunk].count + rsink_pool->info[sibling].count >
		(bucket_mask() + 1) * BUCKET_ENTRIES / 3)
		return;

	from = rsink_chunk(sibling);
	for (uint32 b = 0; b <= bucket_mask(); b++)
	{
		for (int i = 0; i < BUCKET_ENTRIES; i++)
		{
			/*
			 * A chunk that is a third full has room for any entry. If ever it had
			 * none, we could stop here: the directory still leads to the sibling,
			 * which has all of its entries, and copies in this chunk are never
			 * looked for.
			 */
			if (from[b].entry[i] != 0 && chunk_put(chunk, b, from[b].entry[i]) == PUT_NO_ROOM)
				return;
		}
	}
	rsink_pool->info[chunk].depth = depth - 1;
	for (uint32 i = 0; i < span; i++)
		dir[(first ^ span) + i] = chunk;
	chunk_free(index, sibling);
}

/*
 * Start an empty index. If the pool is exhausted, the index stays without chunks,
 * and every insert says that there is no room. Caller holds the sink lock.
 */
void
rsink_index_create(RsinkIndex *index)
{
	uint32		dir;
	uint32		chunk;

	memset(index, 0, sizeof(RsinkIndex));
	if ((dir = chunk_alloc(index, 0)) == RSINK_NO_CHUNK)
		return;
	if ((chunk = chunk_alloc(index, 0)) == RSINK_NO_CHUNK)
	{
		chunk_free(index, dir);
		return;
	}
	index->dir = dir + 1;
	directory(index)[0] = chunk;
}

/* Give all of an index's chunks back to the pool. Caller holds the sink lock. */
void
rsink_index_destroy(RsinkIndex *index)
{
	if (index->dir != 0)
	{
		uint32	   *dir = directory(index);
		uint32		size = 1U << index->depth;
		uint32		i = 0;

		while (i < size)
		{
			uint32		chunk = dir[i];

			i += 1U << (index->depth - rsink_pool->info[chunk].depth);
			chunk_free(index, chunk);
		}
		chunk_free(index, index->dir - 1);
	}
	memset(index, 0, sizeof(RsinkIndex));
}

/*
 * Add an entry, unless it is there already. False: there is no room for it, and
 * the index still has all that it had. Caller holds the sink lock.
 */
bool
rsink_index_insert(RsinkIndex *index, const RsinkFingerprint *fp,
				   const ItemPointerData *tid)
{
	Place		place;
	uint64		entry;

	if (index->dir == 0 ||
		ItemPointerGetBlockNumberNoCheck(tid) >= 1U << BLOCK_BITS)
		return false;
	entry = entry_make(tag_of(fp), tid);
	for (;;)
	{
		place_of(index, fp, &place);
		switch (chunk_put(place.chunk, place.bucket[0], entry))
		{
			case PUT_DONE:
				index->nentries++;
				return true;
			case PUT_THERE_ALREADY:
				return true;
			case PUT_NO_ROOM:
				if (!chunk_split(index, place.chunk, place.tag))
					return false;
		}
	}
}

/*
 * Remove an entry, if it is there. Now and then, give memory that is no longer
 * needed back to the pool. Caller holds the sink lock.
 */
void
rsink_index_remove(RsinkIndex *index, const RsinkFingerprint *fp,
				   const ItemPointerData *tid)
{
	Place		place;
	uint64		entry;
	Bucket	   *buckets;

	if (index->dir == 0)
		return;
	entry = entry_make(tag_of(fp), tid);
	place_of(index, fp, &place);
	buckets = rsink_chunk(place.chunk);
	for (int b = 0; b < 2; b++)
	{
		for (int i = 0; i < BUCKET_ENTRIES; i++)
		{
			if (buckets[place.bucket[b]].entry[i] == entry)
			{
				buckets[place.bucket[b]].entry[i] = 0;
				index->nentries--;
				/* not at each removal: a try reads the sibling's cache line, too */
				if (--rsink_pool->info[place.chunk].count % 256 == 0)
					chunk_merge(index, place.tag);
				return;
			}
		}
	}
}

/*
 * Fetch into tids, which has room for RSINK_INDEX_CANDIDATES, the addresses of
 * rows that may have this fingerprint; returns how many there are. Caller holds
 * the sink lock, in share mode at least.
 */
int
rsink_index_lookup(const RsinkIndex *index, const RsinkFingerprint *fp,
				   ItemPointerData *tids)
{
	Place		place;
	const Bucket *buckets;
	int			n = 0;

	if (index->dir == 0)
		return 0;
	place_of(index, fp, &place);
	buckets = rsink_chunk(place.chunk);
	for (int b = 0; b < 2; b++)
	{
		const Bucket *bucket = &buckets[place.bucket[b]];

		for (int i = 0; i < BUCKET_ENTRIES; i++)
		{
			if (entry_tag(bucket->entry[i]) == place.tag && bucket->entry[i] != 0)
				entry_tid(bucket->entry[i], &tids[n++]);
		}
	}
	return n;
}

/*
 * Is this very entry there? Caller holds the sink lock, in share mode at least.
 */
bool
rsink_index_has(const RsinkIndex *index, const RsinkFingerprint *fp,
				const ItemPointerData *tid)
{
	ItemPointerData tids[RSINK_INDEX_CANDIDATES];
	int			n = rsink_index_lookup(index, fp, tids);

	for (int i = 0; i < n; i++)
		if (ItemPointerEquals(&tids[i], (ItemPointer) tid))
			return true;
	return false;
}

/*
 * Ask the CPU for the cache lines that a look-up of this fingerprint will read.
 * Caller holds the sink lock, in share mode at least.
 */
void
rsink_index_prefetch(const RsinkIndex *index, const RsinkFingerprint *fp)
{
#if defined(__GNUC__)
	Place		place;
	const Bucket *buckets;

	if (index->dir == 0)
		return;
	place_of(index, fp, &place);
	buckets = rsink_chunk(place.chunk);
	__builtin_prefetch(&buckets[place.bucket[0]]);
	__builtin_prefetch(&buckets[place.bucket[1]]);
#endif
}

/* Shared memory that this index occupies, in bytes. */
Size
rsink_index_bytes(const RsinkIndex *index)
{
	return index->nchunks * rsink_pool->chunk_bytes;
}
