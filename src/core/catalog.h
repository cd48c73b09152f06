/*-------------------------------------------------------------------------
 *
 * catalog.h
 *	  Access from C to the extension's tables, and inserting rows into them.
 *
 * The column numbers follow sql/revenue_sink--1.1.sql. Rows are inserted without
 * the executor, which would check the current user's privileges on the tables.
 * So nobody but the tables' owner needs such privileges; the functions decide what
 * a role may do.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_CATALOG_H
#define RSINK_CATALOG_H

#include "access/htup.h"
#include "catalog/indexing.h"
#include "datatype/timestamp.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#define RSINK_SCHEMA "revenue_sink"

/*
 * Only these columns of the sink catalog have the same number in each version of
 * the extension, since an update drops columns. The others are found by name.
 */
#define Anum_catalog_id				1
#define Anum_catalog_name			2

#define Anum_state_sink_id			1
#define Anum_state_watermark		2
#define Anum_state_horizon			3
#define Anum_state_expired			4
#define Anum_state_totals			5
#define Anum_state_retained_from	6
#define Anum_state_removed			7
#define Anum_state_discarded		8
#define Anum_state_imported_events	9
#define Anum_state_imported_seen	10
#define Natts_state					10

#define Anum_seen_oldest			1
#define Anum_seen_newest			2
#define Anum_seen_events			3
#define Anum_seen_fingerprints		4
#define Natts_seen					4

/* a row of a sealed slice */
#define Anum_sealed_first			1
#define Anum_sealed_slice			2
#define Anum_sealed_events			3
#define Anum_sealed_fingerprints	4
#define Natts_sealed				4

/* a piece of a slice's filter */
#define Anum_filter_slice			1
#define Anum_filter_piece			2
#define Anum_filter_lines			3
#define Natts_filter				3

/* a sealed slice */
#define Anum_slice_slice			1
#define Anum_slice_events			2
#define Anum_slice_newest			3
#define Anum_slice_rows				4
#define Anum_slice_lines			5
#define Anum_slice_own_newest		6
#define Natts_slice					6

#define Anum_delta_minute			1
#define Anum_delta_group_key		2
#define Anum_delta_revenue			3
#define Anum_delta_events			4
#define Natts_delta					4

/* a total, in mode 'events': the columns of a delta, and */
#define Anum_total_uncounted		5

#define Anum_version_minute			1
#define Anum_version_group_key		2
#define Anum_version_revenue		3
#define Anum_version_version		4
#define Anum_version_epoch			5
#define Anum_version_number			6
#define Anum_version_sequence		7
#define Natts_version				7

#define Anum_deferred_sink_id		1
#define Anum_deferred_order_id		2
#define Anum_deferred_event_id		3
#define Anum_deferred_event_time	4
#define Anum_deferred_amount		5
#define Anum_deferred_group_key		6
#define Anum_deferred_deferred_at	7
#define Natts_deferred				7

#define Anum_settled_sink_id		1
#define Anum_settled_order_id		2
#define Anum_settled_event_id		3
#define Anum_settled_answer			4
#define Anum_settled_settled_at		5
#define Natts_settled				5

#define Anum_dead_letter_sink_id	1
#define Anum_dead_letter_letter		2
#define Anum_dead_letter_reason		3
#define Anum_dead_letter_order_id	4
#define Anum_dead_letter_event_id	5
#define Anum_dead_letter_event_time	6
#define Anum_dead_letter_amount		7
#define Anum_dead_letter_group_key	8
#define Anum_dead_letter_arrived_at 9
#define Natts_dead_letter			9

#define Anum_resolved_sink_id		1
#define Anum_resolved_event			2
#define Anum_resolved_letter		3
#define Anum_resolved_reason		4
#define Anum_resolved_order_id		5
#define Anum_resolved_event_id		6
#define Anum_resolved_resolution	7
#define Anum_resolved_resolved_at	8
#define Anum_resolved_resolved_by	9
#define Anum_resolved_note			10
#define Natts_resolved				10

#define Anum_letter_count_sink_id	1
#define Anum_letter_count_letters	2
#define Anum_letter_count_oldest	3
#define Anum_letter_count_counted_at 4
#define Natts_letter_count			4

#define Anum_epoch_sink_id			1
#define Anum_epoch_job				2
#define Anum_epoch_writer			3
#define Anum_epoch_epoch			4
#define Anum_epoch_opened_at		5
#define Anum_epoch_given			6
#define Natts_epoch					6

#define Anum_ledger_sink_id			1
#define Anum_ledger_job				2
#define Anum_ledger_writer			3
#define Anum_ledger_epoch			4
#define Anum_ledger_number			5
#define Anum_ledger_last			6
#define Anum_ledger_events			7
#define Anum_ledger_newest			8
#define Anum_ledger_ended_at		9
#define Natts_ledger				9

#define Anum_decision_sink_id		1
#define Anum_decision_job			2
#define Anum_decision_writer		3
#define Anum_decision_epoch			4
#define Anum_decision_number		5
#define Anum_decision_xid			6
#define Anum_decision_commits		7
#define Anum_decision_decided_at	8
#define Natts_decision				8

#define Anum_offset_sink_id			1
#define Anum_offset_source			2
#define Anum_offset_partition		3
#define Anum_offset_next_offset		4
#define Anum_offset_epoch			5
#define Anum_offset_number			6
#define Anum_offset_sequence		7
#define Natts_offset				7

/* A table that is open for inserting rows, with its indexes. */
typedef struct RsinkTable
{
	Relation	rel;
	CatalogIndexState indexes;
} RsinkTable;

extern Oid	rsink_catalog_relid(const char *name);
extern Oid	rsink_ledger_relid(void);
extern Oid	rsink_relation_owner(Oid relid);
extern void rsink_require_heap(Relation rel);
extern void rsink_table_open(RsinkTable *table, Oid relid);
extern void rsink_table_open_named(RsinkTable *table, const char *name);
extern void rsink_table_insert(RsinkTable *table, HeapTuple tuple);
extern void rsink_table_insert_values(RsinkTable *table, Datum *values, bool *nulls);
extern void rsink_table_insert_many(RsinkTable *table, HeapTuple *tuples, int n);
extern void rsink_table_close(RsinkTable *table);
extern TimestampTz rsink_state_time(Oid state, int32 id, int attnum, Snapshot snapshot);
extern Oid	rsink_table_index(Relation rel, int attnum);
extern Relation rsink_table_open_index(const RsinkTable *table, int attnum);

#endif							/* RSINK_CATALOG_H */
