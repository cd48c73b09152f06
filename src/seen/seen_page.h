/*-------------------------------------------------------------------------
 *
 * seen_page.h
 *	  Page rows: heap rows with as many fingerprints as fit in a page.
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

#include "apply/event.h"
#include "apply/fingerprint.h"

/*
 * The most fingerprints that a page row can have: such a row fills a page of 8
 * kB.
 */
#define RSINK_PAGE_MAX 405

/* A page row, taken apart; the arrays belong to the tuple and aren't aligned. */
typedef struct RsinkPage
{
	TimestampTz oldest;			/* least and greatest event time of the row */
	TimestampTz newest;
	int			n;
	const char *hi;				/* n * uint64, ascending */
	const char *lo;				/* n * uint64 */
	const char *payload;		/* n * uint32 */
} RsinkPage;

/*
 * The "oldest" of a row whose events are imported. Every other row, but for the
 * arrival row, has a finite one. An imported event was counted elsewhere, and what
 * was imported can be imported again: so such a row neither holds back the horizon
 * nor moves the watermark.
 */
#define RSINK_IMPORTED_OLDEST DT_NOBEGIN

/* Is an event counted at this instant, by one row or by any? */
typedef enum RsinkRowState
{
	RSINK_ROW_GONE,				/* no row counts it: aborted, deleted, another's */
	RSINK_ROW_COUNTED,			/* by a row that is committed, or our own */
	RSINK_ROW_UNFINISHED		/* by a row of a transaction that is open or
								 * prepared elsewhere */
} RsinkRowState;

/* Reads page rows by address, and keeps the last one pinned. */
typedef struct RsinkPageReader
{
	Relation	rel;
	BlockNumber nblocks;		/* the table has at least so many: our lock on
								 * it stops truncation */
	ItemPointerData tid;		/* of the row below, or invalid */
	RsinkRowState state;
	Buffer		buffer;
	HeapTupleData tuple;
	RsinkPage	page;
} RsinkPageReader;

extern bytea *rsink_page_bytes(const RsinkKey *keys, int n);
extern void rsink_page_point(RsinkPage *page, Datum fingerprints, bool isnull, const ItemPointerData *tid);
extern HeapTuple rsink_page_form(TupleDesc desc, const RsinkKey *keys, int n,
								 TimestampTz oldest, TimestampTz newest);
extern void rsink_page_deform(TupleDesc desc, HeapTuple tuple, RsinkPage *page);
extern int	rsink_page_find(const RsinkPage *page, const RsinkFingerprint *fp);
extern void rsink_page_key(const RsinkPage *page, int i, RsinkFingerprint *fp);
extern void rsink_page_reader_begin(RsinkPageReader *reader, Relation rel);
extern void rsink_page_reader_end(RsinkPageReader *reader);
extern bool rsink_page_begins(RsinkPageReader *reader, const ItemPointerData *tid, uint64 first);
extern RsinkRowState rsink_page_state(RsinkPageReader *reader, const ItemPointerData *tid,
									  const RsinkFingerprint *fp, bool again,
									  uint32 *payload);

#endif							/* RSINK_SEEN_PAGE_H */
