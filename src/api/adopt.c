/*-------------------------------------------------------------------------
 *
 * adopt.c
 *	  Adoption: making this database the home of a sink.
 *
 * The worker adopts a sink as soon as it finds that all of the sink's rows are
 * here, and the sink's owner does so by calling adopt_sink(). The script that
 * updates from version 1.0 calls adopt_sink(), too, because the sinks of version
 * 1.0 have neither marks nor a home; see home.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "replication/logicalworker.h"
#include "utils/builtins.h"
#include "utils/rel.h"

#include "api/admin.h"
#include "api/adopt.h"
#include "api/argument.h"
#include "apply/fingerprint.h"
#include "core/catalog.h"
#include "core/compat.h"
#include "core/lock.h"
#include "core/spi_util.h"
#include "revenue/fact.h"
#include "sink/choice.h"
#include "sink/home.h"
#include "sink/problem.h"
#include "sink/relations.h"
#include "sink/right.h"
#include "sink/sink.h"
#include "twophase/unpreparable.h"

PG_FUNCTION_INFO_V1(revenue_sink_adopt_sink);
PG_FUNCTION_INFO_V1(revenue_sink_sink_problem);
PG_FUNCTION_INFO_V1(revenue_sink_note_copy);

/*
 * Find the sink's view where it bears no marks: a view that reads the sink's own
 * tables and nothing else. While the extension is being updated ("updating") it
 * must be the view that the catalog of version 1.0 names. Otherwise the view has
 * lost its triggers, and must belong to a role that may read the sink's tables, so
 * that no stranger's view is taken. Returns InvalidOid if there is no such view,
 * or more than one.
 */
static Oid
unmarked_view(const RsinkSink *sink, RsinkView which, bool updating)
{
	char	   *condition = updating ?
		psprintf("EXISTS (SELECT FROM revenue_sink.sink_catalog s WHERE s.id = %d AND s.%s = c.oid)",
				 sink->id, which == RSINK_FACT ? "fact" : "ingest") :
		psprintf("has_table_privilege(c.relowner, %u, 'SELECT')", sink->seen);
	bool		isnull;

	if (rsink_spi(SPI_OK_SELECT,
				  "SELECT c.oid FROM pg_class c WHERE c.relkind = 'v' AND %s AND "
				  "  (SELECT array_agg(DISTINCT d.refobjid ORDER BY d.refobjid) FROM pg_rewrite r JOIN pg_depend d "
				  "     ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid "
				  "   WHERE r.ev_class = c.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> c.oid) = "
				  "  (SELECT array_agg(DISTINCT o ORDER BY o) FROM unnest(ARRAY[%u, %u]::oid[]) AS o)", condition,
				  which == RSINK_FACT ? sink->delta : sink->seen,
				  which == RSINK_FACT ? sink->total : sink->seen) != 1)
		return InvalidOid;
	return DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

/*
 * See that a view bears the sink's marks. A view without marks gets them, and a
 * fact view then also gets the definition of this version. Returns false if the
 * sink has no such view.
 */
static bool
find_or_mark(const RsinkSink *sink, RsinkView which, bool updating)
{
	Oid			relid;

	if (OidIsValid(rsink_find_view(sink->id, which)))
		return true;
	relid = unmarked_view(sink, which, updating);
	if (!OidIsValid(relid))
		return false;
	if (which == RSINK_FACT)
		rsink_replace_fact(sink->id, sink->mode == RSINK_TOTALS, relid);
	rsink_mark_view(sink->id, which, relid);
	return true;
}

/*
 * Note in the catalog how a sink of version 1.0 hashes text: in the encoding of
 * its database, which is taken to be this one's.
 */
static void
note_encoding(const RsinkSink *sink, bool updating)
{
	rsink_spi(SPI_OK_UPDATE,
			  "UPDATE revenue_sink.sink_catalog SET encoding = '%s', sample = '\\x%s' WHERE id = %d",
			  GetDatabaseEncodingName(), rsink_sample_hex(sink->key), sink->id);
	if (!updating)
		ereport(NOTICE,
				(errmsg("assuming that the events of sink \"%s\" were hashed in encoding %s", sink->name,
						GetDatabaseEncodingName()),
				 errhint("If the sink comes from a database of another encoding, restore the sink into a database of that encoding.")));
}

/*
 * Make the current database the home of a sink, in the current transaction.
 * Caller is connected by rsink_spi_begin() and holds the maintenance lock.
 */
static void
make_home(RsinkSink *sink)
{
	rsink_home_create(sink->id, sink->name);
	rsink_sink_changed();
	CommandCounterIncrement();
}

/*
 * Adopt a sink. Caller is connected by rsink_spi_begin(). "updating" is true if
 * the script that updates the extension calls: then the sink has been at home here
 * all the time, and one whose views are gone is only warned of, because the script
 * must go on to the other sinks.
 */
static void
adopt(RsinkSink *sink, bool updating)
{
	char	   *missing;

	if (updating || sink->encoding < 0)
	{
		/* the sink comes from version 1.0 */
		rsink_create_sealed(sink->id);
		rsink_drop_spill(sink->id);
	}
	missing = rsink_missing_relation(sink, false);
	if (missing == NULL && (updating || sink->encoding < 0) && sink->mode != RSINK_TOTALS)
		rsink_add_uncounted(sink->id);	/* likewise */
	if (missing == NULL && !find_or_mark(sink, RSINK_FACT, updating))
		missing = "the fact view is gone, or is not the one that was made for the sink";
	if (missing == NULL && !find_or_mark(sink, RSINK_INGEST, updating))
		missing = "the ingest view is gone, or is not the one that was made for the sink";
	if (missing != NULL)
	{
		ereport(updating ? WARNING : ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("sink \"%s\" cannot be adopted", sink->name),
				 errdetail_internal("%s", rsink_sentence(missing)),
				 errhint("Remove what is left of the sink with revenue_sink.drop_sink().")));
		return;
	}
	rsink_index_deltas(sink->id);
	if (sink->encoding < 0)
		note_encoding(sink, updating);
	if (!updating && sink->problem == RSINK_ASLEEP && (missing = rsink_missing_rows(sink, false)) != NULL)
		ereport(WARNING,
				(errmsg("sink \"%s\" has been adopted, but may not be whole", sink->name),
				 errdetail_internal("%s", rsink_sentence(missing))));
	rsink_insert_arrival_rows(sink->id, sink->mode == RSINK_TOTALS);
	rsink_spi(SPI_OK_UPDATE,
			  "UPDATE revenue_sink.sink_state SET totals = (SELECT count(*) FROM revenue_sink.total_%d WHERE %s) "
			  "WHERE sink_id = %d", sink->id, rsink_noted_totals(sink->mode), sink->id);
	make_home(sink);
	rsink_pass_on_tables(rsink_sink_find(sink->name));
}

/* Note that a sink is a copy and not at home, unless that is noted already. */
static void
note_copy(int32 id, const char *sink)
{
	RsinkSpi	spi;

	if (rsink_is_copy(id) && !rsink_is_at_home(id))
		return;
	rsink_spi_begin(&spi);
	rsink_note_copy(id, sink);
	rsink_spi_end(&spi);
	rsink_sink_changed();
}

/*
 * note_copy(), a trigger of the sink catalog
 *
 * When a subscription inserts the catalog row of a sink, this trigger notes, in
 * that transaction, that the sink is a copy which may not be whole yet.
 */
Datum
revenue_sink_note_copy(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleDesc	desc;
	bool		isnull;

	/* the rows of another table aren't what is read below */
	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		RelationGetRelid(trigger->tg_relation) != rsink_catalog_relid("sink_catalog"))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("revenue_sink.note_copy() is a row trigger of the sink catalog")));
	desc = RelationGetDescr(trigger->tg_relation);
	if (IsLogicalWorker())
		note_copy(DatumGetInt32(heap_getattr(trigger->tg_trigtuple, Anum_catalog_id, desc, &isnull)),
				  TextDatumGetCString(heap_getattr(trigger->tg_trigtuple, Anum_catalog_name, desc, &isnull)));
	return PointerGetDatum(NULL);
}

/*
 * Adopt a sink that has a problem if all of its rows are here, in the current
 * transaction; the worker calls this. Returns NULL if the sink has been adopted,
 * else what is wrong with it, as a sentence without a full stop. Takes the
 * maintenance lock if nobody else has it.
 */
char *
rsink_tend_problem(RsinkSink *sink)
{
	bool		streamed = sink->problem == RSINK_COPY;
	char	   *missing;
	RsinkSpi	spi;

	if (sink->problem != RSINK_ASLEEP && !streamed)
		return rsink_sink_problem(sink);
	if (streamed && !rsink_is_synchronized(sink))
	{
		note_copy(sink->id, sink->name);
		return rsink_sink_problem(sink);
	}
	if (streamed && rsink_is_at_home(sink->id))
		return rsink_sink_problem(sink);
	if ((missing = rsink_home_missing(sink, streamed)) != NULL)
		return streamed ? rsink_sink_problem(sink) : psprintf("the sink has not arrived whole: %s", missing);
	if (!rsink_maintenance_lock(sink, false))
		return rsink_sink_problem(sink);
	rsink_spi_begin(&spi);
	make_home(sink);
	rsink_spi_end(&spi);
	ereport(LOG,
			(errmsg(streamed ? "sink \"%s\" is a whole copy, and becomes a sink of its own when its subscription is dropped" :
					"sink \"%s\" has arrived whole, and has been adopted", sink->name)));
	return NULL;
}

/*
 * adopt_sink(sink)
 *
 * Makes this database the home of a sink whose rows have come by a restore or a
 * subscription, or whose views have lost their marks, and warns of rows that the
 * sink lacks. Does nothing to a sink that is in order. Takes the maintenance lock.
 * Raises object_not_in_prerequisite_state for a copy that a subscription writes to
 * and for a sink whose events this server hashes in another way, and
 * undefined_table if a table or a view is missing.
 */
Datum
revenue_sink_adopt_sink(PG_FUNCTION_ARGS)
{
	bool		updating = creating_extension;
	RsinkSink  *sink;
	RsinkSpi	spi;

	rsink_require_argument(fcinfo, 0, "sink");
	sink = rsink_sink_lookup_owned(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	PreventCommandIfReadOnly("adopt_sink()");
	PreventCommandDuringRecovery("adopt_sink()");
	rsink_forbid_prepare("adopt_sink()");
	if (OidIsValid(sink->total))
		rsink_maintenance_lock(sink, true);
	sink = rsink_sink_find(sink->name);
	if (sink->problem == RSINK_READY)
		PG_RETURN_VOID();
	if (sink->problem != RSINK_ASLEEP && sink->problem != RSINK_BROKEN)
		rsink_raise_problem(sink);

	/*
	 * Views and indexes that adopt() makes belong to the sink. They must not
	 * become members of the extension, even when its update script calls.
	 */
	creating_extension = false;
	PG_TRY();
	{
		rsink_spi_begin(&spi);
		adopt(sink, updating);
		rsink_spi_end(&spi);
	}
	PG_FINALLY();
	{
		creating_extension = updating;
	}
	PG_END_TRY();
	PG_RETURN_VOID();
}

/*
 * sink_problem(sink) -> text
 *
 * What is wrong with the sink, for the view sink. NULL if nothing is, and for
 * roles that may neither watch the sink nor dispose of it.
 */
Datum
revenue_sink_sink_problem(PG_FUNCTION_ARGS)
{
	RsinkSink  *sink = rsink_sink_find(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	char	   *problem = NULL;

	if (rsink_may_dispose(sink) || rsink_sink_allows(sink, RSINK_MAY_WATCH))
		problem = rsink_sink_problem(sink);
	if (problem == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(problem));
}
