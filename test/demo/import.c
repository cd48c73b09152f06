/*-------------------------------------------------------------------------
 *
 * import.c
 *	  Order events from a CSV file of the user's own.
 *
 * The columns are order_id, event_id, event_time, amount and, if there is
 * one, group_key: in this order, or in any, with others between, if the first
 * line names them. The order of a partition's events is that of the file, and
 * an order's events share a partition, so that the first of two events with
 * the same ids is the same one for the sink and for the truth.
 *
 * Every bad value is told with its line and column, the first few of them,
 * before anything is streamed.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "log.h"

#define NCOLUMNS 5
#define NREQUIRED 4
#define MAX_FIELDS 64
#define MAX_ERRORS 10
#define MAX_FUTURE_SECONDS 300	/* the default of create_sink() */
#define SHOWN_LEN 60			/* of a bad value */

typedef enum Column
{
	ORDER_ID, EVENT_ID, EVENT_TIME, AMOUNT, GROUP_KEY
} Column;

static const char *const column_name[NCOLUMNS] =
{"order_id", "event_id", "event_time", "amount", "group_key"};

typedef struct Field
{
	char	   *text;
	int			len;
} Field;

typedef struct Reader
{
	const char *path;
	char	   *at;
	char	   *end;
	int			line;			/* of the row just read */
	int			next_line;
	Field		field[MAX_FIELDS];
	int			nfields;
	int			place[NCOLUMNS];	/* field of each column, -1 if none */
	int64_t		nerrors;
} Reader;

/* A bad row; "column" may be NULL. */
static void __attribute__((format(printf, 4, 5)))
complain(Reader *r, const char *column, const Field *value, const char *fmt,...)
{
	va_list		ap;

	if (r->nerrors++ >= MAX_ERRORS)
		return;
	fprintf(stderr, "%s line %d", r->path, r->line);
	if (column)
		fprintf(stderr, ", column %s", column);
	fprintf(stderr, ": ");
	if (value)
		fprintf(stderr, "\"%.*s%s\" ", value->len < SHOWN_LEN ? value->len : SHOWN_LEN, value->text,
				value->len < SHOWN_LEN ? "" : "...");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

static void
read_whole(Reader *r)
{
	FILE	   *file = fopen(r->path, "rb");
	char	   *data = NULL;
	size_t		len = 0;
	size_t		size = 0;

	if (file == NULL)
		die("could not open \"%s\": %s", r->path, strerror(errno));
	do
	{
		if (size - len < 1 << 20)
			data = must_alloc(data, size = 2 * size + (2 << 20));
		len += fread(data + len, 1, size - len, file);
	} while (!feof(file) && !ferror(file));
	if (ferror(file))
		die("could not read \"%s\": %s", r->path, strerror(errno));
	fclose(file);

	r->at = data;
	r->end = data + len;
	if (len >= 3 && memcmp(data, "\xEF\xBB\xBF", 3) == 0)
		r->at += 3;				/* the mark that some spreadsheets put first */
}

/*
 * Take one field, unquoting it in place; returns false where it is quoted
 * badly. Leaves the position at the comma or line end that follows.
 */
static bool
read_field(Reader *r, Field *field)
{
	char	   *out = r->at;

	field->text = out;
	if (r->at < r->end && *r->at == '"')
	{
		r->at++;
		for (;;)
		{
			if (r->at >= r->end)
				return false;
			if (*r->at == '"' && !(r->at + 1 < r->end && *++r->at == '"'))
				break;
			if (*r->at == '\n')
				r->next_line++;
			*out++ = *r->at++;
		}
		if (r->at + 1 == r->end && *r->at == '"')
			r->at++;			/* the file's last character */
		field->len = (int) (out - field->text);
		return r->at == r->end || *r->at == ',' || *r->at == '\n' || *r->at == '\r';
	}
	while (r->at < r->end && *r->at != ',' && *r->at != '\n' && *r->at != '\r')
		r->at++;
	field->len = (int) (r->at - field->text);
	return true;
}

/* Take one row that isn't empty; false at the end of the file. */
static bool
read_row(Reader *r)
{
	for (;;)
	{
		bool		good = true;

		if (r->at >= r->end)
			return false;
		r->line = r->next_line;
		r->nfields = 0;
		for (;;)
		{
			Field		field;

			good = read_field(r, &field);
			if (r->nfields < MAX_FIELDS)
				r->field[r->nfields++] = field;
			if (!good || r->at >= r->end || *r->at != ',')
				break;
			r->at++;
		}
		if (!good)
			complain(r, NULL, NULL, "field %d has a quote that isn't closed, or text after it", r->nfields);

		/* On to the next line, from wherever this one went wrong. */
		while (r->at < r->end && *r->at != '\n')
			r->at++;
		if (r->at < r->end)
			r->at++;
		r->next_line++;
		if (good && (r->nfields > 1 || r->field[0].len > 0))
			return true;
	}
}

static bool
field_is(const Field *field, const char *text)
{
	return field->len == (int) strlen(text) && memcmp(field->text, text, (size_t) field->len) == 0;
}

/* Does the row name columns? If so, remember where they are. */
static bool
read_header(Reader *r)
{
	bool		named = false;

	for (int c = 0; c < NCOLUMNS; c++)
	{
		r->place[c] = -1;
		for (int f = 0; f < r->nfields; f++)
			if (field_is(&r->field[f], column_name[c]))
			{
				r->place[c] = f;
				named = true;
			}
	}
	for (int c = 0; c < NCOLUMNS; c++)
	{
		if (!named)
			r->place[c] = c;
		else if (c < NREQUIRED && r->place[c] < 0)
			die("%s line %d: no column %s; the columns are order_id,event_id,event_time,amount[,group_key]",
				r->path, r->line, column_name[c]);
	}
	return named;
}

/* Exactly n digits as a number, -1 if they aren't. */
static int
take_digits(const char **p, const char *end, int n)
{
	int			value = 0;

	if (end - *p < n)
		return -1;
	for (; n > 0; n--, (*p)++)
	{
		if (**p < '0' || **p > '9')
			return -1;
		value = value * 10 + **p - '0';
	}
	return value;
}

static bool
take(const char **p, const char *end, char wanted)
{
	if (*p == end || **p != wanted)
		return false;
	(*p)++;
	return true;
}

/* Microseconds of a fraction of a second, which may have any length. */
static bool
take_fraction(const char **p, const char *end, int64_t *micros)
{
	int64_t		unit = 100000;

	if (!take(p, end, '.'))
		return true;
	if (*p == end || **p < '0' || **p > '9')
		return false;
	for (; *p < end && **p >= '0' && **p <= '9'; (*p)++, unit /= 10)
		*micros += unit * (**p - '0');
	return true;
}

/* An offset from UTC, in seconds: Z, +HH, +HHMM or +HH:MM. */
static bool
take_zone(const char **p, const char *end, int64_t *offset)
{
	int			sign;
	int			hours;
	int			minutes = 0;

	*offset = 0;
	if (*p == end || take(p, end, 'Z'))
		return true;
	sign = **p == '-' ? -1 : 1;
	if (!take(p, end, '+') && !take(p, end, '-'))
		return false;
	if ((hours = take_digits(p, end, 2)) < 0)
		return false;
	if (*p < end)
	{
		take(p, end, ':');
		minutes = take_digits(p, end, 2);
	}
	*offset = (int64_t) sign * (hours * 3600 + minutes * 60);
	return minutes >= 0 && minutes < 60 && hours < 16;
}

/* "2026-03-01 10:01:59.25+01", UTC where it says nothing else. */
static bool
parse_time(const Field *field, int64_t *time)
{
	static const int month_days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	const char *p = field->text;
	const char *end = p + field->len;
	struct tm	tm = {0};
	int64_t		micros = 0;
	int64_t		offset;
	int			year;
	bool		leap;

	if ((year = take_digits(&p, end, 4)) < 1 || !take(&p, end, '-') ||
		(tm.tm_mon = take_digits(&p, end, 2) - 1) < 0 || tm.tm_mon > 11 || !take(&p, end, '-') ||
		(tm.tm_mday = take_digits(&p, end, 2)) < 1 ||
		(!take(&p, end, ' ') && !take(&p, end, 'T')) ||
		(tm.tm_hour = take_digits(&p, end, 2)) < 0 || tm.tm_hour > 23 || !take(&p, end, ':') ||
		(tm.tm_min = take_digits(&p, end, 2)) < 0 || tm.tm_min > 59)
		return false;
	if (take(&p, end, ':') &&
		((tm.tm_sec = take_digits(&p, end, 2)) < 0 || tm.tm_sec > 59 || !take_fraction(&p, end, &micros)))
		return false;
	take(&p, end, ' ');
	if (!take_zone(&p, end, &offset) || p != end)
		return false;

	leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
	if (tm.tm_mday > month_days[tm.tm_mon] + (tm.tm_mon == 1 && leap))
		return false;
	tm.tm_year = year - 1900;
	*time = ((int64_t) timegm(&tm) - offset) * 1000000 + micros;
	return true;
}

/* A plain decimal number; NULL, or what is wrong with it. */
static const char *
parse_amount(const Field *field, int64_t *amount)
{
	const char *p = field->text;
	const char *end = p + field->len;
	bool		negative = p < end && *p == '-';
	int64_t		limit = INT64_MAX / AMOUNT_UNIT - 1;
	int64_t		whole = 0;
	int64_t		fraction = 0;
	int64_t		unit = AMOUNT_UNIT;
	int			ndigits = 0;

	if (p < end && (*p == '-' || *p == '+'))
		p++;
	for (; p < end && *p >= '0' && *p <= '9'; p++, ndigits++)
		if ((whole = whole * 10 + *p - '0') > limit)
			return "is larger than this demo can add up";
	if (take(&p, end, '.'))
		for (; p < end && *p >= '0' && *p <= '9'; p++, ndigits++)
		{
			if (unit == 1 && *p != '0')
				return "has more than 8 decimals, which this demo can't add up";
			unit = unit > 1 ? unit / 10 : 1;
			fraction += unit * (*p - '0');
		}
	if (p != end || ndigits == 0)
		return "is not a decimal number such as 12.50";
	*amount = whole * AMOUNT_UNIT + fraction;
	if (negative)
		*amount = -*amount;
	return NULL;
}

/* UTF-8 without zero bytes, which is what a text in the database can hold. */
static bool
valid_text(const Field *field)
{
	const unsigned char *p = (const unsigned char *) field->text;
	const unsigned char *end = p + field->len;

	while (p < end)
	{
		int			more = *p < 0x80 ? 0 : *p >= 0xF0 ? 3 : *p >= 0xE0 ? 2 : 1;
		unsigned	low = *p == 0xE0 ? 0xA0 : *p == 0xF0 ? 0x90 : 0x80;
		unsigned	high = *p == 0xED ? 0x9F : *p == 0xF4 ? 0x8F : 0xBF;

		if (*p == 0 || (*p >= 0x80 && *p < 0xC2) || *p > 0xF4 || end - p <= more)
			return false;
		for (p++; more > 0; more--, p++, low = 0x80, high = 0xBF)
			if (*p < low || *p > high)
				return false;
	}
	return true;
}

/* Check one of the two ids, or the group key, which may be empty. */
static void
take_text(Reader *r, Column column, const Field *field, const char **text, int *len)
{
	if (field->len == 0 && column != GROUP_KEY)
		complain(r, column_name[column], NULL, "empty");
	else if (field->len > MAX_ID_LEN)
		complain(r, column_name[column], field, "is longer than %d bytes", MAX_ID_LEN);
	else if (!valid_text(field))
		complain(r, column_name[column], NULL, "not valid UTF-8");
	*text = field->text;
	*len = field->len;
}

static void
take_event(Reader *r, int64_t now, Event *event)
{
	static const Field nothing = {(char *) "", 0};
	const Field *field[NCOLUMNS];
	const char *problem;

	for (int c = 0; c < NCOLUMNS; c++)
	{
		bool		given = r->place[c] >= 0 && r->place[c] < r->nfields;

		field[c] = given ? &r->field[r->place[c]] : &nothing;
		if (!given && c < NREQUIRED)
		{
			complain(r, column_name[c], NULL, "missing, the line has %d field%s", r->nfields,
					 r->nfields == 1 ? "" : "s");
			return;
		}
	}

	take_text(r, ORDER_ID, field[ORDER_ID], &event->order_id, &event->order_len);
	take_text(r, EVENT_ID, field[EVENT_ID], &event->event_id, &event->event_len);
	take_text(r, GROUP_KEY, field[GROUP_KEY], &event->group_key, &event->group_len);
	if (!parse_time(field[EVENT_TIME], &event->time))
		complain(r, "event_time", field[EVENT_TIME],
				 "is not a time such as 2026-03-01 10:01:59+00 (without a zone: UTC)");
	else if (event->time > now + MAX_FUTURE_SECONDS * INT64_C(1000000))
		complain(r, "event_time", field[EVENT_TIME], "is in the future, and the sink would refuse it");
	if ((problem = parse_amount(field[AMOUNT], &event->amount)) != NULL)
		complain(r, "amount", field[AMOUNT], "%s", problem);
}

void
import_csv(const char *dir, const char *path)
{
	Reader		r = {.path = path, .next_line = 1};
	int64_t		now = (int64_t) time(NULL) * 1000000;
	int64_t		first = INT64_MAX;
	int64_t		last = INT64_MIN;
	int64_t		nevents = 0;
	LogWriter  *log;
	bool		more;

	read_whole(&r);
	log = log_create(dir);
	more = read_row(&r);
	if (more && read_header(&r))
		more = read_row(&r);
	for (; more; more = read_row(&r))
	{
		Event		event = {0};

		take_event(&r, now, &event);
		if (r.nerrors > 0)
			continue;
		log_append(log, log_partition_of(event.order_id, event.order_len), &event);
		if (event.time < first)
			first = event.time;
		if (event.time > last)
			last = event.time;
		nevents++;
	}
	log_close(log);

	if (r.nerrors > MAX_ERRORS)
		fprintf(stderr, "and %" PRId64 " more\n", r.nerrors - MAX_ERRORS);
	if (r.nerrors > 0)
		die("nothing was streamed; %" PRId64 " bad value%s in \"%s\"", r.nerrors,
			r.nerrors == 1 ? "" : "s", path);
	if (nevents == 0)
		die("\"%s\" has no events", path);
	printf("%" PRId64 " %" PRId64 "\n", nevents, (last - first) / 1000000 + 60);
}
