/*-------------------------------------------------------------------------
 *
 * seen_page.h
 *	  Page rows: the fingerprints of one call, as rows that fill a page.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_SEEN_PAGE_H
#define RSINK_SEEN_PAGE_H

#include "access/htup.h"
#include "datatype/timestamp.h"
#include "storage/block.h"
#include "storage/buf.h"
#include "storage/itemptr.h"
#include "utils/relcache.h"

#include "batch.h"

/* The most fingerprints one row can have: such a row fills a page of 8 kB. */
#define RSINK_PAGE_MAX 405

/* A page row, taken apart; the arrays belong to the tuple and aren't aligned. */
typedef struct RsinkPage
{
	TimestampTz oldest;			/* event times of the row's events */
	TimestampTz newest;
	int			n;
	const char *hi;				/* n * uint64, ascending */
	const char *lo;				/* n * uint64 */
	const char *payload;		/* n * uint32 */
} RsinkPage;

/* Is the event under this address counted, as of now? */
typedef enum RsinkRowState
{
	RSINK_ROW_GONE,				/* aborted, deleted, or another event's */
	RSINK_ROW_COUNTED,			/* committed, or the own transaction's */
	RSINK_ROW_OPEN				/* in a transaction open or prepared elsewhere */
} RsinkRowState;

/* Reads rows by address and keeps the last one pinned. */
typedef struct RsinkPageReader
{
	Relation	rel;
	BlockNumber nblocks;		/* at least so long: our lock stops truncation */
	ItemPointerData tid;		/* of the row below, or invalid */
	RsinkRowState state;
	Buffer		buffer;
	HeapTupleData tuple;
	RsinkPage	page;
} RsinkPageReader;

extern HeapTuple rsink_page_form(TupleDesc desc, const RsinkKey *keys, int n,
								 TimestampTz oldest, TimestampTz newest);
extern void rsink_page_deform(TupleDesc desc, HeapTuple tuple, RsinkPage *page);
extern int	rsink_page_find(const RsinkPage *page, const RsinkFingerprint *fp);
extern void rsink_page_key(const RsinkPage *page, int i, RsinkFingerprint *fp);
extern void rsink_page_reader_begin(RsinkPageReader *reader, Relation rel);
extern void rsink_page_reader_end(RsinkPageReader *reader);
extern RsinkRowState rsink_page_state(RsinkPageReader *reader, const ItemPointerData *tid,
									  const RsinkFingerprint *fp, bool again,
									  uint32 *payload);

#endif							/* RSINK_SEEN_PAGE_H */
