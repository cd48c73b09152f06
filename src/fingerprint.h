/*-------------------------------------------------------------------------
 *
 * fingerprint.h
 *	  The keyed hash by which an event is known again.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_FINGERPRINT_H
#define RSINK_FINGERPRINT_H

#define RSINK_HASH_KEY_BYTES 16

/*
 * 128 bits of (order_id, event_id) say which event it is; 32 bits of
 * (event_time, amount, group_key) say whether its content is the same.
 */
typedef struct RsinkFingerprint
{
	uint64		hi;
	uint64		lo;
	uint32		payload;
} RsinkFingerprint;

/* A fingerprint as a page row has it: hi, lo, payload. */
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

/* Orders by identity alone: the payload doesn't count. */
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
