/*-------------------------------------------------------------------------
 *
 * tags.h
 *	  Tables of tags: in which slice of a group may a fingerprint be?
 *
 * A table has an entry of 16 bits per event: a tag of 10 bits, and the number, from 1
 * to 63, of the slice in the group (Dayan and Twitto, "Chucky", 2021). An entry is in
 * either of two buckets of eight entries; the second bucket follows from the first one
 * and the tag (cuckoo filter: Fan et al., 2014). Buckets follow from the upper half of
 * the fingerprint and grow with it, so that sorted fingerprints walk a table in order,
 * and both buckets lie in one page of memory, as the CPU knows pages: on a small page a
 * look-up costs one miss of the TLB.
 *
 * Look-ups find an entry in at least one of its buckets only while nobody inserts.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_TAGS_H
#define RSINK_TAGS_H

#include "apply/fingerprint.h"
#include "seen/extent.h"

/* Memory per event of a table, with what stays free, in bytes. */
#define RSINK_TAG_BYTES 2.3

/* The most slices that a table tells apart. */
#define RSINK_TAG_SLICES 63

extern uint32 rsink_tags_lines(int64 events);
extern bool rsink_tags_insert(const RsinkExtent *table, const RsinkFingerprint *fp, int slice);
extern void rsink_tags_prefetch(const RsinkExtent *table, const RsinkFingerprint *fp);
extern uint64 rsink_tags_lookup(const RsinkExtent *table, const RsinkFingerprint *fp);

#endif							/* RSINK_TAGS_H */
