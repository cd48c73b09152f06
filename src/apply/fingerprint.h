/*-------------------------------------------------------------------------
 *
 * fingerprint.h
 *	  The keyed hash by which an event is recognized.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_FINGERPRINT_H
#define RSINK_FINGERPRINT_H

#define RSINK_HASH_KEY_BYTES 16

/*
 * hi and lo, a hash of (order_id, event_id), are the identity of an event. payload,
 * a hash of (event_time, amount, group_key), tells a conflict from a duplicate.
 */
typedef struct RsinkFingerprint
{
	uint64		hi;
	uint64		lo;
	uint32		payload;
}

/* without padding, a key with a position (event.h) takes 24 bytes instead of 32 */
#if defined(pg_attribute_packed) && defined(pg_attribute_aligned)
			pg_attribute_packed()
			pg_attribute_aligned(4)
#endif
RsinkFingerprint;

/* The size of a fingerprint in a page row: hi, lo and payload without padding. */
#define RSINK_FINGERPRINT_BYTES (2 * sizeof(uint64) + sizeof(uint32))

struct RsinkEvent;

extern void rsink_fingerprint_id(const unsigned char *key,
								 const char *order_id, int order_len,
								 const char *event_id, int event_len,
								 RsinkFingerprint *fp);
extern void rsink_fingerprint(const unsigned char *key,
							  const struct RsinkEvent *event,
							  RsinkFingerprint *fp);
extern void rsink_fingerprint_sample(const unsigned char *key, unsigned char *bytes);
extern char *rsink_sample_hex(const unsigned char *key);

/* Compare two fingerprints by identity alone, whatever the payload. */
static inline int
rsink_fingerprint_cmp(const RsinkFingerprint *a, const RsinkFingerprint *b)
{
	if (a->hi != b->hi)
		return a->hi < b->hi ? -1 : 1;
	if (a->lo != b->lo)
		return a->lo < b->lo ? -1 : 1;
	return 0;
}

#endif							/* RSINK_FINGERPRINT_H */
