/*-------------------------------------------------------------------------
 *
 * choice.h
 *	  Settings of a sink whose value is one of a few words.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_CHOICE_H
#define RSINK_CHOICE_H

/*
 * Settings of a sink whose value is one of a few words. Each has a table of the words,
 * in the order of the enum and with NULL at the end; see rsink_choice().
 */
typedef enum RsinkMode
{
	RSINK_EVENTS,
	RSINK_TOTALS
} RsinkMode;

typedef enum RsinkLatePolicy
{
	RSINK_LATE_REJECT,			/* late events become dead letters */
	RSINK_LATE_APPLY			/* late events count, without a promise */
} RsinkLatePolicy;

typedef enum RsinkBadPolicy
{
	RSINK_BAD_ERROR,			/* a bad event fails its call */
	RSINK_BAD_REJECT			/* bad events become dead letters */
} RsinkBadPolicy;

extern const char *const rsink_mode_names[];
extern const char *const rsink_late_policy_names[];
extern const char *const rsink_bad_policy_names[];

extern int	rsink_choice(const char *setting, const char *const *names, const char *value);

#endif							/* RSINK_CHOICE_H */
