# A sink is moved to a database of another encoding. A restore converts text, and
# leaves hashes as they are: hashes are made of the text in UTF8, so earlier
# events, dead letters and gids are known. A sink is refused on a server that
# would hash otherwise. And no setting of a session changes what is hashed.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

# There must be a worker for each of the databases.
my $node = new_node('encoding', conf => q(
max_worker_processes = 40
revenue_sink.worker_interval = '50ms'
));
my $dir  = PostgreSQL::Test::Utils::tempdir();

# All text below is sent and read as UTF8, except that of SQL_ASCII.
sub sql
{
	my ($db, $sql) = @_;
	my $client = $db =~ /ascii/ ? 'SQL_ASCII' : 'UTF8';

	return $node->safe_psql($db, "SET client_encoding = '$client';\n$sql");
}

sub new_database
{
	my ($db, $encoding) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $db ENCODING '$encoding' LOCALE 'C' TEMPLATE template0");
	return;
}

# Move a database by a dump, converted to UTF8 or as it is.
sub move
{
	my ($db, $into, $encoding) = @_;
	my @as = $db =~ /ascii/ ? () : ('-E', 'UTF8');

	system_or_bail('pg_dump', @as, '-d', $node->connstr($db), '-Fc', '-f', "$dir/$db.dump") unless -e "$dir/$db.dump";
	new_database($into, $encoding);
	system_or_bail('pg_restore', '--exit-on-error', '-d', $node->connstr($into), "$dir/$db.dump");
	return;
}

# A word for each encoding, written in UTF8
my %word = (
	LATIN1    => 'café-½',
	WIN1252   => 'œuvre-€',
	EUC_JP    => '日本語',
	UTF8      => 'søren-ñ',
	SQL_ASCII => "caf\xe9");

# One call with the same events: two good ones, a conflict, a bad amount, and ids
# at the limit of 1024 bytes in UTF8 and just past it. "é" has two bytes, "日"
# three.
sub apply_all
{
	my ($db, $encoding) = @_;
	my $word = $word{$encoding};
	my $wide = $encoding eq 'EUC_JP' ? q(repeat('日', 341) || 'x') : $encoding eq 'SQL_ASCII' ? q(repeat('y', 1024)) : q(repeat('é', 512));

	return sql($db, qq(
SELECT * FROM revenue_sink.apply('s',
	ARRAY['$word', '$word', '$word', 'plain', $wide, $wide || 'x', 'o', 'o'],
	ARRAY['e/$word', 'e-2', 'e-2', 'e/$word', 'e', 'e', $wide, $wide || 'x'],
	'{2024-03-01 10:01+00,2024-03-01 10:01+00,2024-03-01 10:01+00,2024-03-01 10:01+00,2024-03-01 10:01+00,2024-03-01 10:01+00,2024-03-01 10:01+00,2024-03-01 10:01+00}',
	'{1,2,3,NaN,4,5,6,7}', ARRAY['g/$word', 'g/$word', 'g/$word', 'g/$word', '', '', '$word', '$word'])));
}

# The first of these events as a row of COPY BINARY, in the encoding of the client
sub apply_row
{
	my ($db, $encoding) = @_;
	my $word = $word{$encoding};
	my $row  = pack 'n (N/a)5', 5, $word, "e/$word", pack('q>', 762_602_460_000_000), pack('n5', 1, 0, 0, 0, 1), "g/$word";
	my $rows = unpack 'H*', "PGCOPY\n\xff\r\n\0" . pack('N2', 0, 0) . $row . pack('n', 0xffff);

	return sql($db, "SELECT * FROM revenue_sink.apply_rows('s', '\\x$rows')");
}

# Revenue and dead letters, and the number of dead letters
sub facts
{
	my ($db) = @_;

	return join "\n", sort split /\n/, sql($db, q(
SELECT minute, group_key, revenue, events FROM fact_revenue_1m;
SELECT reason, order_id, event_id, amount, group_key, resolution FROM revenue_sink.dead_letter;
SELECT count(*) FROM revenue_sink.dead_letter_event WHERE sink_id > 0));
}

my %source;
foreach my $encoding (sort keys %word)
{
	my $db   = 'from_' . ($encoding eq 'SQL_ASCII' ? 'ascii' : lc $encoding);
	my $name = $word{$encoding};

	new_database($db, $encoding);
	create_sink($node, $db, more => q(on_bad_event => 'reject'));
	is(apply_all($db, $encoding), '4|0|0|1|0|3', "$encoding: four events, a conflict, three bad ones");
	my $gid = sql($db, qq(
\\set QUIET on
CALL revenue_sink.open_writer('s', 'job/$name', 'w/$name') \\gset
BEGIN;
SELECT revenue_sink.begin_batch('s', 'job/$name', 'w/$name', :epoch, 1) \\gset
SELECT revenue_sink.apply('s', '$name', 'e-9', '2024-03-01 10:01+00', 9) \\gset
SELECT revenue_sink.store_offsets('s', 'source/$name', '{0}', '{10}') \\gset
SELECT revenue_sink.pre_commit('s') AS gid \\gset
PREPARE TRANSACTION :'gid';
CALL revenue_sink.commit_prepared(:'gid') \\gset
\\echo :epoch :gid));
	is(apply_all($db, $encoding), '0|4|0|1|0|3', "$encoding: the events are known");
	is(apply_row($db, $encoding), '0|1|0|0|0|0', "$encoding: and one of them as a row");
	is(sql($db, "SELECT revenue_sink.resolve('s', 'discard', array_agg(letter)) FROM revenue_sink.dead_letter WHERE reason = 'conflict'"),
		'1', "$encoding: the conflict is resolved");
	$source{$encoding} = { db => $db, epoch => (split / /, $gid)[0], gid => (split / /, $gid)[1], facts => facts($db) };
}

my @moves = (
	[ 'LATIN1', 'UTF8' ], [ 'LATIN1', 'LATIN1' ], [ 'LATIN1', 'WIN1252' ], [ 'WIN1252', 'UTF8' ],
	[ 'EUC_JP', 'UTF8' ], [ 'UTF8', 'LATIN1' ], [ 'UTF8', 'EUC_JP' ], [ 'SQL_ASCII', 'SQL_ASCII' ]);
foreach my $move (@moves)
{
	my ($from, $to) = @$move;
	my $s    = $source{$from};
	my $name = $word{$from};
	my $db   = lc($from eq 'SQL_ASCII' ? 'ascii_ascii' : "${from}_to_$to");
	my $what = "$from to $to";

	move($s->{db}, $db, $to);
	is(facts($db), $s->{facts}, "$what: the facts are the same");
	is(apply_all($db, $from), '0|5|0|0|0|3', "$what: all events are known, the resolved one too");
	is(facts($db), $s->{facts}, "$what: no dead letter is written twice");
	is(sql($db, qq(
SELECT revenue_sink.apply('s', '$name', 'new/$name', '2024-03-01 10:01+00', 1);
SELECT revenue_sink.apply('s', '$name', 'e-9', '2024-03-01 10:01+00', 9);
SELECT revenue_sink.seen('s', '$name', 'e/$name'), revenue_sink.seen('s', '$name', 'f/$name');
SELECT revenue_sink.outcome('$s->{gid}');
SELECT next_offset FROM revenue_sink.offsets('s', 'source/$name');
BEGIN;
SELECT revenue_sink.begin_batch('s', 'job/$name', 'w/$name', $s->{epoch}, 1);
COMMIT;
CALL revenue_sink.commit_prepared('$s->{gid}');
SELECT revenue_sink.merge('s') >= 0;
SELECT problem FROM revenue_sink.check('s'))),
		"applied\nduplicate\nt|f\ncommitted\n10\nf\ncommitted\nt", "$what: a new event, the batch of before");
	like(error_of($node, $db, "SET client_encoding = '" . ($from eq 'SQL_ASCII' ? $from : 'UTF8') . "'; CALL revenue_sink.open_writer('s', 'job/$name', 'w/$name');\n"
		. "SELECT revenue_sink.begin_batch('s', 'job/$name', 'w/$name', $s->{epoch}, 2)"), qr/ERROR:  RS001:/, "$what: the fence");
}

# A sink is moved there and back again.
unlink "$dir/latin1_to_utf8.dump";
move('latin1_to_utf8', 'latin1_again', 'LATIN1');
is(apply_all('latin1_again', 'LATIN1'), '0|5|0|0|0|3', 'back again: all events are known');
is(sql('latin1_again', "SELECT revenue_sink.apply('s', '$word{LATIN1}', 'new/$word{LATIN1}', '2024-03-01 10:01+00', 1)"),
	'duplicate', 'back again: the events that came in between are known, too');

# ----------------------------------------------------------------------
# Characters that UTF8 doesn't have

create_sink($node, 'from_win1252', sink => 'strict', more => q('strict_fact', 'strict_events'));
foreach my $column (qw(order_id event_id group_key))
{
	my %value = (order_id => q('o'), event_id => q('e'), group_key => q('g'), $column => q('a' || chr(129)));

	like(error_of($node, 'from_win1252', qq(
SELECT * FROM revenue_sink.apply('strict', ARRAY['o', $value{order_id}], ARRAY['e-1', $value{event_id}],
	'{2024-03-01 10:01+00,2024-03-01 10:01+00}', '{1,1}', ARRAY['g', $value{group_key}]))),
		qr/ERROR:  \w+: .*position 2.*$column|ERROR:  \w+: .*$column.*position 2/s, "a byte that has no meaning: $column");
	is(sql('from_win1252', qq(SELECT revenue_sink.apply('s', $value{order_id}, $value{event_id}, '2024-03-01 10:01+00', 1, $value{group_key}))),
		'rejected', "a byte that has no meaning is rejected: $column");
}
is(sql('from_win1252', q(
SELECT count(*) FROM revenue_sink.dead_letter WHERE strpos(order_id || event_id || group_key, chr(129)) > 0;
SELECT revenue_sink.seen('s', 'o', 'a' || chr(129));
SELECT problem FROM revenue_sink.check('strict'))), "3\nf", 'they are among the dead letters');

# ----------------------------------------------------------------------
# Sinks whose hashes this server would not repeat

sub refused
{
	my ($db, $sink, $detail, $what) = @_;

	foreach my $call (
		"SELECT revenue_sink.apply('$sink', 'o', 'e', '2024-03-01 10:01+00', 1)",
		"SELECT revenue_sink.seen('$sink', 'o', 'e')",
		"CALL revenue_sink.open_writer('$sink', 'job', 'w')",
		"SELECT revenue_sink.adopt_sink('$sink')")
	{
		like(error_of($node, $db, $call), qr/ERROR:  55000: sink "$sink" cannot be used in this database\nDETAIL:  .*$detail/,
			"$what: refused: $call");
	}
	like(sql($db, "SELECT problem FROM revenue_sink.sink WHERE sink = '$sink'"), qr/$detail/, "$what: problem");
	return;
}

# A sink of version 1.0 has hashed the bytes of its database.
my $eight_bits = "repeat(chr(233), 1024)";
new_database('old_latin1', 'LATIN1');
create_sink($node, 'old_latin1', sink => 'old');
is(sql('old_latin1', qq(
UPDATE revenue_sink.sink_catalog SET encoding = 'LATIN1';
SELECT revenue_sink.apply('old', $eight_bits, 'e', '2024-03-01 10:01+00', 1);
SELECT revenue_sink.apply('old', $eight_bits, 'e', '2024-03-01 10:01+00', 1))), "applied\nduplicate",
	'1.0: ids have 1024 bytes of LATIN1');
move('old_latin1', 'old_latin1_again', 'LATIN1');
is(sql('old_latin1_again', qq(
SELECT revenue_sink.apply('old', $eight_bits, 'e', '2024-03-01 10:01+00', 1);
SELECT problem FROM revenue_sink.check('old'))), 'duplicate', '1.0: LATIN1 to LATIN1');
move('old_latin1', 'old_utf8', 'UTF8');
refused('old_utf8', 'old', 'LATIN1.*UTF8', '1.0, LATIN1 to UTF8');
move('old_latin1', 'old_win1252', 'WIN1252');
refused('old_win1252', 'old', 'LATIN1.*WIN1252', '1.0, LATIN1 to WIN1252');

# Nobody knows what the bytes of SQL_ASCII mean.
new_database('plain_ascii', 'SQL_ASCII');
create_sink($node, 'plain_ascii');
is(sql('plain_ascii', q(SELECT revenue_sink.apply('s', 'o', 'e', '2024-03-01 10:01+00', 1))), 'applied', 'SQL_ASCII');
move('plain_ascii', 'from_plain', 'UTF8');
refused('from_plain', 's', 'SQL_ASCII.*UTF8', 'SQL_ASCII to UTF8');
move('from_utf8', 'into_ascii', 'SQL_ASCII');
refused('into_ascii', 's', 'UTF8.*SQL_ASCII', 'UTF8 to SQL_ASCII');

# The sample of the hash is another than this server makes.
new_database('damaged', 'UTF8');
create_sink($node, 'damaged');
sql('damaged', 'UPDATE revenue_sink.sink_catalog SET sample = set_byte(sample, 3, get_byte(sample, 3) # 1)');
refused('damaged', 's', 'in another way', 'another sample');
sql('damaged', q(UPDATE revenue_sink.sink_catalog SET sample = '\x00'));
refused('damaged', 's', 'in another way', 'a short sample');

# ----------------------------------------------------------------------
# The user has a conversion of his own, useless, in front of PostgreSQL's.

$node->safe_psql('from_latin1', q(
CREATE SCHEMA evil;
CREATE FUNCTION evil.convert(integer, integer, cstring, internal, integer, boolean) RETURNS integer
	LANGUAGE c STRICT AS '$libdir/utf8_and_iso8859_1', 'iso8859_1_to_utf8';
CREATE DEFAULT CONVERSION evil.conversion FOR 'LATIN1' TO 'UTF8' FROM evil.convert;
CREATE OR REPLACE FUNCTION evil.convert(integer, integer, cstring, internal, integer, boolean) RETURNS integer
	LANGUAGE c STRICT AS '$libdir/utf8_and_iso8859_1', 'utf8_to_iso8859_1'));
like(error_of($node, 'from_latin1', q(
SET search_path = evil, pg_catalog, public;
SET client_encoding = 'LATIN1';
SELECT convert('\xe9', 'LATIN1', 'UTF8'))), qr/ERROR/, 'a conversion that does not work');
my $latin = q('caf' || chr(233) || '-' || chr(189));
is($node->safe_psql('from_latin1', qq(
SET search_path = evil, pg_catalog, public;
SELECT revenue_sink.apply('s', $latin, 'e/' || $latin, '2024-03-01 10:01+00', 1, 'g/' || $latin))), 'duplicate',
	"the user's conversion is not used");

# ----------------------------------------------------------------------
# Settings of the session, which must not matter

new_database('settings', 'UTF8');
create_sink($node, 'settings');
is(sql('settings', q(
CREATE SCHEMA elsewhere;
CREATE TYPE elsewhere.numeric AS (a text);
CREATE TYPE elsewhere.timestamptz AS (a text);
SELECT revenue_sink.apply('s', 'café', 'e\1', '2024-03-01 10:01:00.25+00', 12.5, 'ñ'))), 'applied', 'an event');
my @settings = (
	q(SELECT),
	q(SET client_encoding = 'LATIN1'),
	q(SET client_encoding = 'WIN1252'),
	q(SET TimeZone = 'Asia/Kathmandu'),
	q(SET TimeZone = 'America/New_York'; SET DateStyle = 'SQL, DMY'),
	q(SET DateStyle = 'German'),
	q(SET DateStyle = 'Postgres, YMD'; SET IntervalStyle = 'sql_standard'),
	q(SET IntervalStyle = 'iso_8601'),
	q(SET extra_float_digits = -15),
	q(SET extra_float_digits = 3; SET bytea_output = 'escape'),
	q(SET search_path = elsewhere, pg_temp, pg_catalog, public),
	q(SET standard_conforming_strings = off; SET escape_string_warning = off; SET backslash_quote = on),
	q(SET lc_numeric = 'C.UTF-8'; SET lc_time = 'C.UTF-8'),
	q(SET xmlbinary = 'hex'; SET array_nulls = off; SET transform_null_equals = on));
foreach my $setting (@settings)
{
	my $bytes = $setting =~ /LATIN1|WIN1252/ ? "caf\xe9,e\\1,2024-03-01 10:01:00.25+00,12.500,\xf1" : 'café,e\1,2024-03-01 10:01:00.25+00,12.500,ñ';
	my $ids   = q('caf' || chr(233), 'e' || chr(92) || '1');
	my ($order, $event) = split /, (?='e')/, $ids;

	is($node->safe_psql('settings', qq(
SET client_min_messages = warning;
$setting;
SELECT revenue_sink.apply('s', $ids, '2024-03-01 10:01:00.25+00', 12.50, chr(241));
SELECT revenue_sink.apply('s', $ids, '2024-03-01 15:46:00.25+05:45', (12.5::float8)::pg_catalog.numeric, chr(241));
SELECT * FROM revenue_sink.apply('s', ARRAY[$order], ARRAY[$event], '{2024-03-01T10:01:00.250Z}', '{1.25e1}', ARRAY[chr(241)]);
SELECT * FROM revenue_sink.apply('s', jsonb_build_object('order_id', $order, 'event_id', $event,
	'event_time', '2024-03-01T05:01:00.25-05:00', 'amount', 12.5, 'group_key', chr(241)));
INSERT INTO order_events VALUES ($ids, '2024-03-01 10:01:00.25+00', '12.5', chr(241));
COPY order_events FROM STDIN (FORMAT csv);
$bytes
\\.
SELECT revenue_sink.seen('s', $ids)) ), "duplicate\nduplicate\n0|1|0|0|0|0\n0|1|0|0|0|0\nt", "nothing new under: $setting");
}
is(sql('settings', q(
SELECT applied, duplicate, conflict, rejected FROM revenue_sink.stat_sink;
SELECT problem FROM revenue_sink.check('s'))), '1|' . 6 * @settings . '|0|0', 'the event has come once');

done_testing();
