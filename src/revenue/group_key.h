/*-------------------------------------------------------------------------
 *
 * group_key.h
 *	  A bucket and group, as the key of a hash table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_GROUP_KEY_H
#define RSINK_GROUP_KEY_H

#include "common/hashfn.h"
#include "datatype/timestamp.h"

/* group_key isn't terminated; group_len is its length in bytes. */
typedef struct GroupKey
{
	TimestampTz bucket_start;
	const char *group_key;
	int32		group_len;
} GroupKey;

static inline uint32
rsink_group_hash(GroupKey key)
{
	uint32		hash = murmurhash32((uint32) (key.bucket_start / USECS_PER_SEC));

	if (key.group_len > 0)
		hash = hash_combine(hash, hash_bytes((const unsigned char *) key.group_key, key.group_len));
	return hash;
}

static inline bool
rsink_group_equal(GroupKey a, GroupKey b)
{
	return a.bucket_start == b.bucket_start && a.group_len == b.group_len &&
		(a.group_len == 0 || memcmp(a.group_key, b.group_key, a.group_len) == 0);
}

/* Compare two keys, in the order of an index on (minute, group_key). */
static inline int
rsink_group_compare(const GroupKey *a, const GroupKey *b)
{
	int			result;

	if (a->bucket_start != b->bucket_start)
		return a->bucket_start < b->bucket_start ? -1 : 1;
	result = memcmp(a->group_key, b->group_key, Min(a->group_len, b->group_len));
	return result != 0 ? result : a->group_len - b->group_len;
}

#endif							/* RSINK_GROUP_KEY_H */
