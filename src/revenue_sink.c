/*-------------------------------------------------------------------------
 *
 * revenue_sink.c
 *	  The exactly-once end of an order-event stream: settings, shared memory.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/guc.h"

#include "api/ingest.h"
#include "apply/resolution.h"
#include "core/compat.h"
#include "revenue/totals.h"
#include "seen/expire.h"
#include "seen/pool.h"
#include "sink/sink.h"
#include "sink/slot.h"
#include "twophase/prepared.h"
#include "twophase/unpreparable.h"
#include "worker/fold.h"
#include "worker/launcher.h"
#include "worker/worker.h"
#include "writer/batch.h"
#include "writer/tally.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

static shmem_request_hook_type next_shmem_request;
static shmem_startup_hook_type next_shmem_startup;

static void
shmem_request(void)
{
	if (next_shmem_request)
		next_shmem_request();
	RequestAddinShmemSpace(rsink_pool_shmem_size());
	RequestAddinShmemSpace(rsink_shared_size());
	RequestAddinShmemSpace(rsink_worker_shmem_size());
}

static void
shmem_startup(void)
{
	if (next_shmem_startup)
		next_shmem_startup();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	rsink_pool_shmem_init();
	rsink_shared_init();
	rsink_worker_shmem_init();
	LWLockRelease(AddinShmemInitLock);
}

static void
define_settings(void)
{
	DefineCustomIntVariable("revenue_sink.dedup_memory",
							"Sets the amount of shared memory for seen events.",
							"All sinks share this memory. A new event takes some 13 bytes, and later less than half of that; events without room in memory are looked up on disk.",
							&rsink_dedup_memory, 256 * 1024, 1024, INT_MAX,
							PGC_POSTMASTER, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("revenue_sink.max_sinks",
							"Sets the maximum number of sinks on this server, in all databases together.",
							NULL, &rsink_max_sinks, 64, 1, 10000,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("revenue_sink.worker_interval",
							"Sets the time between two rounds of a worker.",
							NULL, &rsink_worker_interval, 1000, 10, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("revenue_sink.writer_idle",
							"Sets the time after which a writer without a commit no longer holds back the watermark.",
							NULL, &rsink_writer_idle, 300, 1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("revenue_sink.dead_letter_retention",
							"Sets the number of days for which dead letters are kept after they were resolved.",
							NULL, &rsink_dead_letter_retention, 30, 1, 36500,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("revenue_sink.unresolved_retention",
							"Sets the number of days for which dead letters are kept that nobody resolves.",
							"-1 keeps them for ever.",
							&rsink_unresolved_retention, -1, -1, 36500,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("revenue_sink.rejected_retention",
							"Deprecated name of revenue_sink.dead_letter_retention.",
							"A positive value takes precedence over revenue_sink.dead_letter_retention.",
							&rsink_rejected_retention, -1, -1, 36500,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("revenue_sink.in_doubt_warning",
							"Sets the time after which the worker warns of a batch that is in doubt.",
							NULL, &rsink_in_doubt_warning, 300, 1, INT_MAX / 1000,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	MarkGUCPrefixReserved("revenue_sink");
}

/* Called by the postmaster, and again by each process where nothing forks. */
void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	define_settings();
	next_shmem_request = shmem_request_hook;
	shmem_request_hook = shmem_request;
	next_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;

	/*
	 * Callbacks at a transaction's end are called in the reverse order. Before a
	 * COMMIT or PREPARE first ingest.c refuses rows that no statement has flushed;
	 * totals.c may insert its rows once more; unpreparable.c refuses a PREPARE; and
	 * then batch.c, when nothing is written any more, looks at the epoch for the
	 * last time and completes the ledger with what tally.c has counted. After the
	 * end expire.c and resolution.c put right in shared memory what has, or has not,
	 * become of the transaction, launcher.c wakes the launcher, and tally.c
	 * publishes its counts; none of these depends on another.
	 */
	rsink_init_sink();
	rsink_init_tally();
	rsink_init_batch();
	rsink_init_unpreparable();
	rsink_init_totals();
	rsink_init_ingest();
	rsink_init_expire();
	rsink_init_resolution();
	rsink_init_worker();
	if (!IsBinaryUpgrade)
		rsink_launcher_register();
}
