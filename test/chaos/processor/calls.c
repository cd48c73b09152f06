/*-------------------------------------------------------------------------
 *
 * calls.c
 *	  What a processor calls of the sink, as C functions.
 *
 *-------------------------------------------------------------------------
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../demo/arrays.h"

#include "calls.h"
#include "session.h"

#define MAX_LINE 256			/* ids and groups of this log are short */

#define TEXTARRAYOID 1009
#define TIMESTAMPTZARRAYOID 1185
#define NUMERICARRAYOID 1231

static const char *
number_text(char *text, int64_t number)
{
	snprintf(text, 32, "%" PRId64, number);
	return text;
}

/* The restored checkpoint's number: NULL if the job starts from nothing. */
static const char *
restored_text(char *text, const Checkpoint *restored)
{
	return config.two_phase && restored->restores ? number_text(text, restored->number) : NULL;
}

/* The job's own epoch, which grows with each incarnation, or NULL. */
static const char *
epoch_text(char *text, const Checkpoint *restored)
{
	return config.own_epoch ? number_text(text, 1000 * restored->attempt) : NULL;
}

static int64_t
epoch_of(PGresult *res)
{
	int64_t		epoch = strtoll(PQgetvalue(res, 0, 0), NULL, 10);

	PQclear(res);
	return epoch;
}

int64_t
call_recover(const Checkpoint *restored)
{
	char		number[32];
	char		epoch[32];
	const char *params[] = {config.sink, config.job, restored_text(number, restored),
	epoch_text(epoch, restored)};

	return epoch_of(session_insist("CALL revenue_sink.recover($1, $2, $3, $4)", 4, params));
}

int64_t
call_open_writer(const char *writer, const Checkpoint *restored)
{
	char		number[32];
	char		epoch[32];
	const char *params[] = {config.sink, config.job, writer, restored_text(number, restored),
	epoch_text(epoch, restored)};

	return epoch_of(session_insist("CALL revenue_sink.open_writer($1, $2, $3, $4, $5)", 5, params));
}

/* With the gids of all batches so far, even those committed long ago. */
void
call_commit_checkpoint(const Checkpoint *checkpoint)
{
	char		number[32];
	char	   *gids = must_alloc(NULL, (size_t) (checkpoint->ngids + 1) * (MAX_GID + 1) + 3);
	const char *params[] = {config.sink, config.job, number_text(number, checkpoint->number),
	config.gids ? gids : NULL};
	char	   *end = gids;

	*end++ = '{';
	for (int i = 0; i < checkpoint->ngids; i++)
		end += sprintf(end, "%s%s", i > 0 ? "," : "", checkpoint->gids[i]);
	strcpy(end, "}");
	PQclear(session_insist("CALL revenue_sink.commit_checkpoint($1, $2, $3, $4)", 4, params));
	free(gids);
}

void
call_commit_prepared(const char *gid)
{
	PGresult   *res = session_insist("CALL revenue_sink.commit_prepared($1)", 1, &gid);

	if (strcmp(PQgetvalue(res, 0, 0), "committed") != 0)
		die("commit_prepared answered %s", PQgetvalue(res, 0, 0));
	PQclear(res);
}

/* Valid until the next call. */
const char *
call_outcome(const char *gid)
{
	static char outcome[32];
	PGresult   *res = session_insist("SELECT revenue_sink.outcome($1)", 1, &gid);

	snprintf(outcome, sizeof(outcome), "%s", PQgetvalue(res, 0, 0));
	PQclear(res);
	return outcome;
}

void
call_offsets(Positions *positions)
{
	for (int s = 0; s < nshards; s++)
	{
		const char *params[] = {config.sink, shard_source(s)};
		PGresult   *res = session_insist("SELECT partition, next_offset FROM revenue_sink.offsets($1, $2)",
										 2, params);

		for (int i = 0; i < PQntuples(res); i++)
		{
			int			partition = atoi(PQgetvalue(res, i, 0));

			if (shard_reads(s, partition))
				positions->next[s][partition] = strtoll(PQgetvalue(res, i, 1), NULL, 10);
		}
		PQclear(res);
	}
}

bool
call_begin_batch(const char *writer, int64_t epoch, int64_t number, bool *is_new)
{
	char		e[32];
	char		n[32];
	const char *params[] = {config.sink, config.job, writer, number_text(e, epoch), number_text(n, number)};
	PGresult   *res = session_ask("SELECT revenue_sink.begin_batch($1, $2, $3, $4, $5)", 5, params);

	if (res)
		*is_new = strcmp(PQgetvalue(res, 0, 0), "t") == 0;
	PQclear(res);
	return res != NULL;
}

static bool
apply_arrays(const Event **events, int n)
{
	static Arrays arrays;
	const char *params[NARRAYS + 1];
	int			lengths[NARRAYS + 1] = {0};
	static const Oid types[] = {TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, NUMERICARRAYOID,
	TEXTARRAYOID, 0};
	static const int formats[] = {1, 1, 1, 1, 1, 0};
	long long	count[6];
	PGresult   *res;

	arrays_reset(&arrays);
	for (int i = 0; i < n; i++)
		arrays_add(&arrays, events[i]);
	arrays_finish(&arrays);
	for (int i = 0; i < NARRAYS; i++)
	{
		params[i] = arrays.array[i].data;
		lengths[i] = (int) arrays.array[i].len;
	}
	params[NARRAYS] = config.sink;
	res = session_ask_binary("SELECT * FROM revenue_sink.apply($6, $1, $2, $3, $4, $5)", NARRAYS + 1,
							 types, params, lengths, formats);
	if (res == NULL)
		return false;
	for (int i = 0; i < 6; i++)
		count[i] = atoll(PQgetvalue(res, 0, i));
	PQclear(res);
	if (count[0] + count[1] + count[2] + count[3] + count[4] + count[5] != n)
		die("apply() doesn't account for %d events", n);
	tell("events %d %lld %lld", n, count[1], count[2]);
	return true;
}

static bool
apply_copy(const Event **events, int n)
{
	char		sql[256];
	char	   *data = must_alloc(NULL, (size_t) (n + 1) * 3 * MAX_LINE);
	char	   *end = data;
	bool		done;

	for (int i = 0; i < n; i++)
	{
		const Event *e = events[i];
		int64_t		cents = e->amount / (AMOUNT_UNIT / 100);
		time_t		seconds = (time_t) (e->time / 1000000);
		struct tm	tm;

		gmtime_r(&seconds, &tm);
		end += snprintf(end, MAX_LINE, "%s,%s,", e->order_id, e->event_id);
		end += strftime(end, MAX_LINE, "%Y-%m-%d %H:%M:%S", &tm);
		end += snprintf(end, MAX_LINE, ".%06d+00,%s%lld.%02lld,\"%s\"\n", (int) (e->time % 1000000),
						cents < 0 ? "-" : "", llabs(cents) / 100, llabs(cents) % 100,
						e->group_key);
	}
	snprintf(sql, sizeof(sql), "COPY %s FROM STDIN (FORMAT csv)", config.ingest);
	done = session_copy(sql, data, (int) (end - data), n);
	free(data);
	if (done)
		tell("events %d 0 0", n);
	return done;
}

bool
call_apply(const Event **events, int n)
{
	return config.copy ? apply_copy(events, n) : apply_arrays(events, n);
}

/* The totals of the windows that these lines of the log have changed. */
bool
call_upsert(const Positions *from, const int64_t *to, const bool *owned)
{
	char	   *minutes;
	char	   *revenues;
	char	   *groups;
	char		version[32];
	int64_t		reached = 0;
	int			n;
	PGresult   *res;

	for (int p = 0; p < npartitions; p++)
		reached += to[p];
	n = windows_changed(from, to, owned, &minutes, &revenues, &groups);
	{
		const char *params[] = {config.sink, minutes, revenues, groups,
		config.versions ? number_text(version, reached) : NULL};

		res = session_ask("SELECT revenue_sink.upsert($1, $2, $3, $4, $5)", 5, params);
	}
	free(minutes);
	free(revenues);
	free(groups);
	if (res == NULL)
		return false;
	if (atoi(PQgetvalue(res, 0, 0)) != n)
		die("upsert() took %s of %d totals", PQgetvalue(res, 0, 0), n);
	PQclear(res);
	tell("events %d 0 0", n);
	return true;
}

bool
call_store_offsets(int shard, const int64_t *next)
{
	char		partitions[128] = "{";
	char		offsets[128] = "{";
	const char *params[] = {config.sink, shard_source(shard), partitions, offsets};
	PGresult   *res;

	for (int p = 0; p < npartitions; p++)
		if (shard_reads(shard, p))
		{
			const char *comma = strlen(partitions) > 1 ? "," : "";

			sprintf(partitions + strlen(partitions), "%s%d", comma, p);
			sprintf(offsets + strlen(offsets), "%s%" PRId64, comma, next[p]);
		}
	strcat(partitions, "}");
	strcat(offsets, "}");
	res = session_ask("SELECT revenue_sink.store_offsets($1, $2, $3, $4)", 4, params);
	PQclear(res);
	return res != NULL;
}

bool
call_pre_commit(char *gid)
{
	PGresult   *res = session_ask("SELECT revenue_sink.pre_commit($1)", 1, &config.sink);

	if (res)
		snprintf(gid, MAX_GID, "%s", PQgetvalue(res, 0, 0));
	PQclear(res);
	return res != NULL;
}

bool
call_prepare(const char *gid)
{
	char		sql[MAX_GID + 64];

	/* a gid has no character that would need quoting */
	snprintf(sql, sizeof(sql), "PREPARE TRANSACTION '%s'", gid);
	return session_do(sql);
}
