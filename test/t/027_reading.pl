# What the worker does for readers: it merges many deltas in short transactions,
# and updates statistics.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

my $node = new_node('reading', conf => q(
revenue_sink.worker_interval = '50ms'
max_prepared_transactions = 10
autovacuum = off
));
create_sink($node, 'postgres');
my %table = map { $_ => sink_table($node, 'postgres', $_) } qw(delta total);

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# The SQL of a call with so many events, each in its own minute and group.
sub pay
{
	my ($label, $n) = @_;

	return qq(SELECT applied FROM (SELECT array_agg('$label' || i), array_agg('e'::text),
	array_agg('2024-03-01 10:00+00'::timestamptz + i % 100 * interval '1 minute'), array_agg(1.0), array_agg('g' || i / 100)
	FROM generate_series(1, $n) i) AS a (o, e, m, r, g), revenue_sink.apply('s', o, e, m, r, g));
}

sub rows_planned
{
	my ($which) = @_;

	return sql("SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = '$table{$which}'::regclass");
}

# An open merge keeps the worker's merges away, and deltas pile up.
my $merger = $node->background_psql('postgres');
$merger->query_safe("BEGIN; SELECT revenue_sink.merge('s')");
is(sql(pay('a', 100_000)), 100_000, 'events');
is(sql('SELECT unmerged_deltas FROM revenue_sink.stat_sink'), 100_000, 'the events are in deltas');
wait_until('the deltas are analyzed', sub { rows_planned('delta') > 90_000 });
pass('the planner knows of many deltas');
$merger->query_safe('COMMIT');
$merger->quit;

wait_until('they are merged', sub { sql('SELECT unmerged_deltas FROM revenue_sink.stat_sink') == 0 });
is(sql('SELECT sum(revenue), sum(events), count(*) FROM fact_revenue_1m'), '100000.0|100000|100000', 'all events are counted');
is(sql("SELECT count(DISTINCT xmin::text) >= 5, max(n) <= 20000 FROM (SELECT xmin, count(*) OVER (PARTITION BY xmin::text) AS n FROM $table{total}) AS t"),
	't|t', 'merged in several transactions, none of many rows');
wait_until('the deltas are analyzed again', sub { rows_planned('delta') < 1000 });
pass('the planner knows that few are left');
wait_until('the totals are analyzed', sub { rows_planned('total') > 90_000 });
pass('the planner knows of the totals');

# While somebody vacuums or analyzes, no session waits.
my $other = $node->background_psql('postgres');
$other->query_safe("BEGIN; LOCK TABLE $table{total} IN SHARE UPDATE EXCLUSIVE MODE; LOCK TABLE $table{delta} IN SHARE UPDATE EXCLUSIVE MODE");
is(sql(pay('b', 30_000)), 30_000, 'more events');
wait_until('they are merged', sub { sql('SELECT unmerged_deltas FROM revenue_sink.stat_sink') == 0 });
$other->query_safe('COMMIT');
$other->quit;
is(sql('SELECT sum(revenue), sum(events), count(*) FROM fact_revenue_1m'), '130000.0|130000|100000', 'all events are counted');

# A prepared transaction adds its deltas when it commits; the worker, which finds
# dead rows of a merge that can't be removed yet, lets some rounds go by.
sql('BEGIN; ' . pay('held', 50_000) . "; PREPARE TRANSACTION 'held'");
sql("COMMIT PREPARED 'held'");
wait_until('they are merged', sub { sql('SELECT unmerged_deltas FROM revenue_sink.stat_sink') == 0 });
is(sql('SELECT sum(revenue), sum(events), count(*) FROM fact_revenue_1m'), '180000.0|180000|100000', 'all events are counted');
is(sql("SELECT problem FROM revenue_sink.check('s')"), '', 'check() finds nothing');

done_testing();
