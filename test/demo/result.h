/*-------------------------------------------------------------------------
 *
 * result.h
 *	  What the sink says, shown and compared with the truth.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DEMO_RESULT_H
#define DEMO_RESULT_H

#include <stdbool.h>

#include "libpq-fe.h"

extern bool result_show(PGconn *conn, const char *sink, const char *dir);
extern const char *with_commas(long long n);

#endif							/* DEMO_RESULT_H */
