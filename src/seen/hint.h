/*-------------------------------------------------------------------------
 *
 * hint.h
 *	  Rows to which an address leads or, where the address is wrong, the primary key.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_HINT_H
#define RSINK_HINT_H

#include "access/genam.h"
#include "access/htup.h"
#include "executor/tuptable.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

/* Reads rows of a table whose primary key begins with a slice, and keeps the last one pinned. */
typedef struct RsinkHintReader
{
	Oid			relid;
	int			attnum;			/* column of the slice, the first one of the primary key */
	MemoryContext context;		/* in which the table is opened */
	Relation	rel;			/* NULL until the first row is asked for */
	BlockNumber nblocks;		/* the table has at least so many: our lock on it stops
								 * truncation */
	Relation	index;
	IndexScanDesc scan;			/* NULL until an address was wrong or missing */
	TupleTableSlot *slot;
	SnapshotData dirty;
	Buffer		buffer;			/* of the row below, or invalid */
	HeapTupleData tuple;
	bool		unfinished;		/* is the transaction that inserted the row? */
} RsinkHintReader;

extern void rsink_hint_begin(RsinkHintReader *reader, Oid relid, int attnum);
extern void rsink_hint_open(RsinkHintReader *reader);
extern void rsink_hint_rest(RsinkHintReader *reader);
extern void rsink_hint_end(RsinkHintReader *reader);
extern bool rsink_hint_follow(RsinkHintReader *reader, const ItemPointerData *tid, Buffer recent);
extern bool rsink_hint_search(RsinkHintReader *reader, int32 slice, Datum second, RegProcedure at_most);

#endif							/* RSINK_HINT_H */
