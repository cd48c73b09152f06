# One call, or transactions that are held, have many times the events for which the
# index has memory: answers are right while that lasts, through crashes, and
# afterwards.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

# An index has room for some 40,000 events.
my $node = new_node('overflow', conf => q(
revenue_sink.dedup_memory = '1MB'
revenue_sink.worker_interval = '50ms'
max_prepared_transactions = 10
));
create_sink($node, 'postgres');

# The SQL of one call with the events from .. to; its result are the counts of applied,
# duplicate, deferred and conflict.
sub call
{
	my ($from, $to, $amount) = @_;

	$amount //= 1;
	return qq(SELECT concat_ws('|', applied, duplicate, deferred, conflict) FROM (
	SELECT array_agg('o' || i / 3), array_agg('e' || i), array_agg('2024-03-01 10:00+00'::timestamptz + i / 1000 * interval '1 second'),
		array_agg($amount\::numeric) FROM generate_series($from, $to - 1) i) AS a (o, e, t, m), revenue_sink.apply('s', o, e, t, m));
}

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

sub is_whole
{
	my ($n, $name) = @_;

	is(sql(call(0, $n)), "0|$n|0|0", "$name: all events are duplicates");
	is(sql('SELECT sum(events), sum(revenue) FROM fact_revenue_1m'), "$n|$n", "$name: each event counts once");
	is(sql(q(SELECT problem FROM revenue_sink.check('s'))), '', "$name: check() finds nothing");
	return;
}

my $overflowed = q(SELECT index_state = 'overflowed' FROM revenue_sink.stat_sink);

# One call, which a crash cuts off before it can commit, and the same call again
my $n = 300_000;
my $writer = $node->background_psql('postgres', on_error_stop => 0);
$writer->query_until(qr/sent/, "\\echo sent\nBEGIN; " . call(0, $n) . ";\n");
wait_until('the index is full', sub { sql($overflowed) eq 't' });
kill_server($node);
$writer->{run}->kill_kill;
$node->start;
is(sql(call(0, $n)), "$n|0|0|0", 'one call: all events are applied');
is(sql(call(0, $n)), "0|$n|0|0", 'one call: all events are duplicates');
is(sql(call($n - 1000, $n + 1000)), '1000|1000|0|0', 'one call: old and new events');
is(sql(call(0, 1000, 2)), '0|0|0|1000', 'one call: conflicts are found');
$n += 1000;
kill_server($node);
$node->start;
is_whole($n, 'one call, after a crash');
ok($node->poll_query_until('postgres', q(SELECT index_state = 'built' FROM revenue_sink.stat_sink)), 'one call: its events are sealed');
is_whole($n, 'one call, sealed');

# The same, rolled back
is(sql('BEGIN; ' . call($n, $n + 100_000) . '; ROLLBACK'), '100000|0|0|0', 'a call that is rolled back');
is(sql(call($n, $n + 100_000)), '100000|0|0|0', 'the call again');
$n += 100_000;
is_whole($n, 'after a rollback');

# Batches are held, and are unfinished across a crash.
foreach my $batch (0 .. 2)
{
	my $from = $n + $batch * 60_000;

	sql('BEGIN; ' . join('; ', map { call($from + $_ * 10_000, $from + ($_ + 1) * 10_000) } 0 .. 5) . "; PREPARE TRANSACTION 'b$batch'");
}
is(sql($overflowed), 't', 'batches are held: the index is full');
is(sql(call($n, $n + 180_000)), '0|0|180000|0', 'batches are held: their events are deferred');
sql('DELETE FROM revenue_sink.deferred_event WHERE sink_id > 0');
kill_server($node);
$node->start;
is(sql(call($n + 59_000, $n + 61_000)), '0|0|2000|0', 'batches are held, after a crash: their events are deferred');
is(sql(call(0, 20_000)), '0|20000|0|0', 'batches are held: older events are duplicates');
is(sql(call($n + 180_000, $n + 190_000)), '10000|0|0|0', 'batches are held: new events are applied');
sql("COMMIT PREPARED 'b0'");
sql("ROLLBACK PREPARED 'b1'");
sql("COMMIT PREPARED 'b2'");
wait_until('deferred events are settled', sub { sql('SELECT count(*) FROM revenue_sink.deferred') eq '0' });
is(sql(call($n, $n + 190_000)), '59000|131000|0|0', 'the batch that was rolled back is delivered again');
$n += 190_000;
is_whole($n, 'batches are finished');
ok($node->poll_query_until('postgres', q(SELECT index_state = 'built' FROM revenue_sink.stat_sink)), 'their events are sealed');
is_whole($n, 'batches are sealed');

# While there is no worker, calls of one event are applied until no memory is left. Each of
# them takes 24 bytes then, and nearly all memory is for that. What was applied stays so. The
# server comes back with less memory, which has no room for all of that: the worker makes room.
sql(q(CREATE PROCEDURE one_by_one(INOUT next int) LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		BEGIN
			PERFORM revenue_sink.apply('s', 'o' || next / 3, 'e' || next, '2024-03-01 10:00+00'::timestamptz + next / 1000 * interval '1 second', 1);
		EXCEPTION WHEN configuration_limit_exceeded THEN
			RETURN;
		END;
		COMMIT;
		next := next + 1;
	END LOOP;
END $$));
$node->append_conf('postgresql.conf', "max_worker_processes = 0\nrevenue_sink.dedup_memory = '2MB'");
$node->restart;
is(sql(call($n, $n + 100_000)), '100000|0|0|0', 'no worker: a large call is applied');
$n += 100_000;
my $last = sql("CALL one_by_one($n)");
cmp_ok($last - $n, '>', 80_000, 'no worker: so many calls of one event are applied');
$n = $last;
my ($ret, undef, $stderr) = $node->psql('postgres', call($n, $n + 1));
like($stderr, qr/ERROR:  the events of sink "s" do not fit in memory/, 'no memory is left: an error says so');
is(sql(call($n - 1000, $n)), '0|1000|0|0', 'no memory is left: what was applied is a duplicate');
$node->append_conf('postgresql.conf', "max_worker_processes = 8\nrevenue_sink.dedup_memory = '1MB'");
$node->restart;
wait_until('there is memory again', sub { $node->psql('postgres', call($n, $n + 1)) == 0 });
$n++;
is_whole($n, 'with a worker again, and less memory');

done_testing();
