/*-------------------------------------------------------------------------
 *
 * piece.h
 *	  Filters of slices that memory has no table of tags for, read from their table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_PIECE_H
#define RSINK_PIECE_H

#include "apply/event.h"
#include "seen/filter.h"
#include "seen/hint.h"
#include "storage/itemptr.h"

/* The lines of a piece of a filter, of which a row has one. */
#define RSINK_PIECE_LINES 126

/*
 * Where the lines begin in the page of a whole piece: its tuple lies at the end of the page.
 * This is for prefetching, and nothing depends on it.
 */
#define RSINK_PIECE_START \
	(BLCKSZ - MAXALIGN(MAXALIGN(SizeofHeapTupleHeader) + 2 * sizeof(int32) + VARHDRSZ + \
					   RSINK_PIECE_LINES * RSINK_LINE_BYTES) + \
	 MAXALIGN(SizeofHeapTupleHeader) + 2 * sizeof(int32) + VARHDRSZ)

/* The number of pieces of a filter of so many lines. */
#define RSINK_FILTER_PIECES(nlines) (((nlines) + RSINK_PIECE_LINES - 1) / RSINK_PIECE_LINES)

/* A piece of a slice's filter that some keys, which follow each other, are to be looked up in. */
typedef struct RsinkPieceAsk
{
	int32		slice;			/* number of the slice */
	uint32		nlines;			/* of the whole filter */
	uint32		piece;
	ItemPointerData tid;		/* where the piece was; invalid if that isn't known */
	Buffer		buffer;			/* in which the piece was last, or InvalidBuffer */
	int			from;			/* the first key */
	int			nkeys;
} RsinkPieceAsk;

extern const char *rsink_piece_lines(HeapTuple tuple, TupleDesc desc, int32 *slice, uint32 *piece, uint32 *nlines);
extern void rsink_piece_guess(RsinkPieceAsk *ask, const RsinkPieceAsk *before);
extern const char *rsink_piece_read(RsinkHintReader *reader, RsinkPieceAsk *ask, uint32 *nlines);

/* Ask the CPU for the line of a key, which need not be in the piece. */
static inline void
rsink_piece_prefetch(const RsinkPieceAsk *ask, const char *lines, uint32 nlines, const RsinkFingerprint *fp)
{
#if defined(__GNUC__)
	uint32		i = rsink_filter_line(fp, ask->nlines) - ask->piece * RSINK_PIECE_LINES;

	if (i < nlines)
	{
		/* lines in a tuple aren't aligned: this one may lie in two cache lines */
		__builtin_prefetch(lines + (Size) i * RSINK_LINE_BYTES);
		__builtin_prefetch(lines + (Size) (i + 1) * RSINK_LINE_BYTES - 1);
	}
#endif
}

/*
 * May the slice have this key? "Lines" are nlines lines of the piece asked for, or NULL
 * if the piece is missing or damaged.
 */
static inline bool
rsink_piece_has(const RsinkPieceAsk *ask, const char *lines, uint32 nlines, const RsinkFingerprint *fp)
{
	uint32		i = rsink_filter_line(fp, ask->nlines) - ask->piece * RSINK_PIECE_LINES;

	if (lines == NULL || i >= nlines)
		return true;
	return rsink_filter_has(lines + (Size) i * RSINK_LINE_BYTES, fp);
}

#endif							/* RSINK_PIECE_H */
