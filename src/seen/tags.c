/*-------------------------------------------------------------------------
 *
 * tags.c
 *	  Tables of tags: in which slice of a group may a fingerprint be?
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "apply/fingerprint.h"
#include "seen/extent.h"
#include "seen/filter.h"
#include "seen/tags.h"

#define BUCKET_ENTRIES	8
#define LINE_BUCKETS	(RSINK_LINE_BYTES / (int) sizeof(Bucket))
#define WINDOW_BUCKETS	(RSINK_EXTENT_ALIGN / (int) sizeof(Bucket))
#define SLICE_BITS		6
#define SLICE_MASK		((1 << SLICE_BITS) - 1)
#define TAG_BITS		10

/*
 * A table is made so large that this part of its entries is used in the end. Some pages
 * get more entries than others, and none may overflow.
 */
#define FILL_FACTOR		0.88

/* The most entries that make room for a new one by going to their other bucket. */
#define MAX_MOVES		256

typedef struct Bucket
{
	uint16		entry[BUCKET_ENTRIES];	/* 0: free */
} Bucket;

StaticAssertDecl(RSINK_TAG_SLICES == SLICE_MASK, "no slice has the number 0, which means free");
StaticAssertDecl(SLICE_BITS + TAG_BITS == 16, "an entry has 16 bits");

/* The number of lines that a table for so many events has, in whole windows. */
uint32
rsink_tags_lines(int64 events)
{
	int64		windows = (int64) (events / FILL_FACTOR) / (WINDOW_BUCKETS * BUCKET_ENTRIES) + 1;

	return (uint32) (windows * (WINDOW_BUCKETS / LINE_BUCKETS));
}

/* The first bucket of a fingerprint. */
static inline uint32
first_bucket(const RsinkExtent *table, const RsinkFingerprint *fp)
{
	return (uint32) (((fp->hi >> 32) * ((uint64) table->nlines * LINE_BUCKETS)) >> 32);
}

static inline uint32
tag_of(const RsinkFingerprint *fp)
{
	return (uint32) fp->lo & ((1 << TAG_BITS) - 1);
}

/* The other one of the two buckets in which an entry with this tag may be. */
static inline uint32
other_bucket(uint32 bucket, uint32 tag)
{
	return bucket ^ (((tag * 0x9E3779B1U) >> 16 | 1) & (WINDOW_BUCKETS - 1));
}

/* A bucket of the table. */
static inline Bucket *
bucket_at(const RsinkExtent *table, uint32 bucket)
{
	return (Bucket *) rsink_extent_line(table, bucket / LINE_BUCKETS) + bucket % LINE_BUCKETS;
}

/* Put an entry into a bucket that has it already or has a free place. */
static bool
put(Bucket *bucket, uint16 entry)
{
	for (int i = 0; i < BUCKET_ENTRIES; i++)
	{
		if (bucket->entry[i] == 0 || bucket->entry[i] == entry)
		{
			bucket->entry[i] = entry;
			return true;
		}
	}
	return false;
}

/*
 * Enter an event of a slice, which is given by its number in the group. False: there
 * is no room, and the table still has all that it had. Nobody may look up meanwhile.
 */
bool
rsink_tags_insert(const RsinkExtent *table, const RsinkFingerprint *fp, int slice)
{
	struct
	{
		Bucket	   *bucket;
		int			place;
	}			moved[MAX_MOVES];
	uint16		entry = (uint16) (tag_of(fp) << SLICE_BITS | (uint32) slice);
	uint32		bucket = first_bucket(table, fp);
	Bucket	   *first = bucket_at(table, bucket);
	Bucket	   *second = bucket_at(table, other_bucket(bucket, tag_of(fp)));
	int			n = 0;

	if (put(first, entry) || put(second, entry))
		return true;
	while (n < MAX_MOVES)
	{
		int			place = (int) ((entry + (uint32) n * 5) % BUCKET_ENTRIES);
		uint16		old = first->entry[place];

		moved[n].bucket = first;
		moved[n++].place = place;
		first->entry[place] = entry;
		entry = old;
		bucket = other_bucket(bucket, entry >> SLICE_BITS);
		first = bucket_at(table, bucket);
		if (put(first, entry))
			return true;
	}
	while (n-- > 0)
	{
		uint16		old = moved[n].bucket->entry[moved[n].place];

		moved[n].bucket->entry[moved[n].place] = entry;
		entry = old;
	}
	return false;
}

/* Ask the CPU for what a look-up of this fingerprint will read. */
void
rsink_tags_prefetch(const RsinkExtent *table, const RsinkFingerprint *fp)
{
#if defined(__GNUC__)
	uint32		bucket = first_bucket(table, fp);

	__builtin_prefetch(bucket_at(table, bucket));
	__builtin_prefetch(bucket_at(table, other_bucket(bucket, tag_of(fp))));
#endif
}

/* The numbers of the slices that a bucket has entries of with this tag, as bits. */
static inline uint64
bucket_slices(const Bucket *bucket, uint32 tag)
{
	uint32		any = 0;
	uint64		slices = 0;

	for (int i = 0; i < BUCKET_ENTRIES; i++)
		any |= (uint32) (bucket->entry[i] >> SLICE_BITS) == tag;
	if (likely(!any))
		return 0;
	for (int i = 0; i < BUCKET_ENTRIES; i++)
		if ((uint32) (bucket->entry[i] >> SLICE_BITS) == tag)
			slices |= UINT64CONST(1) << (bucket->entry[i] & SLICE_MASK);
	return slices & ~UINT64CONST(1);
}

/*
 * Which slices of the group may have this fingerprint: bit i is set for the slice
 * with number i.
 */
uint64
rsink_tags_lookup(const RsinkExtent *table, const RsinkFingerprint *fp)
{
	uint32		bucket = first_bucket(table, fp);
	uint32		tag = tag_of(fp);

	return bucket_slices(bucket_at(table, bucket), tag) |
		bucket_slices(bucket_at(table, other_bucket(bucket, tag)), tag);
}
