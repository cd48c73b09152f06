/*-------------------------------------------------------------------------
 *
 * update.c
 *	  What the script needs that updates the extension from an older version.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/extension.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/regproc.h"

#include "lock.h"
#include "spi_util.h"

PG_FUNCTION_INFO_V1(revenue_sink_lock_for_update);
PG_FUNCTION_INFO_V1(revenue_sink_carry_grants);
PG_FUNCTION_INFO_V1(revenue_sink_rename_constraints);

/*
 * lock_for_update(), for the script that updates the extension: all of its tables
 * and its sinks' views.
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

/* The grants that have been made on a function; n is 0 where none was ever changed. */
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
 * carry_grants(former, latter), for that script: who may execute a function may
 * execute the one that takes its place, and nobody else. What is granted here is a
 * user's, and not the script's: a dump must contain it.
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
 * rename_constraints(renamed), for that script: give the NOT NULL constraints of a
 * table, which have names from version 18 on, those of a table that is made under
 * its present name.
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
