/*-------------------------------------------------------------------------
 *
 * session.h
 *	  The connection of a process, which may be lost at any moment.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CHAOS_SESSION_H
#define CHAOS_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "libpq-fe.h"

extern void session_begin(int lifeline);
extern int	session_backend(void);
extern void session_forget(void);

/* Both give nothing if what was asked is to be asked again. */
extern PGresult *session_ask(const char *sql, int nparams, const char *const *params);
extern bool session_do(const char *sql);
extern PGresult *session_ask_binary(const char *sql, int nparams, const Oid *types,
									const char *const *params, const int *lengths,
									const int *formats);
extern bool session_copy(const char *sql, const char *data, int len, int64_t rows);

/* Makes the connection again, after one of the above has given nothing. */
extern void session_again(void);

/* For statements that are transactions of their own: asks until answered. */
extern PGresult *session_insist(const char *sql, int nparams, const char *const *params);

#endif							/* CHAOS_SESSION_H */
