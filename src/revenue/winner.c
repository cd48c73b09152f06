/*-------------------------------------------------------------------------
 *
 * winner.c
 *	  Which version of a total wins, in mode 'totals'.
 *
 * The fact view and merging both ask here, so that a merge changes nothing for
 * readers. Versions come with a version number or without one:
 *
 * - Of those with a version number the highest one wins.
 * - Of those without, the one of the highest epoch and batch number wins.
 * - Where this doesn't decide, the highest sequence number wins, which is that of
 *   the last commit; see totals.c.
 * - Of the two winners, the one with the higher sequence number wins.
 *
 * So there is no order of all versions: version 6 beats version 5 even if 5 was
 * committed later, and between the two commits there may be one without a version
 * number, which beats 6 and loses to 5. Therefore the best one of each kind is kept
 * until all versions have been considered.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"

#include "api/argument.h"
#include "revenue/winner.h"

PG_FUNCTION_INFO_V1(revenue_sink_winner);

/* Does a win over b? Either both have a version number, or neither has. */
static bool
wins(const RsinkVersion *a, const RsinkVersion *b)
{
	if (a->version != b->version)
		return a->version > b->version;
	if (a->epoch != b->epoch)
		return a->epoch > b->epoch;
	if (a->number != b->number)
		return a->number > b->number;
	return a->sequence > b->sequence;
}

/*
 * Take a version into account. Its revenue is copied into the current memory context,
 * which must be the same for all versions of a bucket and group.
 */
void
rsink_winner_consider(RsinkWinner *winner, const RsinkVersion *version)
{
	RsinkVersion *best = version->version_isnull ? &winner->unversioned : &winner->versioned;

	if (best->revenue != NULL && !wins(version, best))
		return;
	if (best->revenue != NULL)
		pfree(best->revenue);
	*best = *version;
	best->revenue = DatumGetNumericCopy(NumericGetDatum(version->revenue));
}

/* The version that wins, of those that were considered; NULL if there were none. */
const RsinkVersion *
rsink_winner(const RsinkWinner *winner)
{
	const RsinkVersion *versioned = &winner->versioned;
	const RsinkVersion *unversioned = &winner->unversioned;

	if (unversioned->revenue != NULL &&
		(versioned->revenue == NULL || unversioned->sequence > versioned->sequence))
		return unversioned;
	return versioned->revenue != NULL ? versioned : NULL;
}

/*
 * winner(revenues, versions, epochs, numbers, sequences) -> record
 *
 * The total that takes the place of the versions of a bucket and group, one per array
 * element. It is the version that wins, but has the highest version number of all, so
 * that lower ones lose to it even if they come later. If it has a version number, it
 * has neither epoch nor batch number: these would beat an equal version that is
 * committed later. Returns NULL if there are no versions. Raises
 * array_subscript_error if the arrays differ in length.
 */
Datum
revenue_sink_winner(PG_FUNCTION_ARGS)
{
	RsinkColumn revenues;
	RsinkColumn versions;
	RsinkColumn epochs;
	RsinkColumn numbers;
	RsinkColumn sequences;
	RsinkWinner winner = {{0}};
	const RsinkVersion *best;
	Datum		values[5];
	bool		nulls[5] = {false};
	bool		versioned;

	rsink_column_open(&revenues, fcinfo, 0, "revenues", -1);
	rsink_column_open(&versions, fcinfo, 1, "versions", revenues.length);
	rsink_column_open(&epochs, fcinfo, 2, "epochs", revenues.length);
	rsink_column_open(&numbers, fcinfo, 3, "numbers", revenues.length);
	rsink_column_open(&sequences, fcinfo, 4, "sequences", revenues.length);
	for (int i = 0; i < revenues.length; i++)
	{
		RsinkVersion version;
		bool		isnull;			/* never true: the tables' columns are NOT NULL */

		version.revenue = (Numeric) rsink_column_varlena(&revenues);
		version.version = rsink_column_int64(&versions, &version.version_isnull);
		version.epoch = rsink_column_int64(&epochs, &isnull);
		version.number = rsink_column_int64(&numbers, &isnull);
		version.sequence = rsink_column_int64(&sequences, &isnull);
		if (version.revenue == NULL)
			elog(ERROR, "a version of a total has no revenue");
		rsink_winner_consider(&winner, &version);
	}
	if ((best = rsink_winner(&winner)) == NULL)
		PG_RETURN_NULL();
	versioned = winner.versioned.revenue != NULL;
	values[0] = NumericGetDatum(best->revenue);
	values[1] = Int64GetDatum(winner.versioned.version);
	nulls[1] = !versioned;
	values[2] = Int64GetDatum(versioned ? 0 : best->epoch);
	values[3] = Int64GetDatum(versioned ? 0 : best->number);
	values[4] = Int64GetDatum(best->sequence);
	return HeapTupleGetDatum(heap_form_tuple(rsink_result_desc(fcinfo), values, nulls));
}
