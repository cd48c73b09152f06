/*-------------------------------------------------------------------------
 *
 * arrays.h
 *	  Events as the binary arrays that revenue_sink.apply() takes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DEMO_ARRAYS_H
#define DEMO_ARRAYS_H

#include <stdbool.h>

#include "log.h"

/* order_id, event_id, event_time, amount, group_key */
#define NARRAYS 5

typedef struct Array
{
	char	   *data;
	size_t		len;
	size_t		size;
} Array;

typedef struct Arrays
{
	Array		array[NARRAYS];
	int			nevents;
	bool		grouped;		/* has any event a group key? */
} Arrays;

extern void arrays_reset(Arrays *arrays);
extern void arrays_add(Arrays *arrays, const Event *event);
extern void arrays_finish(Arrays *arrays);

#endif							/* DEMO_ARRAYS_H */
