/*-------------------------------------------------------------------------
 *
 * seen_spill.h
 *	  The fingerprints that have no place in shared memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_SEEN_SPILL_H
#define RSINK_SEEN_SPILL_H

#include "seen_page.h"

struct RsinkTable;

extern RsinkRowState rsink_spill_state(struct RsinkTable *spill, const RsinkFingerprint *fp,
									   uint32 *payload);
extern void rsink_spill_add(struct RsinkTable *spill, const RsinkFingerprint *fp,
							TimestampTz event_time);

#endif							/* RSINK_SEEN_SPILL_H */
