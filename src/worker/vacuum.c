/*-------------------------------------------------------------------------
 *
 * vacuum.c
 *	  Vacuuming a table from which the worker has moved rows.
 *
 * Sealing deletes page rows as fast as writers insert them. Autovacuum looks at a
 * database once per minute, and in that time the table of page rows would grow to many
 * times the size that it needs. So the worker vacuums that table itself.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/vacuum.h"
#include "nodes/makefuncs.h"
#include "utils/memutils.h"

#include "core/compat.h"
#include "worker/vacuum.h"

#ifndef VACOPT_PROCESS_MAIN
#define VACOPT_PROCESS_MAIN 0
#endif

/*
 * Vacuum a table, unless somebody else has it locked. The caller is in a transaction
 * that has done nothing yet. That transaction ends here, and another one begins. Takes
 * ShareUpdateExclusiveLock without waiting, and doesn't shorten the table, for which
 * writers would have to wait.
 */
void
rsink_vacuum(Oid relid)
{
	VacuumParams params = {0};
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "revenue_sink vacuum", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	MemoryContext old_portal = PortalContext;
	List	   *relations = list_make1(makeVacuumRelation(NULL, relid, NIL));

	MemoryContextSwitchTo(old);
	params.options = VACOPT_VACUUM | VACOPT_SKIP_LOCKED | VACOPT_PROCESS_MAIN;
	params.freeze_min_age = params.freeze_table_age = -1;
	params.multixact_freeze_min_age = params.multixact_freeze_table_age = -1;
	params.log_min_duration = -1;
	params.index_cleanup = VACOPTVALUE_AUTO;
	params.truncate = VACOPTVALUE_DISABLED;
	params.nworkers = -1;
	PG_TRY();
	{
		PortalContext = context;
		rsink_vacuum_list(relations, &params, context);
	}
	PG_FINALLY();
	{
		PortalContext = old_portal;
		MemoryContextDelete(context);
	}
	PG_END_TRY();
}
