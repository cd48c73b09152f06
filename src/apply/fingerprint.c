/*-------------------------------------------------------------------------
 *
 * fingerprint.c
 *	  The keyed hash by which an event is recognized.
 *
 * The hash is libsodium's SipHash-2-4 with one random key per sink, because
 * without the key nobody can craft two events with the same hash. The length of
 * the order_id is hashed with the strings, so that ('ab', 'c') and ('a', 'bc')
 * differ.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sodium.h>

#include "fmgr.h"
#include "utils/numeric.h"

#include "apply/event.h"
#include "apply/fingerprint.h"
#include "revenue/amount.h"

StaticAssertDecl(crypto_shorthash_siphashx24_KEYBYTES == RSINK_HASH_KEY_BYTES,
				 "a sink's key is a SipHash key");

/*
 * Compute the identity, hi and lo, of a fingerprint; the payload becomes 0. The ids
 * have at most RSINK_ID_MAX bytes each.
 */
void
rsink_fingerprint_id(const unsigned char *key,
					 const char *order_id, int order_len,
					 const char *event_id, int event_len,
					 RsinkFingerprint *fp)
{
	unsigned char buf[sizeof(int32) + 2 * RSINK_ID_MAX];
	uint64		out[2];

	Assert(order_len <= RSINK_ID_MAX && event_len <= RSINK_ID_MAX);
	memcpy(buf, &order_len, sizeof(int32));
	memcpy(buf + sizeof(int32), order_id, order_len);
	memcpy(buf + sizeof(int32) + order_len, event_id, event_len);
	crypto_shorthash_siphashx24((unsigned char *) out, buf,
								sizeof(int32) + order_len + event_len, key);
	fp->hi = out[0];
	fp->lo = out[1];
	fp->payload = 0;
}

/* Compute the whole fingerprint of an event that is not a bad one. */
void
rsink_fingerprint(const unsigned char *key, const RsinkEvent *event,
				  RsinkFingerprint *fp)
{
	char		buf[sizeof(TimestampTz) + 256 + RSINK_ID_MAX];
	int			len = sizeof(TimestampTz);
	uint64		out;

	rsink_fingerprint_id(key, event->order_id, event->order_len,
						 event->event_id, event->event_len, fp);
	memcpy(buf, &event->event_time, sizeof(TimestampTz));
	len += rsink_amount_canonical(event->amount, buf + len, 256);
	if (event->group_len > 0)
		memcpy(buf + len, event->group_key, event->group_len);
	len += event->group_len;
	crypto_shorthash_siphash24((unsigned char *) &out, (unsigned char *) buf, len, key);
	fp->payload = (uint32) out;
}

/*
 * The fingerprint of a fixed sample event, as RSINK_FINGERPRINT_BYTES bytes in the
 * format of a page row. A server that computes other bytes than the sink catalog
 * has, for example because of its byte order, would not recognize the sink's events.
 */
void
rsink_fingerprint_sample(const unsigned char *key, unsigned char *bytes)
{
	RsinkEvent	event = {
		.order_id = "order-7", .order_len = 7,
		.event_id = "evt-9f3", .event_len = 7,
		.group_key = "web", .group_len = 3,
		.event_time = INT64CONST(762602472000000)
	};
	RsinkFingerprint fp;

	event.amount = int64_div_fast_to_numeric(-123456789, 2);
	rsink_fingerprint(key, &event, &fp);
	memcpy(bytes, &fp.hi, sizeof(uint64));
	memcpy(bytes + sizeof(uint64), &fp.lo, sizeof(uint64));
	memcpy(bytes + 2 * sizeof(uint64), &fp.payload, sizeof(uint32));
}

/*
 * The bytes of rsink_fingerprint_sample() as hexadecimal digits, for a statement;
 * allocated in the current memory context.
 */
char *
rsink_sample_hex(const unsigned char *key)
{
	unsigned char bytes[RSINK_FINGERPRINT_BYTES];
	char	   *hex = palloc(2 * sizeof(bytes) + 1);

	rsink_fingerprint_sample(key, bytes);
	return sodium_bin2hex(hex, 2 * sizeof(bytes) + 1, bytes, sizeof(bytes));
}
