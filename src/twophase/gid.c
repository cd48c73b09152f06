/*-------------------------------------------------------------------------
 *
 * gid.c
 *	  Identifiers of prepared transactions (gids): making them, and reading them.
 *
 * rs:<place>:<sink>:<job>:<writer>:<epoch>:<number>:<xid>:<code>
 *
 * The transaction's id makes a gid unique, even if a number is begun twice. The
 * id means something only on one server and in one of its databases, which the
 * place tells: 16 hexadecimal digits, a keyed hash of the system identifier and
 * the database's OID. (In gids of version 1.0 the place is that OID in decimal
 * digits, which a database of another server may have, too.) After a sink has moved, its older gids still tell which batch they are
 * of, but not which transaction.
 *
 * Names are hashed as their bytes in the sink's encoding, and the place as
 * integers of a fixed size.
 *
 * The code is a hash of the rest, keyed with the sink's secret key. Anyone can
 * write such a text, but only pre_commit() can write one with the right code. So
 * what a gid says of its transaction can be believed long after the transaction
 * has ended.
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

#include "apply/encoding.h"
#include "core/catalog.h"
#include "core/compat.h"
#include "sink/sink.h"
#include "twophase/gid.h"
#include "writer/batch.h"
#include "writer/ledger.h"

/*
 * Names that are longer (in bytes), or that have other characters than is_plain()
 * allows, are hashed.
 */
#define MAX_PLAIN_NAME 40

/* May a name stand in a gid as it is? */
static bool
is_plain(const char *name)
{
	return name[0] != '\0' && name[0] != '-' && strlen(name) <= MAX_PLAIN_NAME &&
		strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") == strlen(name);
}

/*
 * Write a name as it stands in a gid to "out", which has NAMEDATALEN bytes. A
 * name that isn't plain ASCII stands there as a keyed hash.
 */
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

/* The code of a text: its hash, keyed with the sink's key. */
static uint64
code_of(const RsinkSink *sink, const char *text, size_t len)
{
	uint64		code;

	crypto_shorthash_siphash24((unsigned char *) &code, (const unsigned char *) text, len, sink->key);
	return code;
}

/*
 * Write the place of the current server and database to "out", which has
 * NAMEDATALEN bytes.
 */
static void
current_place(const RsinkSink *sink, char *out)
{
	uint64		place[2];

	place[0] = GetSystemIdentifier();
	place[1] = MyDatabaseId;
	snprintf(out, NAMEDATALEN, "%016llx",
			 (unsigned long long) code_of(sink, (char *) place, sizeof(place)));
}

/*
 * The gid under which the current transaction, which is this batch, is to be
 * prepared; allocated in the current memory context.
 */
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
 * Read a gid. False for any text that pre_commit() has not made for a sink of
 * this database, here or wherever the sink was at home before.
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
	gid->of_1_0 = strcmp(place, psprintf("%u", MyDatabaseId)) == 0;
	gid->elsewhere = strcmp(place, here) != 0 && !gid->of_1_0;
	gid->epoch = epoch;
	gid->number = number;
	gid->xid = FullTransactionIdFromU64(xid);
	return true;
}

/*
 * Fill in the scan keys that find a gid's batch in the ledger; "keys" has room
 * for RSINK_LEDGER_KEYS. Returns how many are filled in. All five find the rows
 * of the gid's epoch that end at its number or above; the first four find all
 * rows of the epoch. If a name is hashed in the gid, there are fewer keys, and
 * the caller must check each row with rsink_gid_is_of().
 */
int
rsink_gid_keys(const RsinkGid *gid, ScanKeyData *keys)
{
	const char *job = is_plain(gid->job) ? gid->job : NULL;
	const char *writer = job != NULL && is_plain(gid->writer) ? gid->writer : NULL;
	int			nkeys = rsink_ledger_keys(gid->sink->id, job, writer, keys);

	return writer == NULL ? nkeys : rsink_ledger_keys_from(gid->epoch, gid->number, keys, nkeys);
}

/* Is this row of the ledger one of the writer and epoch that a gid names? */
bool
rsink_gid_is_of(const RsinkGid *gid, const Datum *values)
{
	char		name[NAMEDATALEN];

	if (DatumGetInt64(values[Anum_ledger_epoch - 1]) != gid->epoch)
		return false;
	rsink_gid_name(gid->sink, TextDatumGetCString(values[Anum_ledger_job - 1]), name);
	if (strcmp(name, gid->job) != 0)
		return false;
	rsink_gid_name(gid->sink, TextDatumGetCString(values[Anum_ledger_writer - 1]), name);
	return strcmp(name, gid->writer) == 0;
}
