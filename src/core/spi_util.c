/*-------------------------------------------------------------------------
 *
 * spi_util.c
 *	  SQL on the extension's own tables, for the worker and for administration.
 *
 * The statements run as the extension's owner, who owns the tables, or as the
 * owner of a view that they make, mark or drop. The settings of settings.c are in
 * force, among them a search_path that finds only PostgreSQL's own functions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "core/catalog.h"
#include "core/compat.h"
#include "core/settings.h"
#include "core/spi_util.h"

/*
 * Connect to SPI and become a role, with the settings of settings.c. After an error
 * the end of the transaction restores user, settings and SPI.
 */
void
rsink_spi_begin_as(RsinkSpi *spi, Oid role)
{
	GetUserIdAndSecContext(&spi->user, &spi->security);
	SetUserIdAndSecContext(role, spi->security | SECURITY_LOCAL_USERID_CHANGE);
	spi->nest = NewGUCNestLevel();
	rsink_pin_statement();
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
}

/* Connect to SPI and become the extension's owner; see rsink_spi_begin_as(). */
void
rsink_spi_begin(RsinkSpi *spi)
{
	rsink_spi_begin_as(spi, rsink_relation_owner(rsink_catalog_relid("sink_catalog")));
}

/* Disconnect from SPI; restore the user and the settings from before. */
void
rsink_spi_end(RsinkSpi *spi)
{
	SPI_finish();
	AtEOXact_GUC(true, spi->nest);
	SetUserIdAndSecContext(spi->user, spi->security);
}

/*
 * Context for the errors of our statements. A user's event trigger runs inside our
 * statements, with our search_path, and then may not find its tables; the hint
 * explains that.
 */
static void
spi_context(void *arg)
{
	int			code = geterrcode();

	/* replace the detail of a constraint violation: its row may hold a hash key */
	if (ERRCODE_TO_CATEGORY(code) == ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION)
		errdetail("The row is not shown.");
	errcontext("statement of revenue_sink, with search_path = pg_catalog, pg_temp");
	if (code == ERRCODE_UNDEFINED_TABLE || code == ERRCODE_UNDEFINED_FUNCTION ||
		code == ERRCODE_UNDEFINED_OBJECT || code == ERRCODE_UNDEFINED_SCHEMA)
		errhint("If an event trigger has failed, qualify the names in its function, or give the function a search_path of its own with ALTER FUNCTION .. SET search_path.");
}

/*
 * Run one statement, made as by psprintf(). Raises an internal error unless it
 * ends with the SPI code "expected". Returns the number of rows processed; the
 * result is in SPI_tuptable.
 */
uint64
rsink_spi(int expected, const char *format,...)
{
	ErrorContextCallback callback;
	StringInfoData sql;
	int			code;

	initStringInfo(&sql);
	for (;;)
	{
		va_list		args;
		int			needed;

		va_start(args, format);
		needed = appendStringInfoVA(&sql, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&sql, needed);
	}
	callback.callback = spi_context;
	callback.arg = NULL;
	callback.previous = error_context_stack;
	if (expected == SPI_OK_UTILITY || expected == SPI_OK_UPDATE || expected == SPI_OK_UPDATE_RETURNING ||
		expected == SPI_OK_INSERT)
		error_context_stack = &callback;
	code = SPI_execute(sql.data, false, 0);
	error_context_stack = callback.previous;
	if (code != expected)
		elog(ERROR, "unexpected result %s of \"%s\"", SPI_result_code_string(code), sql.data);
	pfree(sql.data);
	return SPI_processed;
}

/*
 * A bigint or timestamptz of the last result, or "otherwise" if it is NULL. Rows
 * count from 0, columns from 1.
 */
int64
rsink_spi_int64(int row, int column, int64 otherwise)
{
	bool		isnull;
	Datum		datum;

	if (row >= SPI_tuptable->numvals)
		elog(ERROR, "a statement has returned no row %d", row);
	datum = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);
	return isnull ? otherwise : DatumGetInt64(datum);
}
