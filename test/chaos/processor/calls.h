/*-------------------------------------------------------------------------
 *
 * calls.h
 *	  What a processor calls of the sink, as C functions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CHAOS_CALLS_H
#define CHAOS_CALLS_H

#include "processor.h"

/* Procedures: repeated until there is an answer. */
extern int64_t call_recover(const Checkpoint *restored);
extern int64_t call_open_writer(const char *writer, const Checkpoint *restored);
extern void call_commit_checkpoint(const Checkpoint *checkpoint);
extern void call_commit_prepared(const char *gid);
extern const char *call_outcome(const char *gid);
extern void call_offsets(Positions *positions);

/* Within a batch: false if its transaction is lost. */
extern bool call_begin_batch(const char *writer, int64_t epoch, int64_t number, bool *is_new);
extern bool call_apply(const Event **events, int n);
extern bool call_upsert(const Positions *from, const int64_t *to, const bool *owned);
extern bool call_store_offsets(int shard, const int64_t *next);
extern bool call_pre_commit(char *gid);
extern bool call_prepare(const char *gid);

#endif							/* CHAOS_CALLS_H */
