/*-------------------------------------------------------------------------
 *
 * client.h
 *	  What the clients of the benchmark and of the soak test share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include "libpq-fe.h"

extern void fail(const char *fmt,...) __attribute__((format(printf, 1, 2), noreturn));
extern PGconn *bench_connect(void);
extern void bench_exec(PGconn *conn, const char *sql);
extern char *bench_value(PGconn *conn, const char *sql);
extern double bench_number(PGconn *conn, const char *sql);
extern double now_seconds(void);

#endif							/* BENCH_CLIENT_H */
