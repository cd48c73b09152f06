/*-------------------------------------------------------------------------
 *
 * round.c
 *	  merge() and expire(): parts of the worker's round, on demand.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"

#include "api/argument.h"
#include "revenue/retain.h"
#include "revenue/revenue.h"
#include "revenue/totals.h"
#include "seen/expire.h"
#include "sink/choice.h"
#include "sink/sink.h"
#include "worker/settle.h"

PG_FUNCTION_INFO_V1(revenue_sink_merge);
PG_FUNCTION_INFO_V1(revenue_sink_expire);

/*
 * merge(sink) -> bigint
 *
 * Settles deferred events and merges all deltas; returns how many rows that has
 * removed. Raises invalid_transaction_state in a transaction that has upserted into
 * the sink.
 */
Datum
revenue_sink_merge(PG_FUNCTION_ARGS)
{
	RsinkSink  *sink = rsink_maintained_sink(fcinfo, "merge()");
	BlockNumber from = 0;
	int64		removed;

	/*
	 * Where versions don't decide, the last commit wins, and this transaction's
	 * rows get their final sequence numbers just before it commits. Merging them
	 * now would rank them too early.
	 */
	if (sink->mode == RSINK_TOTALS && rsink_totals_pending(sink))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("merge() cannot run in a transaction that has called upsert() on sink \"%s\"",
						sink->name),
				 errhint("Commit the transaction first.")));
	removed = sink->mode == RSINK_TOTALS ? 0 : rsink_settle(sink, NULL);

	PG_RETURN_INT64(removed + rsink_merge_deltas(sink, PG_INT64_MAX, &from));
}

/*
 * expire(sink) -> bigint
 *
 * Raises the horizon, and removes page rows and slices behind it and totals
 * that the sink keeps no longer; returns how many rows that were.
 */
Datum
revenue_sink_expire(PG_FUNCTION_ARGS)
{
	RsinkSink  *sink = rsink_maintained_sink(fcinfo, "expire()");
	TimestampTz oldest = DT_NOBEGIN;
	int64		removed = rsink_expire(sink);

	/* rsink_retain() must see the horizon that rsink_expire() has written */
	CommandCounterIncrement();
	PG_RETURN_INT64(removed + rsink_retain(sink, &oldest));
}

