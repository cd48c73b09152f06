# The update from 1.0 to 1.1.
#
# The library of 1.1 leaves tables of 1.0 alone, except for the second phase of
# commits, for which an update has to wait; so a sink of 1.0 is made here by SQL,
# with rows of a sink of 1.1 that has the same key. After the update the sink must
# be like a new sink of 1.1, with nothing lost or counted twice.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

# No worker looks at the sinks while the rows are made; later the worker looks all
# the time.
my $node = new_node('update', conf => q(
revenue_sink.worker_interval = '1h'
autovacuum = off
));
my $dir = PostgreSQL::Test::Utils::tempdir();

$node->safe_psql('postgres', 'CREATE ROLE seller; CREATE ROLE reader');
$node->safe_psql('postgres', "CREATE DATABASE $_") foreach qw(new old);

# ----------------------------------------------------------------------
# Gids as 1.0 wrote them

sub plus
{
	my ($x, $y) = @_;
	use integer;

	return $x + $y;
}

sub rotate
{
	my ($x, $bits) = @_;

	return ($x << $bits) | ($x >> (64 - $bits));
}

# SipHash-2-4
sub siphash
{
	my ($key, $text) = @_;
	my ($k0, $k1) = unpack('Q<2', $key);
	my @v = unpack('Q>4', 'somepseudorandomlygeneratedbytes');
	my $round = sub {
		$v[0] = plus($v[0], $v[1]); $v[1] = rotate($v[1], 13) ^ $v[0]; $v[0] = rotate($v[0], 32);
		$v[2] = plus($v[2], $v[3]); $v[3] = rotate($v[3], 16) ^ $v[2];
		$v[0] = plus($v[0], $v[3]); $v[3] = rotate($v[3], 21) ^ $v[0];
		$v[2] = plus($v[2], $v[1]); $v[1] = rotate($v[1], 17) ^ $v[2]; $v[2] = rotate($v[2], 32);
	};
	my $tail = length($text) % 8;

	$v[$_] ^= $_ % 2 ? $k1 : $k0 foreach 0 .. 3;
	foreach my $word (unpack('Q<*', $text . "\0" x (7 - $tail) . chr(length($text) & 255)))
	{
		$v[3] ^= $word;
		$round->() foreach 1 .. 2;
		$v[0] ^= $word;
	}
	$v[2] ^= 0xff;
	$round->() foreach 1 .. 4;
	return $v[0] ^ $v[1] ^ $v[2] ^ $v[3];
}

# A test value of the hash's authors
is(sprintf('%016x', siphash(join('', map { chr } 0 .. 15), join('', map { chr } 0 .. 14))), 'a129ca6149be45e5',
	'the hash has the value that its authors give');

# ----------------------------------------------------------------------
# The sinks of 1.1, with everything that a sink of 1.0 could have

$node->safe_psql($_, q(
SET client_min_messages = warning;
CREATE SCHEMA shop AUTHORIZATION seller)) foreach qw(new old);
$node->safe_psql('new', q(
SET client_min_messages = warning;
CREATE EXTENSION revenue_sink;
SET ROLE seller;
SELECT revenue_sink.create_sink('s', 'shop.revenue', 'shop.events');
SELECT revenue_sink.create_sink('t', 'shop.total', 'shop.total_in', mode => 'totals');
));

sub apply_of
{
	my ($first, $last, $how) = @_;

	return "SELECT a.* FROM (SELECT array_agg('order-' || i / 3), array_agg('event-' || i), "
	  . "array_agg(timestamptz '2024-03-01 10:00+00' + i * interval '2 s'), array_agg(i + 0.25), array_agg('shop-' || i % 3) "
	  . "FROM generate_series($first, $last) i) AS one (o, e, t, a, g), revenue_sink.apply('s', o, e, t, a, g) a";
}

sub batch_of
{
	my ($number, $first, $last) = @_;

	return "BEGIN; SELECT revenue_sink.begin_batch('s', 'job', 'writer', 1, $number); " . apply_of($first, $last)
	  . "; SELECT revenue_sink.store_offsets('s', 'orders', '{0}', '{$last}')";
}

$node->safe_psql('new', q(
SET ROLE seller;
) . apply_of(1, 300) . q(;
SELECT revenue_sink.merge('s');
) . apply_of(301, 340) . q(;
CALL revenue_sink.recover('s', 'job', NULL, 1);
) . batch_of(7, 341, 350) . q(;
COMMIT;
SELECT revenue_sink.apply('s', 'order-0', 'event-1', '2024-03-01 10:00:02+00', 99, 'shop-1');
SELECT revenue_sink.upsert('t', '{2024-03-01 10:01+00,2024-03-01 10:02+00}', '{65,66}', NULL, 3);
SELECT revenue_sink.merge('t');
SELECT revenue_sink.upsert('t', '{2024-03-01 10:02+00,2024-03-01 10:03+00}', '{67,68}', NULL, 4);
BEGIN;
SELECT revenue_sink.apply('s', 'held', 'held', '2024-03-01 10:09+00', 7, 'held');
PREPARE TRANSACTION 'held';
SELECT revenue_sink.apply('s', 'held', 'held', '2024-03-01 10:09+00', 7, 'held');
));

# ----------------------------------------------------------------------
# The same sinks in 1.0: relations as its create_sink() made them

sub relations_of_1_0
{
	my ($id, $totals, $fact, $ingest, $sink) = @_;
	my $columns = 'minute timestamptz NOT NULL, group_key text COLLATE "C" NOT NULL, revenue numeric NOT NULL, '
	  . ($totals ? 'version bigint, epoch bigint NOT NULL, number bigint NOT NULL, sequence bigint NOT NULL' : 'events bigint NOT NULL');
	my $fact_sql = $totals ? qq(
SELECT DISTINCT ON (minute, group_key) minute, group_key, revenue, NULL::bigint AS events FROM
	(SELECT DISTINCT ON (minute, group_key, version IS NULL) * FROM
		(SELECT *, max(version) OVER (PARTITION BY minute, group_key) AS highest FROM
			(SELECT * FROM revenue_sink.total_$id UNION ALL SELECT * FROM revenue_sink.delta_$id) AS every) AS ranked
		WHERE version IS NULL OR version = highest ORDER BY minute, group_key,
		version IS NULL, epoch DESC, number DESC, sequence DESC) AS best
ORDER BY minute, group_key, sequence DESC) : qq(
SELECT minute, group_key, sum(revenue) AS revenue, sum(events)::bigint AS events
FROM (SELECT minute, group_key, revenue, events FROM revenue_sink.total_$id UNION ALL
	SELECT minute, group_key, revenue, events FROM revenue_sink.delta_$id) AS every
GROUP BY minute, group_key);
	my $ingest_sql = $totals ? 'SELECT newest AS minute, NULL::text AS group_key, NULL::numeric AS revenue, NULL::bigint AS version'
	  : 'SELECT NULL::text AS order_id, NULL::text AS event_id, newest AS event_time, NULL::numeric AS amount, NULL::text AS group_key';

	return qq(
CREATE TABLE revenue_sink.seen_$id (oldest timestamptz NOT NULL, newest timestamptz NOT NULL,
	events integer NOT NULL, fingerprints bytea NOT NULL)
	WITH (fillfactor = 100, autovacuum_vacuum_insert_threshold = -1);
ALTER TABLE revenue_sink.seen_$id ALTER COLUMN fingerprints SET STORAGE PLAIN;
CREATE INDEX ON revenue_sink.seen_$id (oldest);
CREATE INDEX ON revenue_sink.seen_$id (newest);
CREATE TABLE revenue_sink.spill_$id (hi bigint NOT NULL, lo bigint NOT NULL,
	payload integer NOT NULL, event_time timestamptz NOT NULL);
CREATE INDEX ON revenue_sink.spill_$id (hi, lo);
CREATE INDEX ON revenue_sink.spill_$id USING brin (event_time);
CREATE TABLE revenue_sink.delta_$id ($columns);
CREATE TABLE revenue_sink.total_$id ($columns, PRIMARY KEY (minute, group_key));
CREATE INDEX ON revenue_sink.delta_$id USING brin (minute, group_key) WITH (pages_per_range = 8, autosummarize = on);
ALTER TABLE revenue_sink.delta_$id SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
ALTER TABLE revenue_sink.delta_$id REPLICA IDENTITY FULL;
ALTER TABLE revenue_sink.spill_$id REPLICA IDENTITY FULL;
ALTER TABLE revenue_sink.seen_$id REPLICA IDENTITY FULL;
GRANT SELECT ON revenue_sink.delta_$id, revenue_sink.total_$id TO seller;
GRANT SELECT ON revenue_sink.seen_$id TO seller;
SET ROLE seller;
CREATE VIEW $fact AS $fact_sql;
CREATE VIEW $ingest AS $ingest_sql FROM revenue_sink.seen_$id LIMIT 0;
COMMENT ON VIEW $fact IS 'revenue of sink $sink';
COMMENT ON VIEW $ingest IS 'INSERT and COPY into it write to sink $sink';
CREATE TRIGGER revenue_sink_row INSTEAD OF INSERT ON $ingest
FOR EACH ROW EXECUTE FUNCTION revenue_sink.ingest();
CREATE TRIGGER revenue_sink_statement AFTER INSERT ON $ingest
FOR EACH STATEMENT EXECUTE FUNCTION revenue_sink.ingest();
RESET ROLE;
);
}

# Names that were different in 1.0
my %new_name = (batch => 'ledger', rejected => 'dead_letter_event', digest => 'letter', rejected_at => 'arrived_at');

# Copy the rows of a table of the new database, with the columns that the old one
# has.
sub copy_rows
{
	my ($table, $where) = @_;
	my $columns = $node->safe_psql('old', qq(
SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
WHERE attrelid = 'revenue_sink.$table'::regclass AND attnum > 0 AND NOT attisdropped));
	my $new_columns = $columns =~ s/(\w+)/$new_name{$1} \/\/ $1/ger;
	my $new_table = $new_name{$table} // $table;
	my $rows = $node->safe_psql('new', "COPY (SELECT $new_columns FROM revenue_sink.$new_table WHERE $where) TO stdout");

	return "COPY revenue_sink.$table ($columns) FROM stdin;\n$rows" . ($rows eq '' ? '' : "\n") . "\\.\n";
}

my @shared = qw(deferred_event rejected epoch batch committed_offset decision);

# Copy all tables of a sink, without the rows that 1.0 didn't have.
sub copy_sink
{
	my ($id) = @_;

	return join('', map { copy_rows($_, "sink_id = $id") } @shared)
	  . copy_rows('sink_state', "sink_id = $id AND (watermark, horizon, expired) IS DISTINCT FROM (NULL, NULL, 0)")
	  . copy_rows("seen_$id", "newest > '-infinity'") . copy_rows("delta_$id", "minute > '-infinity'")
	  . copy_rows("total_$id", 'true');
}

# Insert a sink's row into the catalog of 1.0, which names the sink's relations.
sub catalog_row
{
	my ($id, $fact, $ingest) = @_;
	my $values = $node->safe_psql('new', qq(
SELECT concat_ws(', ', id, quote_literal(name), quote_literal(mode), quote_literal(bucket), quote_literal(dedup_window),
	quote_literal(max_future), quote_literal(late_policy), quote_literal(on_bad_event)) || '|' || quote_literal(hash_key)
FROM revenue_sink.sink_catalog WHERE id = $id));
	my ($before, $key) = split /\|/, $values;

	return "INSERT INTO revenue_sink.sink_catalog VALUES ($before, '$fact', '$ingest', 'revenue_sink.seen_$id',"
	  . " 'revenue_sink.spill_$id', 'revenue_sink.delta_$id', 'revenue_sink.total_$id', $key);\n";
}

$node->safe_psql('old', q(
SET client_min_messages = warning;
CREATE EXTENSION revenue_sink VERSION '1.0'));
$node->safe_psql('old', relations_of_1_0(1, 0, 'shop.revenue', 'shop.events', 's')
	  . relations_of_1_0(2, 1, 'shop.total', 'shop.total_in', 't')
	  . relations_of_1_0(3, 0, 'shop.b_revenue', 'shop.b_events', 'b'));
$node->safe_psql('old', copy_sink(1) . copy_sink(2) . catalog_row(1, 'shop.revenue', 'shop.events')
	  . catalog_row(2, 'shop.total', 'shop.total_in') . q(
INSERT INTO revenue_sink.spill_1 VALUES (1, 2, 3, '2024-03-01 10:00+00');
INSERT INTO revenue_sink.sink_catalog SELECT 3, 'b', mode, bucket, dedup_window, max_future, late_policy, on_bad_event,
	'shop.b_revenue', 'shop.b_events', 'revenue_sink.seen_3', 'revenue_sink.spill_3', 'revenue_sink.delta_3',
	'revenue_sink.total_3', hash_key FROM revenue_sink.sink_catalog WHERE name = 's';
SELECT setval('revenue_sink.sink_id', 3);
-- In 1.0 a dead letter was named by one hash.
UPDATE revenue_sink.rejected SET digest = substring(digest, 1, 16)));

# Users' views on those of the extension
my @users = qw(sink stat_sink rejected_event deferred writer prepared);
$node->safe_psql('old', join('', map { "CREATE VIEW users_$_ AS SELECT * FROM revenue_sink.$_;\n" } @users)
	  . 'CREATE VIEW users_fact AS SELECT * FROM shop.revenue; CREATE VIEW users_total AS SELECT * FROM shop.total;'
	  . 'GRANT SELECT ON shop.revenue TO reader; ALTER VIEW shop.revenue SET (security_barrier)');
$node->safe_psql('new', 'GRANT SELECT ON shop.revenue TO reader');

# Batches that 1.0 has prepared: their rows come from committed batches of the new
# database, their transactions are the old database's.
my $key = pack('H*', $node->safe_psql('old', "SELECT encode(hash_key, 'hex') FROM revenue_sink.sink_catalog WHERE id = 1"));
my $database = $node->safe_psql('old', 'SELECT oid FROM pg_database WHERE datname = current_database()');
my %gid;

foreach my $number (8 .. 10)
{
	my $first = 311 + $number * 5;
	my $xid = $node->safe_psql('new', "\\set QUIET on\n\\pset tuples_only\n\\o /dev/null\n"
		  . batch_of($number, $first, $first + 4) . ";\nSELECT pg_current_xact_id() AS xid \\gset\nCOMMIT;\n\\o\n\\echo :xid");
	my $sql = "BEGIN;\n" . join('', map { copy_rows($_, "xmin = '$xid'") } qw(batch committed_offset seen_1 delta_1))
	  . "SELECT 'xid ' || pg_current_xact_id();\n";
	my $out = '';
	my $psql = IPC::Run::start([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('old'), '-f', '-' ],
		'<', \$sql, '>', \$out);

	$psql->pump until $out =~ /^xid (\d+)\n/m;
	my $text = "rs:$database:1:job:writer:1:$number:$1";
	$gid{$number} = sprintf('%s:%016x', $text, siphash($key, $text));
	$sql = "PREPARE TRANSACTION '$gid{$number}';\n";
	ok($psql->finish, "batch $number is prepared");
}

# ----------------------------------------------------------------------
# The library leaves the old tables alone

# What the server answers to SQL: the result, or SQLSTATE, message and hint.
sub say_of
{
	my ($db, $sql) = @_;

	return answer_of($node, $db, $sql, 'HINT');
}

my $rests = qr/LOG:  the worker of revenue_sink does nothing in database "old"\n/;
my $round = q(SELECT state_change FROM pg_stat_activity WHERE backend_type = 'revenue_sink worker' AND datname = 'old');
$node->append_conf('postgresql.conf', "revenue_sink.worker_interval = '50ms'");
$node->reload;
$node->wait_for_log($rests);
foreach (1 .. 3)
{
	my $before = $node->safe_psql('postgres', $round);
	$node->poll_query_until('postgres', "SELECT ($round) > '$before'") or die 'the worker makes no more rounds';
}

my @calls = (
	"SELECT revenue_sink.apply('s', 'order-0', 'event-1', '2024-03-01 10:00:02+00', 1.25, 'shop-1')",
	"SELECT * FROM revenue_sink.apply('s', '[]')",
	"INSERT INTO shop.events VALUES ('o', 'e', '2024-03-01 10:01+00', 1)",
	"COPY shop.events FROM stdin;\no\te\t2024-03-01 10:01+00\t1\tg\n\\.\n",
	"SELECT revenue_sink.upsert('t', '{2024-03-01 10:01+00}', '{1}')",
	"SELECT revenue_sink.begin_batch('s', 'job', 'writer', 1, 11)",
	"SELECT revenue_sink.pre_commit('s')",
	"SELECT revenue_sink.store_offsets('s', 'orders', '{0}', '{10}')",
	"CALL revenue_sink.open_writer('s', 'job', 'writer')",
	"CALL revenue_sink.recover('s', 'job', NULL)",
	"SELECT * FROM revenue_sink.offsets('s')",
	"SELECT revenue_sink.seen('s', 'order-0', 'event-1')",
	"SELECT revenue_sink.merge('s')",
	"SELECT revenue_sink.expire('s')",
	"SELECT revenue_sink.alter_sink('s')",
	"SELECT revenue_sink.drop_sink('s')",
	"SELECT * FROM revenue_sink.check('s')");

sub refused
{
	my ($when) = @_;

	like(say_of('old', $_), qr/^55000 .*: Run ALTER EXTENSION revenue_sink UPDATE in this database\.$/,
		"$when: refused: " . s/\n.*//sr) foreach @calls;
	like(say_of('old', "SELECT revenue_sink.create_sink('c')"), qr/^55000 .*: Run ALTER EXTENSION/, "$when: refused: create_sink()");
	return;
}

refused('1.0');
is(say_of('old', 'SELECT sum(events) FROM shop.revenue'), '350', '1.0: the fact view is there to be read');

is(say_of('old', "SELECT count(*) FROM revenue_sink.$_"), { sink => 3, stat_sink => 3, prepared => 3 }->{$_} // 1,
	"1.0: the view $_") foreach @users;

# An exception is what an update waits for: the update fails at once, and names
# the transaction.
my $oldest = $gid{8};
like(say_of('old', "SET statement_timeout = '10s'; ALTER EXTENSION revenue_sink UPDATE"),
	qr/^55006 extension revenue_sink is used by the prepared transaction "$oldest": Commit or roll back the prepared transaction first\.$/,
	'an update stops behind a prepared batch');
is(say_of('old', "SELECT revenue_sink.outcome('$gid{8}')"), 'in doubt', '1.0: outcome()');
is(say_of('old', "CALL revenue_sink.commit_prepared('$gid{8}')"), 'committed', '1.0: commit_prepared()');
is(say_of('old', "CALL revenue_sink.rollback_prepared('$gid{9}')"), 'rolled back', '1.0: rollback_prepared()');
is(say_of('old', "CALL revenue_sink.commit_checkpoint('s', 'job', 10)"), '1', '1.0: commit_checkpoint()');
is(say_of('old', join(';', map { "SELECT revenue_sink.outcome('$gid{$_}')" } 8 .. 10)), "committed\nrolled back\ncommitted",
	'1.0: outcomes');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_prepared_xacts WHERE database = 'old'"), '0', '1.0: nothing is left prepared');

# The update also stops behind any other prepared transaction that has a lock on a
# table or a view.
foreach my $lock ('LOCK revenue_sink.seen_1 IN ROW EXCLUSIVE MODE', 'LOCK revenue_sink.sink_catalog IN ACCESS SHARE MODE',
	'LOCK revenue_sink.rejected IN ROW EXCLUSIVE MODE', 'SELECT * FROM shop.total')
{
	$node->safe_psql('old', "BEGIN; $lock; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'any'");
	like(say_of('old', "SET statement_timeout = '10s'; ALTER EXTENSION revenue_sink UPDATE"),
		qr/^55006 extension revenue_sink is used by the prepared transaction "any": /, "an update stops behind $lock");
	$node->safe_psql('old', "ROLLBACK PREPARED 'any'");
}

# A dump of 1.0, for later
my $old_dump = "$dir/old";
system_or_bail('pg_dump', '-d', $node->connstr('old'), '-Fc', '-f', $old_dump);

# One sink has lost its views, which doesn't stop the update. An update that is
# rolled back has changed nothing.
$node->safe_psql('old', 'DROP VIEW shop.b_revenue, shop.b_events');
my $update = 'ALTER EXTENSION revenue_sink UPDATE';
is(say_of('old', "BEGIN; $update; SELECT problem FROM revenue_sink.sink WHERE sink = 's'; ROLLBACK"), '', 'an update is rolled back');
refused('rolled back');

my $log = slurp_file($node->logfile);
is(scalar(() = $log =~ /$rests/g), 1, 'the worker has said once that it rests');
unlike($log, qr/revenue_sink worker.*(ERROR|WARNING)|failed to (settle|merge|look)/, 'the worker has logged nothing else');

# ----------------------------------------------------------------------
# The update

# ... is noticed by a session whose calls have been refused before.
my (undef, $answer, $stderr) = $node->psql('old', "$calls[0];\n\\! psql -Xqd '" . $node->connstr('old') . "' -c '$update'\n$calls[0];",
	on_error_stop => 0);
is($answer, 'duplicate', 'an older session works with the new tables');
like($stderr, qr/WARNING:  sink "b" cannot be adopted\nDETAIL:  The fact view is gone, or is not the one that was made for the sink\.\n(?!.*(WARNING|ERROR))/s,
	'updated, with a warning of the sink without views');
is(say_of('old', q(
SELECT sink, problem IS NULL FROM revenue_sink.sink ORDER BY 1;
SELECT revenue_sink.drop_sink('b');
SELECT setval('revenue_sink.sink_id', 2))), "b|f\ns|t\nt|t\n\n2",
	'the other sinks are in order');
is(say_of('old', $calls[0] . ';' . apply_of(1, 350)), "duplicate\n0|350|0|0|0|0", 'events of before are duplicates');
is(say_of('old', apply_of(351, 355) . '; ' . apply_of(361, 365)), "0|5|0|0|0|0\n0|5|0|0|0|0", 'those of committed batches, too');
is(say_of('old', apply_of(356, 360)), '5|0|0|0|0|0', 'the events of a batch that was rolled back are new');
is(say_of('old', "BEGIN; SELECT revenue_sink.begin_batch('s', 'job', 'writer', 1, $_); ROLLBACK"), 'f', "batch $_ is known")
  foreach 7, 8, 10;
is(say_of('old', join(';', map { "SELECT revenue_sink.outcome('$gid{$_}')" } 8 .. 10)), "committed\nrolled back\ncommitted",
	'outcomes are known by the old gids');

# A gid of 1.0 doesn't name its server. After a dump the sink may be on one whose
# database has the same OID, and there the transaction's id is of another transaction.
sub gid_with_xid
{
	my ($number, $xid) = @_;
	my $text = "rs:$database:1:job:writer:1:$number:$xid";

	return sprintf('%s:%016x', $text, siphash($key, $text));
}

my $aborted = $node->safe_psql('old', 'BEGIN; SELECT pg_current_xact_id(); ROLLBACK');
is(say_of('old', join(';', map { "SELECT revenue_sink.outcome('" . gid_with_xid(@$_) . "')" } [ 8, $aborted ], [ 8, 99_999_999 ], [ 10, $aborted ], [ 9, 99_999_999 ])),
	"committed\ncommitted\ncommitted\nunknown", 'outcomes after a move to another server are those of the ledger');

# The new database comes to the same state.
$node->safe_psql('new', "COMMIT PREPARED 'held'");
wait_until("$_ has settled", sub { $node->safe_psql($_, 'SELECT count(*) FROM revenue_sink.deferred') eq '0' }) foreach qw(old new);
my $state_sql = q(
SELECT * FROM shop.revenue ORDER BY 1, 2;
SELECT * FROM shop.total ORDER BY 1, 2;
SELECT * FROM revenue_sink.offsets('s') ORDER BY 1, 2;
SELECT * FROM revenue_sink.dead_letter ORDER BY 1, 2;
SELECT * FROM revenue_sink.sink ORDER BY 1;
SELECT job, writer, epoch, opened_at, last_number FROM revenue_sink.writer ORDER BY 1, 2;
SELECT revenue_sink.upsert('t', '{2024-03-01 10:03+00}', '{1}', NULL, 2);
SELECT * FROM shop.total ORDER BY 1, 2;
SELECT problem FROM revenue_sink.check('s');
SELECT problem FROM revenue_sink.check('t'));
is(say_of('old', $state_sql), say_of('new', $state_sql), 'revenue, offsets, dead letters and versions are those of a sink of 1.1');
is(say_of('old', q(SELECT revenue_sink.apply('s', 'held', 'held', '2024-03-01 10:09+00', 7, 'held');
SELECT revenue, events FROM shop.revenue WHERE group_key = 'held';
SELECT answer FROM revenue_sink.settled WHERE order_id = 'held')), "duplicate\n7|1\napplied", 'the deferred event is settled once');

is(say_of('old', q(SELECT reloptions FROM pg_class WHERE oid = 'shop.revenue'::regclass)), '{security_barrier=true}',
	'options of the fact view are kept');
$node->safe_psql('old', 'ALTER VIEW shop.revenue RESET (security_barrier)');

# The users' views
my $users = join('', map { my $v = $_; map { "SELECT * FROM $_ ORDER BY 1, 2;" } ("users_$v", "revenue_sink.$v") } @users)
  =~ s/revenue_sink\.sink /(SELECT sink, owner, mode, fact, ingest, bucket, dedup_window, max_future, late_policy, on_bad_event FROM revenue_sink.sink) AS s /r;
is(say_of('old', "SELECT count(*) FROM (TABLE users_sink) AS u; $users") =~ /ERROR|^\d{5} /m ? 'error' : 'fine', 'fine', "users' views are there");
is(say_of('old', 'SELECT count(*) FROM users_rejected_event; SELECT * FROM users_rejected_event EXCEPT '
	  . 'SELECT sink, reason, order_id, event_id, event_time, amount, group_key, arrived_at FROM revenue_sink.dead_letter'), '1',
	'the dead letters of before are there, under both names');
is(say_of('old', q(
SELECT revenue_sink.apply('s', 'order-0', 'event-1', '2024-03-01 10:00:02+00', 99, 'shop-1');
SELECT revenue_sink.resolve('s', 'discard', array_agg(letter)) FROM revenue_sink.dead_letter;
SELECT revenue_sink.apply('s', 'order-0', 'event-1', '2024-03-01 10:00:02+00', 99, 'shop-1');
SELECT count(*), count(resolution) FROM revenue_sink.dead_letter)), "conflict\n1\nduplicate\n1|1", 'they are known, and are resolved');
is(say_of('old', "SELECT * FROM users_$_ EXCEPT SELECT * FROM revenue_sink.$_"), '', "users' view on $_ shows the same")
  foreach qw(rejected_event deferred writer prepared);
is(say_of('old', 'SELECT * FROM users_fact EXCEPT SELECT * FROM shop.revenue; SELECT count(*) > 0 FROM users_fact; SELECT count(*) FROM users_total'),
	"t\n3", "users' views on the facts show the same");
is(say_of('old', 'SELECT sink FROM users_sink ORDER BY 1; SELECT sink FROM users_stat_sink ORDER BY 1'), "s\nt\ns\nt", "users' views on the sinks");

# ----------------------------------------------------------------------
# The catalogs of the updated database say the same as those where 1.1 was
# installed at once.

my $catalog_sql = q(
SET search_path = pg_catalog;
CREATE TEMP TABLE rel AS
	SELECT c.oid, c.oid::regclass::text AS name FROM pg_class c
	WHERE c.relnamespace = 'revenue_sink'::regnamespace OR c.relnamespace = 'shop'::regnamespace;
SELECT x FROM (
	SELECT format('member %s %s', type, identity) FROM pg_depend d, pg_identify_object(classid, objid, objsubid)
	WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
		AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'revenue_sink')
	UNION ALL SELECT format('extension %s %s %s', extversion, extrelocatable, (SELECT string_agg(format('%s %s', c::regclass, w), ', ' ORDER BY c::regclass::text)
		FROM unnest(extconfig, extcondition) AS u (c, w))) FROM pg_extension WHERE extname = 'revenue_sink'
	UNION ALL SELECT format('relation %s %s %s %s %s %s %s %s %s', name, relkind, relowner::regrole, relacl, reloptions, relreplident,
		relpersistence, relrowsecurity, obj_description(c.oid, 'pg_class')) FROM rel r JOIN pg_class c ON c.oid = r.oid
	UNION ALL SELECT format('column %s %s %s %s %s %s %s %s %s %s %s %s', name,
		row_number() OVER (PARTITION BY name ORDER BY attnum), attname, format_type(atttypid, atttypmod), attnotnull,
		pg_get_expr(adbin, adrelid), attcollation::regcollation, attstorage, attcompression, attacl,
		(SELECT array_agg(o) FROM unnest(attoptions) o WHERE o NOT LIKE 'pg_attver=%'), col_description(r.oid, attnum))
		FROM rel r JOIN pg_attribute a ON a.attrelid = r.oid LEFT JOIN pg_attrdef f ON (adrelid, adnum) = (r.oid, attnum)
		WHERE attnum > 0 AND NOT attisdropped
	UNION ALL SELECT format('index %s %s %s', name, pg_get_indexdef(indexrelid), indisreplident) FROM rel r JOIN pg_index i ON i.indrelid = r.oid
	UNION ALL SELECT format('constraint %s %s %s', name, conname, pg_get_constraintdef(o.oid)) FROM rel r JOIN pg_constraint o ON conrelid = r.oid
	UNION ALL SELECT format('trigger %s %s %s', name, pg_get_triggerdef(t.oid), tgenabled) FROM rel r JOIN pg_trigger t ON tgrelid = r.oid
	UNION ALL SELECT format('view %s %s', name, pg_get_viewdef(r.oid)) FROM rel r JOIN pg_class c ON c.oid = r.oid WHERE relkind = 'v'
	UNION ALL SELECT format('sequence %s %s', name, (seqtypid::regtype, seqstart, seqincrement, seqmin, seqmax, seqcache, seqcycle)) FROM rel r JOIN pg_sequence ON seqrelid = r.oid
	UNION ALL SELECT format('initial rights %s %s', (pg_identify_object(classoid, objoid, objsubid)).identity, initprivs) FROM pg_init_privs
		WHERE classoid <> 'pg_class'::regclass OR objoid IN (SELECT oid FROM rel)
	UNION ALL SELECT format('function %s %s %s %s %s', p.oid::regprocedure, proowner::regrole, proacl, obj_description(p.oid, 'pg_proc'),
		pg_get_functiondef(p.oid)) FROM pg_proc p WHERE pronamespace = 'revenue_sink'::regnamespace
	UNION ALL SELECT format('type %s %s %s %s', t.oid::regtype, typowner::regrole, typacl, obj_description(t.oid, 'pg_type'))
		FROM pg_type t WHERE typnamespace = 'revenue_sink'::regnamespace
	UNION ALL SELECT format('schema %s %s %s', nspowner::regrole, nspacl, obj_description(n.oid, 'pg_namespace')) FROM pg_namespace n WHERE nspname = 'revenue_sink'
	UNION ALL SELECT format('sink %s', row_to_json(s)::jsonb - 'hash_key') FROM revenue_sink.sink_catalog s
) AS every (x) ORDER BY x COLLATE "C");
my %lines;
foreach my $db (qw(old new))
{
	$lines{$db} = [ split /\n(?=(?:member|extension|relation|column|index|constraint|trigger|view|sequence|initial rights|function|type|schema|sink) )/,
		$node->safe_psql($db, $catalog_sql) ];
	cmp_ok(scalar @{ $lines{$db} }, '>', 300, "the catalogs of the $db database are read");
}

sub beyond
{
	my ($these, $those) = @_;
	my %those = map { $_ => 1 } @{ $lines{$those} };

	return join("\n", grep { !$those{$_} } @{ $lines{$these} });
}

is(beyond('old', 'new'), '', 'the update leaves nothing that 1.1 has not');
is(beyond('new', 'old'), '', 'the update lacks nothing that 1.1 has');

# ----------------------------------------------------------------------
# Dumps of the updated database, and of the one of 1.0

$node->safe_psql('postgres', "CREATE DATABASE $_") foreach qw(again restored empty);
system_or_bail('pg_dump', '-d', $node->connstr('old'), '-Fc', '-f', "$dir/updated");
system_or_bail('pg_restore', '--exit-on-error', '-d', $node->connstr('again'), "$dir/updated");
is(say_of('again', $calls[0]), 'duplicate', 'a dump of the updated database is restored, and wakes up');
wait_until('the sinks are at home', sub {
	$node->safe_psql('again', 'SELECT count(*) FROM revenue_sink.sink WHERE problem IS NULL') eq '2' });
my $revenue = 'SELECT * FROM shop.revenue ORDER BY 1, 2';
is(say_of('again', "$revenue; SELECT problem FROM revenue_sink.check('s')"), say_of('old', $revenue), 'with the same revenue');

# A dump of 1.0 is restored into tables of 1.0, which nobody uses before the
# update.
$node->safe_psql('restored', "CREATE EXTENSION revenue_sink VERSION '1.0'");
system_or_bail('pg_restore', '--exit-on-error', '-d', $node->connstr('restored'), $old_dump);
like(say_of('restored', $calls[0]), qr/^55000 .*: Run ALTER EXTENSION revenue_sink UPDATE/, 'a dump of 1.0 is restored, and rests');
is(say_of('restored', "$update; " . $calls[0] . '; ' . apply_of(1, 355)
	  . "; SELECT problem FROM revenue_sink.check('s'); SELECT sum(events) FROM shop.revenue WHERE group_key <> 'held'"),
	"duplicate\n0|355|0|0|0|0\n360", 'the restored database is updated');

# A database without sinks is updated.
is(say_of('empty', "CREATE EXTENSION revenue_sink VERSION '1.0'; $update; SELECT revenue_sink.create_sink('s'); "
	  . "SELECT revenue_sink.apply('s', 'o', 'e', '2024-03-01 10:01+00', 1)"), "\napplied", 'an update without sinks');

# Grants on the functions that have got another argument are kept.
$node->safe_psql('postgres', 'CREATE DATABASE granted');
$node->safe_psql('granted', qq(
CREATE EXTENSION revenue_sink VERSION '1.0';
REVOKE EXECUTE ON FUNCTION revenue_sink.create_sink FROM PUBLIC;
GRANT EXECUTE ON FUNCTION revenue_sink.create_sink TO seller WITH GRANT OPTION;
GRANT EXECUTE ON FUNCTION revenue_sink.alter_sink TO reader;
$update));
my $rights = q(SELECT f, r, has_function_privilege(r, p.oid, 'EXECUTE'), has_function_privilege(r, p.oid, 'EXECUTE WITH GRANT OPTION')
FROM unnest('{create_sink,alter_sink}'::text[]) f JOIN pg_proc p ON proname = f AND pronamespace = 'revenue_sink'::regnamespace,
	unnest('{seller,reader,public}'::text[]) r ORDER BY 1, 2);
my $expected = "alter_sink|public|t|f\nalter_sink|reader|t|f\nalter_sink|seller|t|f\n"
  . "create_sink|public|f|f\ncreate_sink|reader|f|f\ncreate_sink|seller|t|t";
is(say_of('granted', $rights), $expected, 'an update carries grants over');
$node->safe_psql('postgres', 'CREATE DATABASE granted_again');
system_or_bail('pg_dump', '-d', $node->connstr('granted'), '-Fc', '-f', "$dir/granted");
system_or_bail('pg_restore', '--exit-on-error', '-d', $node->connstr('granted_again'), "$dir/granted");
is(say_of('granted_again', $rights), $expected, 'a dump takes the grants along');

done_testing();
