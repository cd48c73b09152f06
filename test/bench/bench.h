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

extern int64_t nevents;			/* EVENTS */
extern int	round_number;

extern void sample(const char *name, double value);

extern void group_two_phase(void);
extern void group_recover(void);
extern void group_seed_read(void);
extern void group_read(void);

#endif							/* BENCH_H */
