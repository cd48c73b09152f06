/*-------------------------------------------------------------------------
 *
 * spi_util.c
 *	  SQL on the extension's own tables, for the worker and administration.
 *
 * The statements run as the extension's owner, who alone owns the tables, or for
 * a view as its owner, and with a search_path that only finds PostgreSQL's own
 * functions.
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

#include "catalog.h"
#include "compat.h"
#include "spi_util.h"

/*
 * Connect to SPI as a role. After an error the transaction's end puts user,
 * settings and SPI right, as it does for functions of core.
 */
void
rsink_spi_begin_as(RsinkSpi *spi, Oid role)
{
	GetUserIdAndSecContext(&spi->user, &spi->security);
	SetUserIdAndSecContext(role, spi->security | SECURITY_LOCAL_USERID_CHANGE);
	spi->nest = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("standard_conforming_strings", "on", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
}

/* The same as the extension's owner. */
void
rsink_spi_begin(RsinkSpi *spi)
{
	rsink_spi_begin_as(spi, rsink_relation_owner(rsink_catalog_relid("sink_catalog")));
}

/* Disconnect, and be the user of before. */
void
rsink_spi_end(RsinkSpi *spi)
{
	SPI_finish();
	AtEOXact_GUC(true, spi->nest);
	SetUserIdAndSecContext(spi->user, spi->security);
}

/*
 * Run one statement, made as by psprintf, that must end with the SPI code
 * "expected". Returns the rows processed.
 */
uint64
rsink_spi(int expected, const char *format,...)
{
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
	code = SPI_execute(sql.data, false, 0);
	if (code != expected)
		elog(ERROR, "unexpected result %s of \"%s\"", SPI_result_code_string(code), sql.data);
	pfree(sql.data);
	return SPI_processed;
}

/* A bigint of the last result, or something else where it's NULL. */
int64
rsink_spi_int64(int row, int column, int64 otherwise)
{
	bool		isnull;
	Datum		datum = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? otherwise : DatumGetInt64(datum);
}
