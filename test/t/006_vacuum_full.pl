# The sink's tables get new files, or lose their rows, under load.
#
# The index in shared memory holds addresses of rows, which change with VACUUM
# FULL, CLUSTER and the like. TRUNCATE makes the sink forget events: the tables
# are the truth. Nobody may get a wrong answer because of old addresses.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

my $seed = $ENV{RSINK_SEED} || 1;

my $writer_binary = build_client('writer');
my $reader_binary = build_client('reader');
plan skip_all => 'no C compiler' unless $writer_binary && $reader_binary;

my $node = new_node('rewrite', conf => q(
revenue_sink.worker_interval = '100ms'
deadlock_timeout = '100ms'
));
create_sink($node, 'postgres');
my %table = map { $_ => sink_table($node, 'postgres', $_) } qw(seen delta total);

my $streams = RevenueSink::Streams->new(seed => $seed, writers => 2);
my $load    = RevenueSink::Load->new(
	seed    => $seed,
	binary  => $writer_binary,
	connstr => $node->connstr('postgres'),
	streams => $streams);

# Run statements in turns, one for every few batches that arrive. A statement that
# loses a deadlock against the worker does no harm.
sub run_with
{
	my ($blocks, @statements) = @_;
	my ($steps, $ran) = (0, 0);

	$load->start_all($streams->grow($blocks));
	$load->run(sub {
		my (undef, undef, $step) = @_;

		return unless $step eq 'done' && ++$steps % 3 == 0;
		my (undef, undef, $stderr) =
		  $node->psql('postgres', $statements[ $ran++ % @statements ]);
		die $stderr if $stderr =~ /ERROR/ && $stderr !~ /deadlock/;
	});
	return $ran;
}

# The tables get new files.
$load->start_reader($reader_binary);
my $ran = run_with(150, (map { "VACUUM FULL $table{$_}" } sort keys %table),
	"VACUUM (FREEZE, INDEX_CLEANUP ON) $table{seen}",
	"REINDEX TABLE $table{total}",
	"ALTER TABLE $table{seen} SET (fillfactor = 90); VACUUM FULL $table{seen}",
	'VACUUM FULL',
	q(SELECT revenue_sink.merge('s')));
cmp_ok($ran, '>', 10, "$ran rewrites during load");
is(differences($node, 'postgres', truth => $streams->truth), '',
	'right totals after rewrites under load');
ok($load->stop_reader, 'the reader saw markers together, and none vanish');

# CLUSTER rewrites the tables that have a b-tree.
foreach my $kind (sort keys %table)
{
	my $index = $node->safe_psql('postgres', qq(
SELECT i.indexrelid::regclass FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am a ON a.oid = c.relam AND a.amname = 'btree'
WHERE i.indrelid = '$table{$kind}'::regclass LIMIT 1));
	$node->safe_psql('postgres', "CLUSTER $table{$kind} USING " . $index =~ s/.*\.//r)
	  if $index ne '';
}
is(differences($node, 'postgres', truth => $streams->truth), '', 'the totals are right after CLUSTER');

# The whole stream is sent once more: nothing is counted.
$node->safe_psql('postgres', q(
SELECT revenue_sink.store_offsets('s', 'orders', '{0,1}', '{0,0}')));
$load->start_all($streams->{lines});
$load->run;
is(differences($node, 'postgres', truth => $streams->truth), '',
	'a whole replay changes nothing');

# A TRUNCATE that is rolled back changes nothing either; inside its transaction
# the events are forgotten.
my $event = q('s', 'order-t', 'evt-t', '2024-03-01 10:01+00', 65, 'truncate');
is($node->safe_psql('postgres', qq(
SELECT revenue_sink.apply($event);
BEGIN;
TRUNCATE $table{seen};
SELECT revenue_sink.seen('s', 'order-t', 'evt-t');
SELECT revenue_sink.apply($event);
SELECT revenue_sink.apply($event);
ROLLBACK;
SELECT revenue_sink.seen('s', 'order-t', 'evt-t');
SELECT revenue_sink.apply($event);
SELECT sum(revenue) FROM fact_revenue_1m WHERE group_key = 'truncate')),
	"applied\nf\napplied\nduplicate\nt\nduplicate\n65", 'a TRUNCATE that is rolled back');
# check() sees that the revenue contains more events than the rows that are left;
# from here on it may find nothing else.
sub check_sql
{
	return "SELECT problem FROM revenue_sink.check('$_[0]')"
	  . " WHERE problem !~ '^revenue counts \\d+ events, but'";
}

is($node->safe_psql('postgres', qq(
TRUNCATE $table{seen};
SELECT revenue_sink.seen('s', 'order-t', 'evt-t');
SELECT revenue_sink.apply($event);
SELECT revenue_sink.apply($event);
SELECT sum(revenue) FROM fact_revenue_1m WHERE group_key = 'truncate';
) . check_sql('s')),
	"f\napplied\nduplicate\n130", 'after TRUNCATE the sink has forgotten the events');

# A sink is made, filled and truncated in one transaction: in this case TRUNCATE
# cuts the file in place.
is($node->safe_psql('postgres', q(
SET client_min_messages = warning;
BEGIN;
SELECT revenue_sink.create_sink('new', 'new_fact', 'new_events');
SELECT r.applied
FROM (SELECT array_agg('o' || i) AS o, array_agg('e' || i) AS e,
		array_agg('2024-03-01 10:01+00'::timestamptz) AS t, array_agg(1.0) AS a
	FROM generate_series(1, 5000) i) given, revenue_sink.apply('new', o, e, t, a) r;
SELECT format('TRUNCATE %s', seen.oid::regclass)
FROM pg_class seen WHERE relnamespace = 'revenue_sink'::regnamespace
  AND relname ~ '^seen_[0-9]+$' ORDER BY seen.oid DESC LIMIT 1 \gexec
SELECT r.applied
FROM (SELECT array_agg('o' || i) AS o, array_agg('e' || i) AS e,
		array_agg('2024-03-01 10:01+00'::timestamptz) AS t, array_agg(1.0) AS a
	FROM generate_series(1, 5000) i) given, revenue_sink.apply('new', o, e, t, a) r;
COMMIT;
SELECT sum(events) FROM new_fact;
) . check_sql('new') . q(;
SELECT revenue_sink.drop_sink('new'))), "\n5000\n5000\n10000\n",
	'create, apply and TRUNCATE in one transaction');

# TRUNCATE under load: in a stream without duplicates, on a connection that is
# never lost, no event may be taken for a duplicate. The replays that a writer
# makes by itself would count again, so this stream is in SQL.
$node->safe_psql('postgres', q(
SET client_min_messages = warning;
SELECT revenue_sink.create_sink('once', 'once_fact', 'once_events');
CREATE TABLE feeding AS SELECT true AS goes_on;
CREATE TABLE fed (events bigint);
CREATE PROCEDURE feed(which text) LANGUAGE plpgsql AS $$
DECLARE
	calls int := 0;
BEGIN
	WHILE goes_on FROM feeding LOOP
		calls := calls + 1;
		PERFORM revenue_sink.apply('once', array_agg(which || calls), array_agg('e' || i),
			array_agg('2024-03-01 10:01+00'::timestamptz), array_agg(1.0))
		FROM generate_series(1, 1000) i;
		COMMIT;
	END LOOP;
	INSERT INTO fed VALUES (calls * 1000);
END $$;
));
my $once = $node->safe_psql('postgres', q(
SELECT oid::regclass FROM pg_class WHERE relnamespace = 'revenue_sink'::regnamespace
  AND relname ~ '^seen_[0-9]+$' ORDER BY oid DESC LIMIT 1));
my @feeds = map { $node->background_psql('postgres') } (0, 1);
foreach my $i (0, 1)
{
	$feeds[$i]->query_until(qr/fed/, "\\echo fed\nCALL feed('w$i-');\n");
}
my $counted = 0;
foreach my $i (1 .. 20)
{
	wait_until("events come before TRUNCATE $i", sub
	{
		my $now = $node->safe_psql('postgres', 'SELECT coalesce(sum(events), 0) FROM once_fact');
		my $more = $now > $counted;

		$counted = $now;
		return $more;
	});
	$node->safe_psql('postgres', "TRUNCATE $once");
}
$node->safe_psql('postgres', 'UPDATE feeding SET goes_on = false');
$_->quit foreach @feeds;
is($node->safe_psql('postgres', q(
SELECT (SELECT sum(events) FROM once_fact) - (SELECT sum(events) FROM fed);
SELECT count(*) FROM fed;
) . check_sql('once')), "0\n2", 'every event counted, with TRUNCATEs meanwhile');

# The server crashes after all that.
kill_server($node);
$node->start;
is($node->safe_psql('postgres', qq(
SELECT revenue_sink.apply($event);
SELECT (SELECT sum(events) FROM once_fact) - (SELECT sum(events) FROM fed);
) . check_sql('once') . ';' . check_sql('s')), "duplicate\n0",
	'the answers and totals are right after a crash');

done_testing();
