/*-------------------------------------------------------------------------
 *
 * windows.c
 *	  The windows that the processor keeps by itself, in mode 'totals'.
 *
 * What it knows of its windows at an offset follows from the log up to there:
 * a snapshot of its state is an offset, and restoring it is reading again. The
 * log of a test is short.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "processor.h"

#define MINUTE INT64_C(60000000)

typedef struct Window
{
	int64_t		minute;			/* where it starts */
	const char *group;
	int64_t		cents;
	bool		changed;
} Window;

/* Tables with open addressing, at least twice as large as need be. */
typedef struct Windows
{
	uint64_t	size;
	const Event **seen;
	Window	   *window;
} Windows;

static bool
is_new(Windows *w, const Event *event)
{
	uint64_t	at = hash_bytes(hash_bytes(1, event->order_id, (size_t) event->order_len),
								event->event_id, (size_t) event->event_len) % w->size;

	for (; w->seen[at] != NULL; at = (at + 1) % w->size)
		if (strcmp(w->seen[at]->order_id, event->order_id) == 0 &&
			strcmp(w->seen[at]->event_id, event->event_id) == 0)
			return false;
	w->seen[at] = event;
	return true;
}

static Window *
window_of(Windows *w, const Event *event)
{
	int64_t		minute = event->time - event->time % MINUTE;
	uint64_t	at = hash_bytes((uint64_t) minute, event->group_key, (size_t) event->group_len) % w->size;

	for (; w->window[at].group != NULL; at = (at + 1) % w->size)
		if (w->window[at].minute == minute && strcmp(w->window[at].group, event->group_key) == 0)
			return &w->window[at];
	w->window[at].minute = minute;
	w->window[at].group = event->group_key;
	return &w->window[at];
}

static void
add_shard(Windows *w, int shard, const int64_t *from, const int64_t *to)
{
	for (int p = 0; p < npartitions; p++)
		for (int64_t offset = 0; offset < to[p]; offset++)
		{
			const Event *event = input_event(p, offset);
			Window	   *window;

			if (event->time < config.oldest || !shard_has(shard, p, event) || !is_new(w, event))
				continue;
			window = window_of(w, event);
			window->cents += event->amount / (AMOUNT_UNIT / 100);
			window->changed |= offset >= from[p];
		}
}

/*
 * The windows of the owned shards that the lines from one position to the
 * other have changed, with their totals, as array literals to be freed.
 */
int
windows_changed(const Positions *from, const int64_t *to, const bool *owned,
				char **minutes, char **revenues, char **groups)
{
	Windows		w = {.size = 1};
	int			n = 0;
	char	   *m;
	char	   *r;
	char	   *g;

	for (int p = 0; p < npartitions; p++)
		w.size += 2 * (uint64_t) partition_length[p];
	w.seen = calloc(w.size, sizeof(*w.seen));
	w.window = calloc(w.size, sizeof(*w.window));
	if (w.seen == NULL || w.window == NULL)
		die("out of memory");
	for (int s = 0; s < nshards; s++)
		if (owned[s])
			add_shard(&w, s, from->next[s], to);

	m = *minutes = must_alloc(NULL, w.size * 32 + 8);
	r = *revenues = must_alloc(NULL, w.size * 32 + 8);
	g = *groups = must_alloc(NULL, w.size * 64 + 8);
	*m++ = *r++ = *g++ = '{';
	for (uint64_t i = 0; i < w.size; i++)
	{
		const Window *window = &w.window[i];
		const char *comma = n > 0 ? "," : "";
		time_t		seconds;
		struct tm	tm;

		if (!window->changed)
			continue;
		n++;
		seconds = (time_t) (window->minute / 1000000);
		gmtime_r(&seconds, &tm);
		m += sprintf(m, "%s", comma);
		m += strftime(m, 32, "%Y-%m-%d %H:%M:00+00", &tm);
		r += sprintf(r, "%s%s%lld.%02lld", comma, window->cents < 0 ? "-" : "",
					 llabs((long long) window->cents) / 100, llabs((long long) window->cents) % 100);
		g += sprintf(g, "%s\"%s\"", comma, window->group);
	}
	strcpy(m, "}");
	strcpy(r, "}");
	strcpy(g, "}");
	free(w.seen);
	free(w.window);
	return n;
}
