/*-------------------------------------------------------------------------
 *
 * seen_index.h
 *	  The table in shared memory: fingerprint -> address of a page row.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_SEEN_INDEX_H
#define RSINK_SEEN_INDEX_H

#include "storage/itemptr.h"

#include "apply/fingerprint.h"

/* The most addresses that a look-up of one fingerprint returns. */
#define RSINK_INDEX_CANDIDATES 16

/*
 * The index of one sink, protected by the sink lock. Zeroed memory is an index
 * without chunks.
 */
typedef struct RsinkIndex
{
	uint32		dir;			/* chunk that holds the directory, plus one */
	uint32		depth;			/* the directory has 2^depth entries */
	uint32		nchunks;		/* chunks in use, the directory's included */
	uint64		nentries;
} RsinkIndex;

extern void rsink_index_create(RsinkIndex *index);
extern void rsink_index_destroy(RsinkIndex *index);
extern bool rsink_index_insert(RsinkIndex *index, const RsinkFingerprint *fp,
							   const ItemPointerData *tid);
extern void rsink_index_remove(RsinkIndex *index, const RsinkFingerprint *fp,
							   const ItemPointerData *tid);
extern int	rsink_index_lookup(const RsinkIndex *index, const RsinkFingerprint *fp,
							   ItemPointerData *tids);
extern bool rsink_index_has(const RsinkIndex *index, const RsinkFingerprint *fp,
							const ItemPointerData *tid);
extern void rsink_index_prefetch(const RsinkIndex *index, const RsinkFingerprint *fp);
extern Size rsink_index_bytes(const RsinkIndex *index);

#endif							/* RSINK_SEEN_INDEX_H */
