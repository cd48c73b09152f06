/*-------------------------------------------------------------------------
 *
 * piece.c
 *	  Filters of slices that memory has no table of tags for, read from their table.
 *
 * A filter lies in the table in pieces, a row each. A call's keys are sorted, and so are
 * the lines of a filter, so each piece is read once per call. A piece that is missing or
 * damaged says of every key that the slice may have it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "core/catalog.h"
#include "seen/piece.h"

/*
 * The lines of a piece in a row of the table of filters: sets of which slice and which
 * piece, and how many lines. NULL if the row can't be a piece. The lines point into the
 * tuple, and aren't aligned.
 */
const char *
rsink_piece_lines(HeapTuple tuple, TupleDesc desc, int32 *slice, uint32 *piece, uint32 *nlines)
{
	Datum		values[Natts_filter];
	bool		nulls[Natts_filter];
	const struct varlena *lines;

	heap_deform_tuple(tuple, desc, values, nulls);
	lines = (const struct varlena *) DatumGetPointer(values[Anum_filter_lines - 1]);
	*slice = DatumGetInt32(values[Anum_filter_slice - 1]);
	*piece = (uint32) DatumGetInt32(values[Anum_filter_piece - 1]);
	if (nulls[Anum_filter_lines - 1] || VARATT_IS_EXTERNAL(lines) || VARATT_IS_COMPRESSED(lines))
		return NULL;
	*nlines = VARSIZE_ANY_EXHDR(lines) / RSINK_LINE_BYTES;
	return VARDATA_ANY(lines);
}

/* Take the row just read apart, if it is the piece asked for. */
static const char *
take_piece(RsinkHintReader *reader, const RsinkPieceAsk *ask, uint32 *nlines)
{
	int32		slice;
	uint32		piece;
	const char *lines = rsink_piece_lines(&reader->tuple, RelationGetDescr(reader->rel), &slice, &piece, nlines);

	return slice == ask->slice && piece == ask->piece ? lines : NULL;
}

/*
 * Guess where a piece is, unless that is known: sealing writes a page per piece, one behind
 * the other, so the distance from the piece that was read before says it.
 */
void
rsink_piece_guess(RsinkPieceAsk *ask, const RsinkPieceAsk *before)
{
	if (!ItemPointerIsValid(&ask->tid) && ItemPointerIsValid(&before->tid))
		ItemPointerSet(&ask->tid, ItemPointerGetBlockNumber(&before->tid) + (ask->piece - before->piece),
					   ItemPointerGetOffsetNumber(&before->tid));
}

/*
 * Read a piece: sets *nlines, ask->tid and ask->buffer, and returns the lines, which stay
 * until the reader reads on. NULL if the piece is missing or damaged. Opens the table of
 * filters, with AccessShareLock. Heeds no cancels.
 */
const char *
rsink_piece_read(RsinkHintReader *reader, RsinkPieceAsk *ask, uint32 *nlines)
{
	const char *lines = NULL;

	rsink_hint_open(reader);
	if (rsink_hint_follow(reader, &ask->tid, ask->buffer))
		lines = take_piece(reader, ask, nlines);
	if (lines == NULL && rsink_hint_search(reader, ask->slice, Int32GetDatum((int32) ask->piece), F_INT4LE))
		lines = take_piece(reader, ask, nlines);
	ask->buffer = reader->buffer;
	if (lines != NULL)
		ask->tid = reader->tuple.t_self;
	else
		ItemPointerSetInvalid(&ask->tid);
	return lines;
}
