# There are more events than the memory holds: calls are slower, but never wrong,
# and never an error.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

my $events = 240_000;    # 16 bytes or so each, of 2 MB and then of 1 MB

my $node = new_node('memory', conf => q(
revenue_sink.dedup_memory = '2MB'
revenue_sink.worker_interval = '100ms'
));
create_sink($node, 'postgres');

# The kernel, if it can be asked for huge pages, has been asked for them.
SKIP:
{
	my $pid = (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
	my $maps = eval { slurp_file("/proc/$pid/smaps") } // '';

	skip 'this system has no huge pages for memory that is advised', 1
	  if !-e '/sys/kernel/mm/transparent_hugepage' || $maps !~ /^VmFlags:/m;
	like($maps, qr/^VmFlags:.* hg\b/m, 'huge pages are advised');
}

# Apply the events from .. to in calls of 10,000; returns the counts of all calls.
$node->safe_psql('postgres', q(
CREATE FUNCTION feed(from_id int, to_id int) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws('|', sum((r).applied), sum((r).duplicate), sum((r).deferred),
		sum((r).conflict), sum((r).late), sum((r).rejected))
	FROM (
		SELECT revenue_sink.apply('s', array_agg('order-' || i / 3), array_agg('evt-' || i),
			array_agg('2024-03-01 10:00+00'::timestamptz + i % 600 * interval '1 second'),
			array_agg((i % 1000) / 100.0)) AS r
		FROM generate_series(from_id, to_id - 1) i
		GROUP BY i / 10000 OFFSET 0) calls
$$;
CREATE FUNCTION total() RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws('|', sum(events), round(sum(revenue), 2)) FROM fact_revenue_1m
$$));

sub feed
{
	my ($from, $to) = @_;

	return $node->safe_psql('postgres', "SELECT feed($from, $to)");
}

# The true totals of events 0 .. n - 1, as total() gives them.
sub truth
{
	my ($n) = @_;
	my $cents = 0;

	$cents += $_ % 1000 foreach (0 .. $n - 1);
	my $revenue = sprintf('%d.%02d', $cents / 100, $cents % 100);
	return "$n|$revenue";
}

sub state_is
{
	my ($n, $name) = @_;

	is($node->safe_psql('postgres', 'SELECT total()'), truth($n),
		"$name: totals are right");
	is($node->safe_psql('postgres', q(SELECT problem FROM revenue_sink.check('s'))),
		'', "$name: check() finds nothing");
	return;
}

is(feed(0, $events), "$events|0|0|0|0|0", 'all events are applied');
state_is($events, 'first run');
cmp_ok($node->safe_psql('postgres',
	'SELECT seen_bytes_memory FROM revenue_sink.stat_sink'),
	'<=', 2 * 1024 * 1024, 'memory is bounded');
is(feed(0, $events), "0|$events|0|0|0|0", 'replay: all events are duplicates');

# A big transaction is rolled back; another one commits.
my $more = $events + 100_000;
is($node->safe_psql('postgres', qq(
BEGIN;
SELECT feed($events - 10000, $more);
SELECT feed($events, $more);
ROLLBACK;
SELECT total())), "100000|10000|0|0|0|0\n0|100000|0|0|0|0\n" . truth($events),
	'a big transaction that is rolled back');
is($node->safe_psql('postgres', qq(
BEGIN;
SELECT feed($events, $more - 50000);
SAVEPOINT s;
SELECT feed($events, $more);
ROLLBACK TO s;
SELECT feed($events + 40000, $more);
COMMIT)), "50000|0|0|0|0|0\n50000|50000|0|0|0|0\n50000|10000|0|0|0|0",
	'a big transaction with a savepoint, committed');
state_is($more, 'big transaction');

# After a crash the index is rebuilt; then the memory is halved.
kill_server($node);
$node->start;
is(feed(0, $more), "0|$more|0|0|0|0", 'after a crash: all events are duplicates');
state_is($more, 'after a crash');

$node->stop('immediate');
$node->append_conf('postgresql.conf', q(revenue_sink.dedup_memory = '1MB'));
$node->start;
is($node->safe_psql('postgres', 'SHOW revenue_sink.dedup_memory'), '1MB', 'less memory');
is(feed(0, $more), "0|$more|0|0|0|0", 'with less memory: all events are duplicates');
is(feed($more - 5000, $more + 15000), '15000|5000|0|0|0|0', 'with less memory: new events are applied');
state_is($more + 15000, 'with less memory');

# Two sinks share the memory.
$node->safe_psql('postgres', q(
SELECT revenue_sink.create_sink('t', 't_fact', 't_events')));
my $other = q(
SELECT r.applied, r.duplicate
FROM (SELECT array_agg('o' || i) AS o, array_agg('e' || i) AS e,
		array_agg('2024-03-01 10:00+00'::timestamptz) AS t, array_agg(1.0) AS a
	FROM generate_series(1, 50000) i) given, revenue_sink.apply('t', o, e, t, a) r);
is($node->safe_psql('postgres', "$other; $other"), "50000|0\n0|50000",
	'a second sink works without memory');
is($node->safe_psql('postgres', q(SELECT problem FROM revenue_sink.check('t'))), '',
	'check() finds nothing in the second sink');
is(feed(0, 20000), '0|20000|0|0|0|0', 'the first sink still knows its events');

# The page table gets a new file while the worker is about to settle deferred
# events: the worker builds the index itself, since nobody else can, and then
# settles.
my $seen   = $node->safe_psql('postgres', q(SELECT 'revenue_sink.seen_' || id FROM revenue_sink.sink_catalog WHERE name = 't'));
my $holder = $node->background_psql('postgres');
$holder->query_safe(q(BEGIN; SELECT revenue_sink.apply('t', 'held', 'e', '2024-03-01 10:00+00', 1)));
is($node->safe_psql('postgres', q(SELECT revenue_sink.apply('t', 'held', 'e', '2024-03-01 10:00+00', 1))), 'deferred',
	'an event is deferred');
my $rewriter = $node->background_psql('postgres');
$rewriter->query_until(qr/begun/, "\\echo begun\nVACUUM FULL $seen;\n");
wait_until('the worker waits behind VACUUM FULL', sub { $node->safe_psql('postgres', q(
SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'revenue_sink worker' AND wait_event_type = 'Lock')) eq '1' });
$holder->query_safe('COMMIT');
$holder->quit;
is($node->safe_psql('postgres', q(SET statement_timeout = '60s';
SELECT revenue_sink.apply('t', 'held', 'e', '2024-03-01 10:00+00', 1))), 'duplicate', 'writers go on');
$rewriter->quit;
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM revenue_sink.deferred'), 'the deferred event is settled');
is($node->safe_psql('postgres', q(SELECT problem FROM revenue_sink.check('t'))), '', 'check() finds nothing');

# No worker is there to seal anything, so page rows are kept without entries in the index.
$node->append_conf('postgresql.conf', 'max_worker_processes = 0');
$node->restart;
is(feed($more + 15000, $more + 115000), '100000|0|0|0|0|0', 'without a worker: new events are applied');
$more += 115_000;
is($node->safe_psql('postgres', q(SELECT index_state FROM revenue_sink.stat_sink WHERE sink = 's')), 'overflowed',
	'without a worker: the memory is used up');
is(feed(0, $more), "0|$more|0|0|0|0", 'without a worker: all events are duplicates');
is($node->safe_psql('postgres', "BEGIN; SELECT feed($more, $more + 20000); ROLLBACK; SELECT feed($more, $more + 20000)"),
	"20000|0|0|0|0|0\n20000|0|0|0|0|0", 'without a worker: a rollback');
$more += 20_000;
kill_server($node);
$node->start;
is(feed(0, $more), "0|$more|0|0|0|0", 'without a worker, after a crash: all events are duplicates');
state_is($more, 'without a worker');

# A writer has asked all rows that there are, and must then wait for a table, since it
# has met an event that is unfinished. Meanwhile another writer applies the call's other
# events, unless the first one was so quick as to claim one of them before.
sub call
{
	my ($ids) = @_;

	return qq(SELECT concat_ws('|', r.applied, r.duplicate, r.deferred) FROM (
	SELECT array_agg('order-' || i) AS o, array_agg('w'::text) AS e, array_agg('2024-03-01 10:00+00'::timestamptz) AS t,
		array_agg(0.0) AS a FROM ($ids) AS _(i)) given, revenue_sink.apply('s', o, e, t, a) r);
}
my $unfinished = 'SELECT generate_series(1, 20000)';
my $locker = $node->background_psql('postgres');
my ($answer, $new);
$holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN; ' . call($unfinished));
foreach my $try (1 .. 10)
{
	my $writer = $node->background_psql('postgres');

	$new = 'SELECT generate_series(1, 100) + ' . $try * 100_000;
	$locker->query_safe('BEGIN; LOCK TABLE revenue_sink.deferred_event IN SHARE MODE');
	$writer->query_until(qr/sent/, "\\echo sent\nBEGIN; " . call("$unfinished UNION ALL $new") . ";\n");
	wait_until('the writer waits for the table', sub { $node->safe_psql('postgres', q(
SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'revenue_sink.deferred_event'::regclass)) eq '1' });
	(undef, my $applied) = $node->psql('postgres', q(SET lock_timeout = '1s'; ) . call($new));
	$locker->query_safe('ROLLBACK');
	$answer = $writer->query_safe('SELECT 1');
	$writer->query_safe('ROLLBACK');
	$writer->quit;
	last if $applied eq '100|0|0';
}
like($answer, qr/^0\|100\|20000$/m, 'events that came into rows meanwhile are duplicates');
$holder->query_safe('ROLLBACK');
$_->quit foreach $holder, $locker;
$more += 100;

# The memory is increased again.
$node->append_conf('postgresql.conf', q(revenue_sink.dedup_memory = '32MB'
max_worker_processes = 8));
$node->restart;
is($node->safe_psql('postgres', 'SELECT sum(events) FROM fact_revenue_1m'), $more, 'with more memory: each event counts once');

done_testing();
