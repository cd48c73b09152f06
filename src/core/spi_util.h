/*-------------------------------------------------------------------------
 *
 * spi_util.h
 *	  SQL on the extension's own tables, for the worker and for administration.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_SPI_UTIL_H
#define RSINK_SPI_UTIL_H

#include "executor/spi.h"

/* What rsink_spi_begin() changed and rsink_spi_end() puts back. */
typedef struct RsinkSpi
{
	Oid			user;
	int			security;
	int			nest;
} RsinkSpi;

extern void rsink_spi_begin(RsinkSpi *spi);
extern void rsink_spi_begin_as(RsinkSpi *spi, Oid role);
extern void rsink_spi_end(RsinkSpi *spi);
extern uint64 rsink_spi(int expected, const char *format,...) pg_attribute_printf(2, 3);
extern int64 rsink_spi_int64(int row, int column, int64 otherwise);

#endif							/* RSINK_SPI_UTIL_H */
