/*-------------------------------------------------------------------------
 *
 * stop_at.c
 *	  Halts its own backend at the k-th step of a statement, for the TAP tests.
 *
 * A procedure that commits in its midst passes through a known row of
 * transactions. A step is a moment of them at which what a crash leaves behind
 * may differ: right before the commit of a transaction that has written, and
 * right after each commit or prepare, before anybody hears of it. SET
 * stop_at.step = k halts the backend at the k-th step that follows, once.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "fmgr.h"
#include "utils/guc.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

static int	stop_step = 0;
static int	passed = 0;

/* The commit of the SET itself is no step. */
static void
assign_step(int newval, void *extra)
{
	passed = -1;
}

static void
pass_step(XactEvent event, void *arg)
{
	if (stop_step == 0)
		return;
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_PREPARE &&
		(event != XACT_EVENT_PRE_COMMIT || !TransactionIdIsValid(GetTopTransactionIdIfAny())))
		return;
	if (++passed == stop_step)
		raise(SIGSTOP);
}

void
_PG_init(void)
{
	DefineCustomIntVariable("stop_at.step", "The step to halt at; 0 for none.", NULL,
							&stop_step, 0, 0, 1000, PGC_SUSET, 0,
							NULL, assign_step, NULL);
	RegisterXactCallback(pass_step, NULL);
}
