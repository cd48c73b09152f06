/*-------------------------------------------------------------------------
 *
 * update.c
 *	  Functions for the script that updates the extension from version 1.0.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/extension.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/regproc.h"
#include "utils/timestamp.h"

#include "apply/dead_letter.h"
#include "apply/event.h"
#include "core/compat.h"
#include "core/lock.h"
#include "core/spi_util.h"
#include "sink/sink.h"

PG_FUNCTION_INFO_V1(revenue_sink_lock_for_update);
PG_FUNCTION_INFO_V1(revenue_sink_carry_grants);
PG_FUNCTION_INFO_V1(revenue_sink_rename_constraints);
PG_FUNCTION_INFO_V1(revenue_sink_letter_of);

/*
 * lock_for_update(), for the update script
 *
 * Takes AccessExclusiveLock on all tables of the extension and on all views of its
 * sinks. Raises object_in_use if a prepared transaction has used one of them.
 */
Datum
revenue_sink_lock_for_update(PG_FUNCTION_ARGS)
{
	MemoryContext context = CurrentMemoryContext;
	RsinkSpi	spi;
	Oid		   *relids;
	int			n;

	rsink_spi_begin(&spi);
	n = (int) rsink_spi(SPI_OK_SELECT,
						"SELECT c.oid FROM pg_class c LEFT JOIN revenue_sink.sink_catalog s ON c.oid IN (s.ingest, s.fact) "
						"WHERE (c.relnamespace = 'revenue_sink'::regnamespace AND c.relkind = 'r') "
						"  OR (s.id IS NOT NULL AND c.relkind = 'v') ORDER BY s.id NULLS LAST, c.oid = s.fact, c.relname");
	relids = MemoryContextAlloc(context, (n + 1) * sizeof(Oid));
	for (int i = 0; i < n; i++)
	{
		bool		isnull;

		relids[i] = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
	}
	rsink_spi_end(&spi);
	rsink_lock_exclusively(relids, n, "extension revenue_sink");
	PG_RETURN_VOID();
}

/*
 * Statements that grant on the function "latter" what has been granted on the
 * function "former"; *n is how many.
 */
static char **
grants_of(Oid former, const char *latter, int *n)
{
	char	  **grants;

	*n = (int) rsink_spi(SPI_OK_SELECT,
						 "SELECT 'GRANT EXECUTE ON FUNCTION %s TO ' "
						 "  || CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END "
						 "  || CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END "
						 "FROM pg_proc p, aclexplode(p.proacl) a WHERE p.oid = %u", latter, former);
	grants = palloc((*n + 1) * sizeof(char *));
	for (int i = 0; i < *n; i++)
		grants[i] = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
	return grants;
}

/*
 * carry_grants(former, latter), for the update script
 *
 * Lets those roles execute the function "latter" that may execute the function
 * "former", whose place it takes, and nobody else. These privileges are a user's
 * and not part of the extension, so a dump must contain them: hence
 * creating_extension is off meanwhile.
 */
Datum
revenue_sink_carry_grants(PG_FUNCTION_ARGS)
{
	char	   *latter = format_procedure_qualified(PG_GETARG_OID(1));
	bool		creating = creating_extension;
	RsinkSpi	spi;
	char	  **grants;
	int			n;

	creating_extension = false;
	PG_TRY();
	{
		rsink_spi_begin(&spi);
		if (rsink_spi(SPI_OK_SELECT, "SELECT FROM pg_proc WHERE oid = %u AND proacl IS NOT NULL",
					  PG_GETARG_OID(0)) > 0)
		{
			grants = grants_of(PG_GETARG_OID(0), latter, &n);
			rsink_spi(SPI_OK_UTILITY, "REVOKE ALL ON FUNCTION %s FROM PUBLIC", latter);
			for (int i = 0; i < n; i++)
				rsink_spi(SPI_OK_UTILITY, "%s", grants[i]);
		}
		rsink_spi_end(&spi);
	}
	PG_FINALLY();
	{
		creating_extension = creating;
	}
	PG_END_TRY();
	PG_RETURN_VOID();
}

/*
 * rename_constraints(renamed), for the update script
 *
 * Renames the NOT NULL constraints of a table that has been renamed, so that they
 * are called as if the table had been created under its present name. Only
 * PostgreSQL 18 and later have such constraints in pg_constraint.
 */
Datum
revenue_sink_rename_constraints(PG_FUNCTION_ARGS)
{
	RsinkSpi	spi;
	char	  **statements;
	int			n;

	rsink_spi_begin(&spi);
	n = (int) rsink_spi(SPI_OK_SELECT,
						"SELECT format('ALTER TABLE %%s RENAME CONSTRAINT %%I TO %%I', t.oid::regclass, c.conname, "
						"  t.relname || '_' || a.attname || '_not_null') "
						"FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid "
						"  JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = c.conkey[1] "
						"WHERE t.oid = %u AND c.contype = 'n' AND c.conname <> t.relname || '_' || a.attname || '_not_null'",
						PG_GETARG_OID(0));
	statements = palloc((n + 1) * sizeof(char *));
	for (int i = 0; i < n; i++)
		statements[i] = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
	for (int i = 0; i < n; i++)
		rsink_spi(SPI_OK_UTILITY, "%s", statements[i]);
	rsink_spi_end(&spi);
	PG_RETURN_VOID();
}

/*
 * letter_of(sink, reason, order_id, event_id, event_time, amount, group_key), for the
 * update script
 *
 * The letter of a dead letter that version 1.0 has written.
 */
Datum
revenue_sink_letter_of(PG_FUNCTION_ARGS)
{
	RsinkSink  *sink = rsink_sink_find(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	RsinkEvent	event = {0};
	const char **texts[] = {&event.order_id, &event.event_id, &event.group_key};
	int32	   *lengths[] = {&event.order_len, &event.event_len, &event.group_len};
	static const int arguments[] = {2, 3, 6};
	unsigned char letter[RSINK_LETTER_BYTES];
	StringInfoData buf;

	for (int i = 0; i < lengthof(arguments); i++)
	{
		text	   *value = PG_ARGISNULL(arguments[i]) ? NULL : PG_GETARG_TEXT_PP(arguments[i]);

		*texts[i] = value ? VARDATA_ANY(value) : NULL;
		*lengths[i] = value ? VARSIZE_ANY_EXHDR(value) : 0;
	}
	event.time_isnull = PG_ARGISNULL(4);
	event.event_time = event.time_isnull ? 0 : PG_GETARG_TIMESTAMPTZ(4);
	event.amount = PG_ARGISNULL(5) ? NULL : PG_GETARG_NUMERIC(5);
	initStringInfo(&buf);
	rsink_letter(sink, &event, text_to_cstring(PG_GETARG_TEXT_PP(1)), &buf, letter);
	PG_RETURN_BYTEA_P(rsink_letter_bytea(letter, RSINK_LETTER_BYTES));
}
