/*-------------------------------------------------------------------------
 *
 * deferred.c
 *	  Deferred events: events that wait for another transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sodium.h>

#include "access/genam.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/numeric.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "apply/deferred.h"
#include "apply/event.h"
#include "core/catalog.h"
#include "core/compat.h"
#include "sink/sink.h"

/*
 * Insert n whole events into the table deferred_event, which the caller has opened,
 * in the current transaction. They are settled, by the worker or merge(), when the
 * transactions that claim the same events have ended. The caller holds the sink
 * lock.
 */
void
rsink_defer(const RsinkSink *sink, RsinkTable *table, RsinkEvent *const *events, int n)
{
	Datum		values[Natts_deferred];
	bool		nulls[Natts_deferred] = {false};

	values[Anum_deferred_sink_id - 1] = Int32GetDatum(sink->id);
	values[Anum_deferred_deferred_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	for (int i = 0; i < n; i++)
	{
		rsink_event_values(events[i], values + Anum_deferred_order_id - 1,
						   nulls + Anum_deferred_order_id - 1);
		rsink_table_insert_values(table, values, nulls);
	}
}

