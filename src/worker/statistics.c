/*-------------------------------------------------------------------------
 *
 * statistics.c
 *	  What the planner knows of tables whose rows come and go.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "core/compat.h"
#include "core/spi_util.h"
#include "worker/statistics.h"

/*
 * A table is analyzed if its number of rows and the planner's differ by this
 * factor,
 */
#define ANALYZE_FACTOR	10

/* and if the greater one of the two is at least this. */
#define ANALYZE_ROWS	10000

/*
 * Analyze a table that has grown or shrunk so much that nobody should plan with
 * what was known of it, unless somebody else vacuums or analyzes it. Takes
 * ShareUpdateExclusiveLock then, until the end of the transaction.
 *
 * The number of rows is that of the cumulative statistics, which are about a
 * second old. Without these, nothing is done. After a crash they begin at
 * nothing, which costs one ANALYZE.
 */
void
rsink_refresh_statistics(Oid relid)
{
	PgStat_StatTabEntry *entry = pgstat_track_counts ? pgstat_fetch_stat_tabentry(relid) : NULL;
	double		now = entry ? (double) rsink_live_tuples(entry) : 0;
	Relation	rel = try_table_open(relid, AccessShareLock);
	double		known;
	RsinkSpi	spi;

	if (rel == NULL)
		return;
	known = Max(rel->rd_rel->reltuples, 0);
	table_close(rel, AccessShareLock);
	if (!pgstat_track_counts || Max(now, known) < ANALYZE_ROWS || Max(now, known) < Min(now, known) * ANALYZE_FACTOR ||
		!ConditionalLockRelationOid(relid, ShareUpdateExclusiveLock))
		return;
	rsink_spi_begin(&spi);
	rsink_spi(SPI_OK_UTILITY, "ANALYZE revenue_sink.%s", quote_identifier(get_rel_name(relid)));
	rsink_spi_end(&spi);
}
