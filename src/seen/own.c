/*-------------------------------------------------------------------------
 *
 * own.c
 *	  Has a sink events of its own, which were not imported?
 *
 * Totals and seen events can be imported only as long as the sink has no event of
 * its own, so that nothing is counted by both. An event is the sink's own from the
 * moment at which a writer has claimed or deferred it, before the writer's
 * transaction ends, and for ever if that transaction commits. Nobody waits for
 * anybody:
 *
 *	- import_seen() looks for own page rows in each hold of the sink lock in
 *	  which it claims events. So either the writer comes first, and the import is
 *	  refused, or the import comes first, and the writer finds the imported
 *	  events claimed: it defers them for as long as the import is unfinished.
 *	- import_totals() looks for own page rows once. Whoever writes later inserts
 *	  deltas, which are not in what is imported.
 *
 * So a writer that begins while an import is unfinished does no harm to what has
 * been imported, and only further calls of that import are refused. An import holds
 * the maintenance lock to the end of its transaction: until then nobody merges,
 * expires, packs or seals, and no two imports meet.
 *
 * Page rows of imported events have an "oldest" before all times, by which an index
 * finds the others at once. When own events leave the page rows for a slice, the
 * slice has their newest event time. And once the sink has a watermark, which
 * imported events don't move, it has had own events, even if their rows are lost.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "seen/own.h"
#include "seen/seen.h"
#include "seen/seen_page.h"
#include "sink/sink.h"

/*
 * Is there a page row of events that were not imported, committed or unfinished?
 * The caller may hold the sink lock.
 */
bool
rsink_own_row_exists(const RsinkSeen *seen)
{
	Relation	index = rsink_table_open_index(&seen->pages, Anum_seen_oldest);
	SnapshotData dirty;
	ScanKeyData key;
	SysScanDesc scan;
	bool		found;

	InitDirtySnapshot(dirty);
	ScanKeyInit(&key, Anum_seen_oldest, BTGreaterStrategyNumber, F_TIMESTAMPTZ_GT,
				TimestampTzGetDatum(RSINK_IMPORTED_OLDEST));
	scan = systable_beginscan_ordered(seen->pages.rel, index, &dirty, 1, &key);
	found = HeapTupleIsValid(systable_getnext_ordered(scan, ForwardScanDirection));
	systable_endscan_ordered(scan);
	return found;
}

/* Has a slice events that were not imported? Caller holds the maintenance lock. */
static bool
own_slice_exists(const RsinkSink *sink)
{
	Relation	rel = table_open(sink->slice, AccessShareLock);
	Snapshot	latest = RegisterSnapshot(GetLatestSnapshot());
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, latest, 0, NULL);
	bool		found = false;
	HeapTuple	tuple;

	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
		found = !heap_attisnull(tuple, Anum_slice_own_newest, RelationGetDescr(rel));
	systable_endscan(scan);
	UnregisterSnapshot(latest);
	table_close(rel, AccessShareLock);
	return found;
}

/* Is there a deferred event, committed or unfinished? */
static bool
deferred_exists(const RsinkSink *sink)
{
	Relation	rel = table_open(rsink_catalog_relid("deferred_event"), AccessShareLock);
	SnapshotData dirty;
	ScanKeyData key;
	SysScanDesc scan;
	bool		found;

	InitDirtySnapshot(dirty);
	ScanKeyInit(&key, Anum_deferred_sink_id, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(sink->id));
	scan = systable_beginscan(rel, rsink_table_index(rel, Anum_deferred_sink_id), true, &dirty, 1, &key);
	found = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

/* Raise object_not_in_prerequisite_state for a sink that has events of its own. */
void
rsink_raise_own(const RsinkSink *sink)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("sink \"%s\" has events of its own", sink->name),
			 errdetail("Nothing can be imported any more once a writer has brought an event, even if its transaction is unfinished."),
			 errhint("Import before the writers begin. To start again, stop the writers, drop the sink and create it anew.")));
}

/*
 * Raise object_not_in_prerequisite_state if the sink has events of its own, counted,
 * unfinished or deferred, but for those in page rows, for which the caller looks with
 * rsink_own_row_exists(). Caller holds the maintenance lock.
 */
void
rsink_require_no_own(const RsinkSink *sink)
{
	if (rsink_state_time(rsink_catalog_relid("sink_state"), sink->id, Anum_state_watermark, NULL) != DT_NOBEGIN ||
		own_slice_exists(sink) || deferred_exists(sink))
		rsink_raise_own(sink);
}
