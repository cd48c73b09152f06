# Where many dead letters wait, stat_sink has their number and the oldest one from what
# the worker has counted and what has changed since: whatever was open meanwhile, whatever
# was inserted twice, and after a restore. And beside an open resolve() the worker removes
# no dead letter.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

my $node = new_node('letter_count', conf => q(
max_prepared_transactions = 10
revenue_sink.worker_interval = '1h'
));
create_sink($node, 'postgres', more => "dedup_window => '1 hour', on_bad_event => 'reject'");

sub sql
{
	my ($sql, $on) = @_;

	return ($on // $node)->safe_psql('postgres', $sql);
}

sub pay
{
	my ($id) = @_;

	return "SELECT revenue_sink.apply('s', 'o', '$id', '2024-03-01 09:00+00', 1);\n";
}

sub discard
{
	my ($where) = @_;

	return "SELECT revenue_sink.resolve('s', 'discard', array_agg(letter)) FROM revenue_sink.dead_letter WHERE sink = 's' AND $where;\n";
}

sub set
{
	my ($name, $value) = @_;

	sql($_) foreach "ALTER SYSTEM SET revenue_sink.$name = $value", 'SELECT pg_reload_conf()';
	return;
}

# What stat_sink shows, which must be what the view dead_letter has
sub waiting
{
	my ($shown, $there) = split /\n/, sql(q(
SELECT unresolved_letters, oldest_unresolved FROM revenue_sink.stat_sink WHERE sink = 's';
SELECT count(*), min(arrived_at) FROM revenue_sink.dead_letter WHERE sink = 's' AND resolution IS NULL;
));

	is($shown, $there, $_[0]);
	return $shown =~ s/\|.*//r;
}

# Let the worker count, though it has done so today
sub let_it_count
{
	sql("UPDATE revenue_sink.letter_count SET counted_at = now() - interval '25 hours' WHERE counted_at IS NOT NULL");
	set('worker_interval', "'50ms'");
	$node->poll_query_until('postgres', "SELECT revenue_sink.apply('s', 'look', 'e', '2024-03-01 12:00+00', 0) IS NOT NULL "
		  . "AND count(counted_at) = 1 AND count(*) = 1 AND max(counted_at) > now() - interval '1 hour' FROM revenue_sink.letter_count")
	  or die 'the worker does not count';
	set('worker_interval', "'1h'");
	# a round may be under way, which has the lock
	sql("SELECT revenue_sink.merge('s')");
	return;
}

sql("SELECT revenue_sink.apply('s', 'o', 'first', '2024-03-01 12:00+00', 1); SELECT revenue_sink.expire('s');");

# The oldest two arrive in transactions that stay open for long.
my $open = $node->background_psql('postgres');
$open->query_safe('BEGIN; ' . pay('open'));
sql('BEGIN; ' . pay('prepared') . "PREPARE TRANSACTION 'held'");
sql("SELECT a.late FROM (SELECT array_agg('crowd'::text), array_agg(i::text), array_agg('2024-03-01 09:00+00'::timestamptz), array_agg(1::numeric)"
	  . " FROM generate_series(1, 2000) i) AS e (o, e, t, a), revenue_sink.apply('s', e.o, e.e, e.t, e.a) AS a");
is(waiting('before the worker has counted'), 2000, 'so many wait');
let_it_count();
is(sql('SELECT letters FROM revenue_sink.letter_count'), 2000, 'the worker has counted');
is(waiting('once it has'), 2000, 'so many wait');

# What was open, and what comes and goes afterwards
sql("COMMIT PREPARED 'held'");
is(waiting('an older one is committed'), 2001, 'one more waits');
$open->query_safe('COMMIT');
$open->quit;
is(waiting('another one, which is the oldest'), 2002, 'two more wait');
sql(pay('new 1') . 'BEGIN;' . pay('new 2') . 'ROLLBACK;' . pay('new 3') . pay('new 3'));
is(waiting('new ones'), 2004, 'four more wait');
sql(discard("event_id IN ('open', 'new 1')"));
is(waiting('some are resolved, the oldest among them'), 2002, 'two fewer wait');
sql('BEGIN;' . discard("event_id = 'prepared'") . 'ROLLBACK');
is(waiting('not if that is rolled back'), 2002, 'as many wait');

# The same dead letter, inserted by two transactions at once, is one once the worker has
# counted again. So is one of an event that is resolved meanwhile.
$open = $node->background_psql('postgres');
$open->query_safe('BEGIN; ' . pay('twice') . pay('straggler'));
sql(pay('twice') . pay('straggler') . discard("event_id = 'straggler'"));
$open->query_safe('COMMIT');
$open->quit;
let_it_count();
is(waiting('what was inserted twice is counted once'), 2003, 'one more waits');

# A dump has no numbers, and needs none.
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
system_or_bail('pg_dump', '-d', $node->connstr('postgres'), '-Fc', '-f', $dump);
sql('CREATE DATABASE restored');
system_or_bail('pg_restore', '--exit-on-error', '-d', $node->connstr('restored'), $dump);
is($node->safe_psql('restored', 'SELECT (SELECT count(*) FROM revenue_sink.letter_count), unresolved_letters FROM revenue_sink.stat_sink'), '0|2003',
	'a restored sink counts for itself');

# Few are counted by whoever asks.
sql(discard("order_id = 'crowd' AND event_id::int > 10"));
is(waiting('nearly all are resolved'), 13, 'few wait');
sql(discard("resolution IS NULL"));
is(waiting('all are resolved'), 0, 'none waits');
set('worker_interval', "'50ms'");
$node->poll_query_until('postgres', "SELECT revenue_sink.apply('s', 'look', 'e', '2024-03-01 12:00+00', 0) IS NOT NULL "
	  . 'AND count(*) = 0 FROM revenue_sink.letter_count') or die 'the worker does not count';
is(waiting('the worker has counted none'), 0, 'none waits');

# ----------------------------------------------------------------------
# While somebody resolves a dead letter, the worker does not remove it. Another sink,
# whose dead letters it does remove, shows that it has come by.

sql("SELECT revenue_sink.create_sink('t', 't_fact', 't_events', on_bad_event => 'reject')");
sql(pay('in hand'));
my $resolving = $node->background_psql('postgres');
$resolving->query_safe("BEGIN; SELECT revenue_sink.resolve('s', 'count', array_agg(letter)) FROM revenue_sink.dead_letter WHERE event_id = 'in hand'");
sql("UPDATE revenue_sink.dead_letter_event SET arrived_at = now() - interval '30 days' WHERE event_id = 'in hand'");
set('unresolved_retention', 10);
foreach my $time (1, 2)
{
	sql("SELECT revenue_sink.apply('t', 'o', '', '2024-03-01 12:00+00', 1)");
	sql("UPDATE revenue_sink.dead_letter_event SET arrived_at = now() - interval '30 days' WHERE event_id = '' AND sink_id > 0");
	$node->poll_query_until('postgres', "SELECT revenue_sink.apply(s, 'look', 'e', '2024-03-01 12:00+00', 0) IS NOT NULL "
		  . "AND NOT EXISTS (SELECT FROM revenue_sink.dead_letter WHERE sink = 't') FROM unnest('{s,t}'::text[]) s WHERE s = 't'")
	  or die 'the worker removes nothing';
}
is(sql("SELECT count(*) FROM revenue_sink.dead_letter WHERE event_id = 'in hand'"), 1, 'a dead letter that is being resolved stays');
$resolving->query_safe('COMMIT');
$resolving->quit;
is(sql("SELECT resolution FROM revenue_sink.dead_letter WHERE event_id = 'in hand'"), 'count', 'and is resolved');
is(sql("SELECT sum(revenue) FROM fact_revenue_1m WHERE minute = '2024-03-01 09:00+00'"), 1, 'its amount counts');
is(sql("SELECT problem FROM revenue_sink.check('s')"), '', 'check()');

sql("SELECT revenue_sink.drop_sink('s'); SELECT revenue_sink.drop_sink('t')");
is(sql('SELECT count(*) FROM revenue_sink.letter_count'), 0, 'nothing is left of a sink that is dropped');

done_testing();
