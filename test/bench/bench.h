/*-------------------------------------------------------------------------
 *
 * bench.h
 *	  What the groups of the benchmark share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdint.h>

#include "ways.h"

#define BATCH 10000

extern int64_t nevents;			/* EVENTS */
extern int	round_number;

extern void sample(const char *name, double value);
extern void measure(PGconn *conn, const Way *way, const char *name,
					unsigned set, int64_t first, int64_t n, int size);
extern void measure_replay(PGconn *conn, const Way *way, const char *name,
						   unsigned set, int64_t first, int64_t n);
extern PGconn *open_way(const Way *way, bool create);
extern void close_way(PGconn *conn, const Way *way);

extern void group_two_phase(void);
extern void group_recover(void);
extern void group_seed_read(void);
extern void group_read(void);
extern void group_seed_deep(void);
extern void group_few(void);
extern void group_deep(void);

#endif							/* BENCH_H */
