# A sink is dumped and restored, and goes on.
#
# All state is in tables, so pg_dump takes it along: a restored database knows the
# earlier events and the offsets to continue from, whatever the format and however
# odd the names, and a dump taken in mid-stream is as good as any.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

my $seed = $ENV{RSINK_SEED} || 1;

my $writer_binary = build_client('writer');
plan skip_all => 'no C compiler' unless $writer_binary;

my $node = new_node('dump');
create_sink($node, 'postgres');

# A second sink has names that need quotes everywhere.
my $odd_fact   = q("Odd ""Schema"""."Fact 'x' View");
my $odd_ingest = q("Odd ""Schema"""."order.events; --");
my $odd_sink   = q(a "sink"; it''s $$odd$$ \\ %s);
$node->safe_psql('postgres', qq(
CREATE SCHEMA "Odd ""Schema""";
SELECT revenue_sink.create_sink('$odd_sink', \$v\$$odd_fact\$v\$, \$v\$$odd_ingest\$v\$,
	bucket => '1 hour', dedup_window => '2 days', late_policy => 'apply',
	on_bad_event => 'reject');
INSERT INTO $odd_ingest VALUES ('o', 'e-1', '2024-03-01 10:01+00', 40, 'g'),
	('o', 'e-2', '2024-03-01 10:02+00', 25, 'g');
SELECT revenue_sink.merge('$odd_sink');
INSERT INTO $odd_ingest VALUES ('o', 'e-3', '2024-03-01 11:01+00', 1.5, 'h'),
	('o', 'e-1', '2024-03-01 10:01+00', 41, 'g'), ('', 'e-4', '2024-03-01 10:01+00', 1, 'g');
-- mode totals
SELECT revenue_sink.create_sink('totals', 'totals_fact', 'totals_in', mode => 'totals');
SELECT revenue_sink.upsert('totals', '{2024-03-01 10:01+00}', '{65}', NULL, 3);
));

# A writer's batch, which is begun again after the restore.
my $epoch = $node->safe_psql('postgres',
	qq(CALL revenue_sink.open_writer('$odd_sink', 'job', 'writer')));
my $begin = "SELECT revenue_sink.begin_batch('$odd_sink', 'job', 'writer', $epoch, 7)";
$node->safe_psql('postgres', qq(
BEGIN;
$begin;
SELECT revenue_sink.store_offsets('$odd_sink', 'orders', '{0,1}', '{10,20}');
COMMIT));

# The dumps are taken while writers are at work on the first sink.
my $streams = RevenueSink::Streams->new(seed => $seed, writers => 2);
my $load    = RevenueSink::Load->new(
	seed    => $seed,
	binary  => $writer_binary,
	connstr => $node->connstr('postgres'),
	streams => $streams);
my $dir   = PostgreSQL::Test::Utils::tempdir();
my %dumps = (
	plain  => [ 'pg_dump', '-d', $node->connstr('postgres'), '-Fp', '-f', "$dir/plain" ],
	custom => [ 'pg_dump', '-d', $node->connstr('postgres'), '-Fc', '-f', "$dir/custom" ]);
my $end  = $streams->grow(60);
my $done = 0;

$load->start_all($end);
$load->run(sub {
	my (undef, undef, $step) = @_;

	return unless $step eq 'done';
	$done++;
	system_or_bail(@{ $dumps{custom} }) if $done == 10;
	system_or_bail(@{ $dumps{plain} }) if $done == 20;
});
ok($done > 20, 'the dumps were taken in mid-stream');

foreach my $format (sort keys %dumps)
{
	my $db    = "restored $format";
	my $into  = $node->connstr($db);
	my $quiet = 'SET client_min_messages = warning;';

	$node->safe_psql('postgres', qq(CREATE DATABASE "$db"));
	command_ok($format eq 'plain'
		? [ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $into, '-f', "$dir/plain" ]
		: [ 'pg_restore', '--exit-on-error', '-d', $into, "$dir/custom" ],
		"$format: restored without an error");

	# The sink with the odd names
	my $look = qq(SELECT minute AT TIME ZONE 'UTC', group_key, revenue, events
		FROM $odd_fact ORDER BY 1, 2);
	is($node->safe_psql($db, $look), $node->safe_psql('postgres', $look),
		"$format: the fact view is the same");
	is($node->safe_psql($db, qq(
SELECT * FROM revenue_sink.apply('$odd_sink', ARRAY['o', 'o', 'o', 'o'], '{e-1,e-2,e-3,e-9}',
	'{2024-03-01 10:01+00,2024-03-01 10:02+00,2024-03-01 11:01+00,2024-03-01 11:02+00}',
	'{40,25,1.5,8}', '{g,g,h,h}'))), '1|3|0|0|0|0',
		"$format: earlier events are duplicates, a new one is applied");
	is($node->safe_psql($db, qq(
SELECT sum(revenue), sum(events) FROM $odd_fact;
SELECT reason, count(*) FROM revenue_sink.dead_letter
GROUP BY reason ORDER BY reason;
SELECT * FROM revenue_sink.offsets('$odd_sink') ORDER BY 1, 2)),
		"74.5|4\nconflict|1\norder_id is empty|1\norders|0|10\norders|1|20",
		"$format: counts, dead letters and offsets are right");
	is($node->safe_psql($db, "BEGIN; $begin; COMMIT"), 'f',
		"$format: the earlier batch is known");
	cmp_ok($node->safe_psql($db, "CALL revenue_sink.open_writer('$odd_sink', 'job', 'writer')"),
		'>', $epoch, "$format: epochs go on");
	is($node->safe_psql($db, q(
SELECT revenue_sink.upsert('totals', '{2024-03-01 10:01+00}', '{64}', NULL, 2);
SELECT revenue FROM totals_fact)) =~ s/.*\n//r, '65', "$format: totals keep their version");

	# The settings of the sinks came along.
	is($node->safe_psql($db, 'SELECT * FROM revenue_sink.sink ORDER BY sink'),
		$node->safe_psql('postgres', 'SELECT * FROM revenue_sink.sink ORDER BY sink'),
		"$format: the sinks are the same");

	# The stream continues in the restored database, from its offsets.
	$load->{connstr} = $into;
	$load->start_all($end);
	$load->run;
	is(differences($node, $db, truth => $streams->truth), '',
		"$format: the stream's totals are right");

	# A new sink is made beside the restored ones, and the odd one is dropped.
	is($node->safe_psql($db, qq($quiet
SELECT revenue_sink.create_sink('late', 'late_fact', 'late_events');
SELECT revenue_sink.apply('late', 'o', 'e-1', '2024-03-01 10:01+00', 40);
SELECT problem FROM revenue_sink.check('late');
SELECT problem FROM revenue_sink.check('$odd_sink');
SELECT revenue_sink.drop_sink('$odd_sink');
SELECT count(*) FROM pg_class WHERE relnamespace = '"Odd ""Schema"""'::regnamespace)),
		"\napplied\n\n0", "$format: a sink is made, and the odd one is dropped");
	is(differences($node, $db, truth => $streams->truth), '',
		"$format: the other sinks are unchanged");
}

# The extension is dropped, and comes back empty.
my $db = 'restored plain';
$node->safe_psql($db, q(
SET client_min_messages = warning;
DROP EXTENSION revenue_sink CASCADE));
is($node->safe_psql($db, q(
SELECT count(*) FROM pg_class WHERE relname IN ('fact_revenue_1m', 'order_events');
SELECT count(*) FROM pg_namespace WHERE nspname = 'revenue_sink')), "0\n0",
	'DROP EXTENSION leaves nothing behind');
create_sink($node, $db);
is($node->safe_psql($db, q(
SELECT revenue_sink.apply('s', 'o', 'e-1', '2024-03-01 10:01+00', 40);
SELECT revenue_sink.apply('s', 'o', 'e-1', '2024-03-01 10:01+00', 40);
SELECT sum(revenue), sum(events) FROM fact_revenue_1m;
SELECT problem FROM revenue_sink.check('s'))), "applied\nduplicate\n40|1",
	'the extension is back, and a new sink knows no earlier events');

done_testing();
