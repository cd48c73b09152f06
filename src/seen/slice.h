/*-------------------------------------------------------------------------
 *
 * slice.h
 *	  The sealed slices of a sink, as shared memory knows them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_SLICE_H
#define RSINK_SLICE_H

#include "datatype/timestamp.h"
#include "storage/lwlock.h"

#include "apply/event.h"
#include "seen/extent.h"
#include "seen/piece.h"
#include "seen/tags.h"

/* The most slices, and groups of slices, that a sink can have. */
#define RSINK_MAX_SLICES 2048
#define RSINK_MAX_GROUPS 64

/*
 * A slice. Its events are in the table of its group. A slice that is in no group is
 * cold: its filter is read from the filter's table. A slice lacks fences if the pool had
 * no room for them; then primary keys lead to its rows, and to the pieces of its filter.
 */
typedef struct RsinkSlice
{
	int32		number;			/* in the sink's tables */
	uint32		nlines;			/* of the filter in the tables */
	int			group;			/* -1: it is in none */
	int			number_in_group;
	uint32		nrows;			/* fences of rows; fences of pieces follow them */
	RsinkExtent extent;			/* fences */
} RsinkSlice;

/* A group of slices, with a table of all of their events; see tags.h. */
typedef struct RsinkGroup
{
	int			nslices;		/* 0: the group is free */
	int			last;			/* number in the group that was given last */
	int64		events;			/* in the table */
	int64		room;			/* for so many is the table made */
	int			slice[RSINK_TAG_SLICES + 1];	/* by number in the group: which slice in the
												 * array below, or -1 */
	RsinkExtent extent;
} RsinkGroup;

/*
 * The slices of a sink. Changed under the sink lock and the slices lock, both taken
 * exclusively and in this order; read under either. (What is entered into the table of
 * a group before its slice is put needs the slices lock alone.)
 */
typedef struct RsinkSlices
{
	LWLock		lock;			/* the slices lock */
	bool		loaded;			/* are all slices of the tables here? Also a hint */
	uint64		generation;		/* grows with each change that adds a slice */
	Oid			relfile;		/* file of the sealed rows that the fences lead into */
	uint32		n;				/* also a hint */
	RsinkSlice	slice[RSINK_MAX_SLICES];
	RsinkGroup	group[RSINK_MAX_GROUPS];
} RsinkSlices;

/* A key that a slice may have. */
typedef struct RsinkCandidate
{
	int			key;			/* which of the keys asked for */
	int32		slice;			/* number of the slice */
	RsinkFence	fence;			/* of the row; block is InvalidBlockNumber if that isn't
								 * known */
} RsinkCandidate;

/* A cold slice. */
typedef struct RsinkColdSlice
{
	int32		number;
	uint32		nlines;			/* of its filter */
} RsinkColdSlice;

/* What the slices in memory say of some keys. */
typedef struct RsinkSliceAnswer
{
	const RsinkKey *keys;
	uint64		generation;		/* of the slices; 0: they must be asked again */
	RsinkCandidate *candidates; /* slice by slice, in the order of the keys */
	int			ncandidates;
	int			room;
	RsinkColdSlice *cold;		/* slices whose filters are to be asked, too */
	int			ncold;
} RsinkSliceAnswer;

extern void rsink_slices_init(RsinkSlices *slices, int tranche);
extern void rsink_slices_reset(RsinkSlices *slices);
extern void rsink_slices_put(RsinkSlices *slices, const RsinkSlice *slice);
extern void rsink_slices_remove(RsinkSlices *slices, int32 number);
extern bool rsink_group_open(RsinkSlices *slices, RsinkSlice *slice, int64 events, int64 most,
							 double reserve);
extern bool rsink_group_grows(const RsinkSlices *slices, const RsinkSlice *slice, int64 events, int64 most,
							  double reserve);
extern bool rsink_group_enter(RsinkSlices *slices, const RsinkSlice *slice, const RsinkKey *keys, int n);
extern void rsink_slices_ask(RsinkSlices *slices, const RsinkKey *keys, int n, RsinkSliceAnswer *answer);
extern int	rsink_slices_pieces(RsinkSlices *slices, const RsinkColdSlice *cold, const RsinkKey *keys, int n,
								RsinkPieceAsk *asks);
extern void rsink_slices_note(RsinkSlices *slices, int32 number, const RsinkPieceAsk *asks, int nasks);
extern void rsink_slices_add(RsinkSliceAnswer *answer, const RsinkCandidate *candidate);
extern void rsink_slices_lead(RsinkSlices *slices, RsinkSliceAnswer *answer, int from);
extern void rsink_slices_bytes(RsinkSlices *slices, Size *filters, Size *fences);

#endif							/* RSINK_SLICE_H */
