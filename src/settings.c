/*-------------------------------------------------------------------------
 *
 * settings.c
 *	  Settings that decide what our own SQL means, whoever runs it.
 *
 * A database, a role or the configuration file may set nearly every setting, for
 * people. None of that may stop the worker, or change what it computes; nor what
 * SQL of ours means in somebody's session. What only decides how fast things go,
 * how much memory they take and what is logged, stays as it is.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/guc.h"

#include "compat.h"
#include "settings.h"

typedef struct Pin
{
	const char *name;
	const char *value;
} Pin;

/* What SQL of ours means, and the tables that it makes are. */
static const Pin statement_pins[] = {
	{"search_path", "pg_catalog, pg_temp"},
	{"standard_conforming_strings", "on"},
	{"transform_null_equals", "off"},
	{"DateStyle", "ISO, MDY"},
	{"IntervalStyle", "postgres"},
	{"default_table_access_method", "heap"},
	{"row_security", "on"}
};

/* What else might stop the worker, which is alone in its session. */
static const Pin session_pins[] = {
	{"TimeZone", "UTC"},
	{"role", "none"},
	{"session_replication_role", "origin"},
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_read_only", "off"},
	{"default_transaction_deferrable", "off"},
	{"statement_timeout", "0"},
	{"lock_timeout", "0"},
	{"idle_in_transaction_session_timeout", "0"},
	{"idle_session_timeout", "0"},
	{"transaction_timeout", "0"},
	{"exit_on_error", "off"},
	{"zero_damaged_pages", "off"},
	{"ignore_checksum_failure", "off"},
	{"temp_file_limit", "-1"}
};

static bool
is_known(const char *name)
{
	return GetConfigOption(name, true, false) != NULL;
}

/*
 * Make the current process, a background worker that isn't connected yet, deaf to
 * what others set. As a later change of the configuration file is of a lower
 * source, it is for good.
 */
void
rsink_pin_session(void)
{
	for (int i = 0; i < lengthof(statement_pins); i++)
		SetConfigOption(statement_pins[i].name, statement_pins[i].value, PGC_SUSET, PGC_S_OVERRIDE);
	for (int i = 0; i < lengthof(session_pins); i++)
		if (is_known(session_pins[i].name))
			SetConfigOption(session_pins[i].name, session_pins[i].value, PGC_SUSET, PGC_S_OVERRIDE);
}

/* The same for the statements up to the end of the caller's nest level of settings. */
void
rsink_pin_statement(void)
{
	for (int i = 0; i < lengthof(statement_pins); i++)
		(void) set_config_option(statement_pins[i].name, statement_pins[i].value, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
}
