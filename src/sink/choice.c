/*-------------------------------------------------------------------------
 *
 * choice.c
 *	  Settings of a sink whose value is one of a few words.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "sink/choice.h"

const char *const rsink_mode_names[] = {"events", "totals", NULL};
const char *const rsink_late_policy_names[] = {"reject", "apply", NULL};
const char *const rsink_bad_policy_names[] = {"error", "reject", NULL};

/*
 * Which of its words a setting has, as a value of its enum. Raises
 * invalid_parameter_value for another word, and names all.
 */
int
rsink_choice(const char *setting, const char *const *names, const char *value)
{
	StringInfoData words;

	for (int i = 0; names[i] != NULL; i++)
		if (strcmp(names[i], value) == 0)
			return i;
	initStringInfo(&words);
	for (int i = 0; names[i] != NULL; i++)
		appendStringInfo(&words, "%s'%s'", i == 0 ? "" : names[i + 1] != NULL ? ", " : " or ", names[i]);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for %s: \"%s\"", setting, value),
			 errhint("Use %s.", words.data)));
	return 0;					/* not reached */
}
