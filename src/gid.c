/*-------------------------------------------------------------------------
 *
 * gid.c
 *	  Identifiers of prepared transactions: made once, known again for ever.
 *
 * rs:<place>:<sink>:<job>:<writer>:<epoch>:<number>:<xid>:<code>
 *
 * The transaction's id makes it unique, even where a number is begun twice. It
 * means something in the database and on the server that the place says: 16
 * hexadecimal digits, a keyed hash of the system identifier and the database's
 * OID. (In gids of version 1.0 it is that OID in decimal digits.) Where a sink has
 * moved to, a gid still tells which batch it is, and not which transaction.
 *
 * Names and the place are hashed as the bytes that they are in the sink's
 * encoding, and as numbers of a fixed size.
 *
 * The code is a keyed hash of the rest with the sink's secret key: anyone can
 * write such a text, but only pre_commit() can write one that holds, so what
 * it says of its transaction can be believed long after that has ended.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sodium.h>

#include "access/genam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_collation.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"

#include "catalog.h"
#include "compat.h"
#include "encoding.h"
#include "gid.h"

/* Longer names, and those with other characters, are hashed. */
#define MAX_PLAIN_NAME 40

static bool
is_plain(const char *name)
{
	return name[0] != '\0' && name[0] != '-' && strlen(name) <= MAX_PLAIN_NAME &&
		strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") == strlen(name);
}

/* A name as it stands in a gid; "out" has NAMEDATALEN bytes. */
void
rsink_gid_name(const RsinkSink *sink, const char *name, char *out)
{
	uint64		hash[2];
	int32		len = strlen(name);
	const char *hashed;

	if (is_plain(name))
	{
		strlcpy(out, name, NAMEDATALEN);
		return;
	}
	if ((hashed = rsink_hashed_text(sink, name, &len)) == NULL)
		hashed = name;
	crypto_shorthash_siphashx24((unsigned char *) hash, (const unsigned char *) hashed, len, sink->key);
	snprintf(out, NAMEDATALEN, "-" UINT64_FORMAT "-" UINT64_FORMAT, hash[0], hash[1]);
}

static uint64
code_of(const RsinkSink *sink, const char *text, size_t len)
{
	uint64		code;

	crypto_shorthash_siphash24((unsigned char *) &code, (const unsigned char *) text, len, sink->key);
	return code;
}

/* Where a transaction's id means what it means here; "out" has NAMEDATALEN bytes. */
static void
current_place(const RsinkSink *sink, char *out)
{
	uint64		place[2];

	place[0] = GetSystemIdentifier();
	place[1] = MyDatabaseId;
	snprintf(out, NAMEDATALEN, "%016llx",
			 (unsigned long long) code_of(sink, (char *) place, sizeof(place)));
}

/* The gid under which the current transaction, a batch, is to be prepared. */
char *
rsink_gid_make(const RsinkBatch *batch)
{
	char		job[NAMEDATALEN];
	char		writer[NAMEDATALEN];
	char		place[NAMEDATALEN];
	char	   *text;

	rsink_gid_name(batch->sink, batch->job, job);
	rsink_gid_name(batch->sink, batch->writer, writer);
	current_place(batch->sink, place);
	text = psprintf("rs:%s:%d:%s:%s:" INT64_FORMAT ":" INT64_FORMAT ":" UINT64_FORMAT,
					place, batch->sink_id, job, writer, batch->epoch, batch->number,
					U64FromFullTransactionId(GetTopFullTransactionId()));
	return psprintf("%s:%016llx", text,
					(unsigned long long) code_of(batch->sink, text, strlen(text)));
}

/*
 * Read a gid. False for any text that pre_commit() of a sink of this database
 * has not made, here or where the sink was at home before.
 */
bool
rsink_gid_parse(const char *text, RsinkGid *gid)
{
	const char *code = strrchr(text, ':');
	char		place[NAMEDATALEN];
	char		here[NAMEDATALEN];
	int			sink_id;
	unsigned long long xid;
	unsigned long long found;
	long long	epoch;
	long long	number;
	int			used = 0;

	if (code == NULL || strlen(text) >= 200 ||
		sscanf(text, "rs:%63[^:]:%d:%63[^:]:%63[^:]:%lld:%lld:%llu:%llx%n", place, &sink_id,
			   gid->job, gid->writer, &epoch, &number, &xid, &found, &used) != 8 ||
		text[used] != '\0' ||
		(gid->sink = rsink_sink_by_id(sink_id)) == NULL ||
		found != code_of(gid->sink, text, code - text))
		return false;
	current_place(gid->sink, here);
	gid->elsewhere = strcmp(place, here) != 0 &&
		strcmp(place, psprintf("%u", MyDatabaseId)) != 0;
	gid->epoch = epoch;
	gid->number = number;
	gid->xid = FullTransactionIdFromU64(xid);
	return true;
}

/*
 * Fill in the keys that find a gid's batch in the ledger, RSINK_GID_KEYS at
 * most; returns their number. All of them leave rows of that epoch that end at
 * its number or above; without the last one, of that epoch. Where a name is
 * hashed there are fewer, and the caller is to compare.
 */
int
rsink_gid_keys(const RsinkGid *gid, ScanKeyData *keys)
{
	ScanKeyInit(&keys[0], Anum_ledger_sink_id, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(gid->sink->id));
	if (!is_plain(gid->job))
		return 1;
	ScanKeyInit(&keys[1], Anum_ledger_job, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(gid->job));
	keys[1].sk_collation = C_COLLATION_OID;
	if (!is_plain(gid->writer))
		return 2;
	ScanKeyInit(&keys[2], Anum_ledger_writer, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(gid->writer));
	keys[2].sk_collation = C_COLLATION_OID;
	ScanKeyInit(&keys[3], Anum_ledger_epoch, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(gid->epoch));
	ScanKeyInit(&keys[4], Anum_ledger_last, BTGreaterEqualStrategyNumber, F_INT8GE,
				Int64GetDatum(gid->number));
	return 5;
}
