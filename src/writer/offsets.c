/*-------------------------------------------------------------------------
 *
 * offsets.c
 *	  Offsets of the source, committed together with its events.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "api/argument.h"
#include "apply/event.h"
#include "core/catalog.h"
#include "core/compat.h"
#include "core/spi_util.h"
#include "sink/right.h"
#include "sink/sink.h"
#include "sink/slot.h"
#include "writer/batch.h"
#include "writer/offsets.h"
#include "writer/tally.h"

PG_FUNCTION_INFO_V1(revenue_sink_store_offsets);
PG_FUNCTION_INFO_V1(revenue_sink_offsets);

/*
 * A query for the rows of a sink's offsets that count, one per partition: those of
 * the highest epoch, batch number and sequence. Its columns are source, partition,
 * next_offset and tid, the address of the row.
 */
char *
rsink_offsets_that_count(int32 sink_id)
{
	return psprintf("SELECT DISTINCT ON (source, partition) source, partition, next_offset, ctid AS tid "
					"FROM revenue_sink.committed_offset WHERE sink_id = %d "
					"ORDER BY source, partition, epoch DESC, number DESC, sequence DESC", sink_id);
}

/*
 * store_offsets(sink, source, partition[], next_offset[])
 *
 * Inserts a row per partition, in the caller's transaction. What was stored last
 * counts even if it is a lower offset, as after a rewind.
 */
Datum
revenue_sink_store_offsets(PG_FUNCTION_ARGS)
{
	RsinkSink  *sink = rsink_sink_argument(fcinfo, 0, RSINK_MAY_APPLY);
	const RsinkBatch *batch = rsink_current_batch(sink);
	Datum		values[Natts_offset];
	bool		nulls[Natts_offset] = {false};
	RsinkColumn partition;
	RsinkColumn next_offset;
	RsinkTable	table;
	RsinkCounts counts = {{0}};

	PreventCommandIfReadOnly("store_offsets()");
	PreventCommandDuringRecovery("store_offsets()");
	(void) rsink_name_argument(fcinfo, 1, "source");
	rsink_column_open(&partition, fcinfo, 2, "partition", -1);
	rsink_column_open(&next_offset, fcinfo, 3, "next_offset", partition.length);
	table_close(table_open(sink->delta, RowExclusiveLock), NoLock);
	rsink_table_open_named(&table, "committed_offset");
	values[Anum_offset_sink_id - 1] = Int32GetDatum(sink->id);
	values[Anum_offset_source - 1] = PG_GETARG_DATUM(1);
	values[Anum_offset_epoch - 1] = Int64GetDatum(batch ? batch->epoch : 0);
	values[Anum_offset_number - 1] = Int64GetDatum(batch ? batch->number : 0);
	for (int i = 0; i < partition.length; i++)
	{
		bool		isnull[2];

		values[Anum_offset_partition - 1] = Int32GetDatum(rsink_column_int32(&partition, &isnull[0]));
		values[Anum_offset_next_offset - 1] = Int64GetDatum(rsink_column_int64(&next_offset, &isnull[1]));
		if (isnull[0] || isnull[1])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s at position %d must not be null",
							isnull[0] ? "partition" : "next_offset", i + 1)));
		values[Anum_offset_sequence - 1] = Int64GetDatum(rsink_next_sequence(sink, NULL));
		rsink_table_insert_values(&table, values, nulls);
	}
	rsink_table_close(&table);
	rsink_tally_count(sink, &counts, DT_NOBEGIN);
	PG_RETURN_VOID();
}

/*
 * offsets(sink, source) -> (source, partition, next_offset)
 *
 * Returns the offset that each partition is to be read from, as the current
 * snapshot sees it. If source is NULL, it returns those of all sources.
 */
Datum
revenue_sink_offsets(PG_FUNCTION_ARGS)
{
	RsinkSink  *sink = rsink_sink_argument(fcinfo, 0, RSINK_MAY_READ);
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	RsinkSpi	spi;
	char	   *condition = "";

	if (!PG_ARGISNULL(1))
		condition = psprintf("WHERE source = %s",
							 quote_literal_cstr(text_to_cstring(PG_GETARG_TEXT_PP(1))));
	InitMaterializedSRF(fcinfo, 0);
	rsink_spi_begin(&spi);
	rsink_spi(SPI_OK_SELECT, "SELECT source, partition, next_offset FROM (%s) AS w %s ORDER BY source, partition",
			  rsink_offsets_that_count(sink->id), condition);
	for (uint64 i = 0; i < SPI_processed; i++)
		tuplestore_puttuple(result->setResult, SPI_tuptable->vals[i]);
	rsink_spi_end(&spi);
	return (Datum) 0;
}
