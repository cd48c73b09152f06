/*-------------------------------------------------------------------------
 *
 * settings.c
 *	  Fixed values for settings on which our own SQL depends.
 *
 * A user may set nearly every setting, for a database or a role or in the
 * configuration file. No such value may stop the worker, change what the worker
 * computes, or change what our SQL means in a user's session. Settings that only
 * decide about speed, memory or logging keep the user's values.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/guc.h"

#include "core/compat.h"
#include "core/settings.h"

typedef struct Pin
{
	const char *name;
	const char *value;
} Pin;

/* Settings that decide what our SQL means, and of which kind a new table is. */
static const Pin statement_pins[] = {
	{"search_path", "pg_catalog, pg_temp"},
	{"standard_conforming_strings", "on"},
	{"transform_null_equals", "off"},
	{"DateStyle", "ISO, MDY"},
	{"IntervalStyle", "postgres"},
	{"default_table_access_method", "heap"},
	{"row_security", "on"}
};

/* Further settings that might stop the worker, which has a session of its own. */
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

/* Does this version of PostgreSQL have the setting? */
static bool
is_known(const char *name)
{
	return GetConfigOption(name, true, false) != NULL;
}

/*
 * Fix the settings of the current process, a background worker that isn't
 * connected yet, for its whole life. The source PGC_S_OVERRIDE ranks above the
 * database, the role and the configuration file, so a later change of these has no
 * effect.
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

/*
 * Fix those settings that decide what our SQL means. The caller has opened a GUC
 * nest level, and closing it restores the user's values.
 */
void
rsink_pin_statement(void)
{
	for (int i = 0; i < lengthof(statement_pins); i++)
		(void) set_config_option(statement_pins[i].name, statement_pins[i].value, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
}
