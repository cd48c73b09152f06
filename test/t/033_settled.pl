# What was deferred is settled once, and its answer shows in the view settled: with a
# kill -9 at each step of settling, or at any moment while a program learns from the
# view which of its events count, on a standby, and after the standby has taken over.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RevenueSink;
use TwoPhase;
use Test::More;

my $module = build_module('stop_at');
plan skip_all => 'needs a compiler and the headers of the server' unless $module;

my $random = RevenueSink::Random->new($ENV{RSINK_SEED} || 1);
my $node = new_node('settled', streaming => 1, conf => q(
max_prepared_transactions = 50
revenue_sink.worker_interval = '1h'
));
create_sink($node, 'postgres');

# The statements of docs/processors.md. The table "copy" has each copy that was ever
# deferred.
$node->safe_psql('postgres', q(
CREATE TABLE payment (event_id text PRIMARY KEY, amount numeric);
CREATE TABLE waiting (event_id text, amount numeric);
CREATE TABLE copy (event_id text);
CREATE FUNCTION send(ids text[], amounts numeric[]) RETURNS text LANGUAGE sql AS $$
	WITH event AS MATERIALIZED (
			SELECT * FROM unnest(ids, amounts, revenue_sink.apply_each('s', array_fill('o'::text, ARRAY[cardinality(ids)]), ids,
				array_fill('2024-03-01 10:01+00'::timestamptz, ARRAY[cardinality(ids)]), amounts)) AS e (event_id, amount, answer)),
		accepted AS (INSERT INTO payment SELECT event_id, amount FROM event WHERE answer = 'applied'),
		deferred AS (INSERT INTO waiting SELECT event_id, amount FROM event WHERE answer = 'deferred'),
		copied AS (INSERT INTO copy SELECT event_id FROM event WHERE answer = 'deferred')
	SELECT string_agg(answer, ' ') FROM event $$;
CREATE FUNCTION run_loop() RETURNS bigint LANGUAGE sql AS $$
	WITH ended AS (
			DELETE FROM waiting w
			WHERE NOT EXISTS (SELECT FROM revenue_sink.deferred d WHERE d.sink = 's' AND d.event_id = w.event_id)
			RETURNING w.*, CASE
				WHEN (w.event_id, w.amount) IN (SELECT l.event_id, l.amount FROM revenue_sink.dead_letter l
					WHERE l.sink = 's' AND l.reason = 'conflict') THEN 'conflict'
				ELSE (SELECT min(s.answer) FROM revenue_sink.settled s
					WHERE s.sink = 's' AND s.event_id = w.event_id AND s.answer <> 'conflict')
				END AS answer),
		accepted AS (INSERT INTO payment SELECT event_id, amount FROM ended WHERE answer = 'applied' ON CONFLICT DO NOTHING)
	SELECT count(*) FROM ended $$));

sub sql
{
	my ($sql, $where) = @_;

	return ($where // $node)->safe_psql('postgres', $sql);
}

sub wait_for_settled
{
	my ($where) = @_;

	return wait_until('all is settled', sub { sql('SELECT count(*) FROM revenue_sink.deferred', $where) eq '0' });
}

# Prepare a transaction with these events, and send a copy of each. Returns the
# answers to the copies.
sub hold
{
	my ($gid, $ids, $amounts, $where) = @_;

	return sql("BEGIN; SELECT send('$ids', '$amounts') \\g /dev/null\nPREPARE TRANSACTION '$gid'; SELECT send('$ids', '$amounts')", $where);
}

sub answers_to
{
	my ($ids, $where) = @_;

	return sql("SELECT event_id, answer FROM revenue_sink.settled WHERE event_id = ANY ('$ids') ORDER BY 1, 2", $where);
}

# The program's table has each event that counts once, and no other.
sub is_right
{
	my ($name, $where) = @_;

	wait_for_settled($where);
	sql('SELECT run_loop()', $where);
	is(sql('SELECT count(*) FROM waiting', $where), '0', "$name: nothing waits any more");
	is(sql('SELECT count(*), sum(amount) FROM payment', $where), sql('SELECT sum(events), sum(revenue) FROM fact_revenue_1m', $where),
		"$name: the program's table has what counts");
	is(sql("SELECT event_id FROM payment WHERE NOT revenue_sink.seen('s', 'o', event_id)", $where), '', "$name: and no other event");
	is(sql("SELECT coalesce(c.event_id, s.event_id), c.n, s.n FROM (SELECT event_id, count(*) AS n FROM copy GROUP BY 1) c
FULL JOIN (SELECT event_id, count(*) AS n FROM revenue_sink.settled GROUP BY 1) s USING (event_id) WHERE c.n IS DISTINCT FROM s.n", $where),
		'', "$name: each copy that was deferred has one answer");
	is(sql("SELECT problem FROM revenue_sink.check('s')", $where), '', "$name: check() finds nothing");
	return;
}

# ----------------------------------------------------------------------
# The server dies right before settling commits, and right after.

foreach my $step (1, 2)
{
	my $name = "step $step";

	is(hold("commits $step", "{c$step,d$step}", '{1,2}'), 'deferred deferred', "$name: copies are deferred");
	is(hold("rolls back $step", "{r$step,s$step}", '{4,8}'), 'deferred deferred', "$name: more copies are deferred");
	sql("COMMIT PREPARED 'commits $step'; ROLLBACK PREPARED 'rolls back $step'");
	my $call = start_call($node, 'postgres', $module, $step, "SELECT revenue_sink.merge('s');");
	ok(halts($call), "$name: merge() halts");
	is(answers_to("{c$step,r$step}"), $step == 1 ? '' : "c$step|duplicate\nr$step|applied",
		"$name: the answers show if settling has committed");
	kill_server($node);
	finish_call($call);
	$node->start;
	is_right($name);
	is(answers_to("{c$step,d$step,r$step,s$step}"), "c$step|duplicate\nd$step|duplicate\nr$step|applied\ns$step|applied",
		"$name: the answers are right after the crash");
}

# ----------------------------------------------------------------------
# The server dies at any moment, while the worker settles and the loop runs.

$node->adjust_conf('postgresql.conf', 'revenue_sink.worker_interval', "'10ms'");
$node->reload;
foreach my $round (1 .. 6)
{
	my $loop = IPC::Run::start([ 'psql', '-Xq', '-d', $node->connstr('postgres'), '-c', 'SELECT 1', '-f', '-' ],
		'<', \"SELECT run_loop() \\watch 0.01\n", '>', \my $out, '2>', \my $err);
	my @gids = map { "round $round $_" } 1 .. 8;
	my $kill = $random->below(8);

	foreach my $i (0 .. 7)
	{
		my $events = "SELECT array_agg('e$round-$i-' || i) FROM generate_series(1, 50) i";
		my $amounts = "SELECT array_agg(i + 0.5) FROM generate_series(1, 50) i";

		# copies come while the transaction is open, prepared or at an end already
		sql("BEGIN; SELECT send(($events), ($amounts)) \\g /dev/null\nPREPARE TRANSACTION '$gids[$i]'");
		sql("SELECT send(($events), ($amounts))");
		sql("SELECT send(($events), (SELECT array_agg(i + 1.5) FROM generate_series(1, 50) i))") if $i % 3 == 0;
		sql(($random->below(2) ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$gids[ $i - 1 ]'") if $i > 0;
		last if $i == $kill;
	}
	kill_server($node);
	$loop->finish;
	$node->start;
	foreach my $gid (split /\n/, sql('SELECT gid FROM pg_prepared_xacts'))
	{
		sql(($random->below(2) ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$gid'");
	}
	is_right("round $round");
}
cmp_ok(sql("SELECT count(*) FROM revenue_sink.settled WHERE answer = '$_'"), '>', 0, "there was an answer '$_'")
  foreach qw(applied duplicate conflict);

# ----------------------------------------------------------------------
# A standby shows the answers, and goes on with what is deferred when it takes over.

$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
is(hold('before', '{before}', '{16}'), 'deferred', 'a copy is deferred on the primary');
sql("COMMIT PREPARED 'before'");
wait_for_settled();
is(hold('beyond', '{beyond,above}', '{32,64}'), 'deferred deferred', 'copies are deferred, and stay so');
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
my $rows = 'SELECT * FROM revenue_sink.settled ORDER BY event_id, answer, settled_at';
is(sql($rows, $standby), sql($rows), 'the standby shows the same answers');
like(error_of($standby, 'postgres', "SELECT revenue_sink.apply_each('s', ARRAY['o'], ARRAY['e'], '{2024-03-01 10:01+00}', '{1}')"),
	qr/ERROR:  25006: cannot execute apply_each\(\) /, 'apply_each() is refused on the standby');
kill_server($node);
$standby->promote;
is(answers_to('{before,beyond,above}', $standby), 'before|duplicate', 'what waits has no answer after the promotion');
sql("ROLLBACK PREPARED 'beyond'", $standby);
is_right('new primary', $standby);
is(answers_to('{before,beyond,above}', $standby), "above|applied\nbefore|duplicate\nbeyond|applied",
	'the new primary settles what was deferred on the old one');

done_testing();
