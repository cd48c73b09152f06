/*-------------------------------------------------------------------------
 *
 * winner.h
 *	  Which version of a total wins, in mode 'totals'.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_WINNER_H
#define RSINK_WINNER_H

#include "utils/numeric.h"

/* A version of the total of a bucket and group, as it lies in a table. */
typedef struct RsinkVersion
{
	Numeric		revenue;		/* a null pointer: there is no such version */
	bool		version_isnull;
	int64		version;		/* 0 if it is NULL */
	int64		epoch;
	int64		number;
	int64		sequence;
} RsinkVersion;

/* What can still win, of the versions of one bucket and group; begins as zeros. */
typedef struct RsinkWinner
{
	RsinkVersion versioned;		/* the best one that has a version number */
	RsinkVersion unversioned;	/* the best one that has none */
} RsinkWinner;

extern void rsink_winner_consider(RsinkWinner *winner, const RsinkVersion *version);
extern const RsinkVersion *rsink_winner(const RsinkWinner *winner);

#endif							/* RSINK_WINNER_H */
