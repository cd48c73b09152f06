# What is looked up must be read from a slow disk, as after a restart: nobody
# else waits for that, and it can be cancelled.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

my $library = build_client('slow_disk', '-shared', '-fPIC', '-ldl');
plan skip_all => 'no compiler here' unless defined $library;

my $events = 120_000;
my $step   = 1200;
my $some   = $events / $step;
my $node   = new_node('slow', conf => q(
shared_buffers = 4MB
revenue_sink.worker_interval = '100ms'
revenue_sink.dedup_memory = '4MB'
));
create_sink($node, 'postgres');

# Some of the events in one call, each step-th.
sub apply
{
	my ($from, $by) = @_;

	return qq(SELECT r.applied, r.duplicate FROM (
	SELECT array_agg('order-' || i / 3) AS o, array_agg('evt-' || i) AS e,
		array_agg('2024-03-01 10:00+00'::timestamptz + i % 600 * interval '1 second') AS t,
		array_agg(1.0) AS a
	FROM generate_series($from, $events - 1, $by) i) given, revenue_sink.apply('s', o, e, t, a) r);
}

# With another memory, and nothing in the server's buffers but what the build of
# the index and a table that fills them leave there. Then one table is slow.
my $slow_files = PostgreSQL::Test::Utils::tempdir() . '/slow_files';

sub restart
{
	my ($memory, $slow) = @_;
	my $file = '/' . $node->safe_psql('postgres',
		"SELECT pg_relation_filepath('" . sink_table($node, 'postgres', $slow) . "')");

	unlink $slow_files;
	$node->append_conf('postgresql.conf', "revenue_sink.dedup_memory = '$memory'");
	$node->stop('immediate');
	{
		local $ENV{LD_PRELOAD} = $library;
		local $ENV{SLOW_DISK}  = $slow_files;
		$node->start;
	}
	is($node->safe_psql('postgres', apply(0, $step)), "0|$some", "$memory: duplicates");
	$node->safe_psql('postgres', 'UPDATE filler SET n = n + 1');
	append_to_file($slow_files, "$file\n");
	return;
}

# Cut off amid its reading.
sub is_cut_off
{
	my ($name) = @_;
	my ($ret, $stdout, $stderr) = $node->psql('postgres',
		"SET statement_timeout = '300ms';\n\\timing on\n" . apply(1, $step));

	like($stderr, qr/statement timeout/, "$name: a replay is cancelled");
	my ($took) = $stdout =~ /Time: ([0-9.]+)/;
	cmp_ok($took, '<', 2000, "$name: soon");
	return;
}

# While one reads what a replay needs, others apply events of theirs.
sub others_go_on
{
	my ($name) = @_;
	my $replay = $node->background_psql('postgres', on_error_stop => 0);
	my $pid    = $replay->query_safe('SELECT pg_backend_pid()');

	$replay->query_until(qr/sent/, "\\echo sent\n" . apply(2, $step) . ";\n");
	$node->poll_query_until('postgres', qq(
SELECT wait_event IN ('DataFileRead', 'AioIoCompletion') FROM pg_stat_activity WHERE pid = $pid))
	  or die 'it reads nothing';
	is($node->safe_psql('postgres',
			"SELECT revenue_sink.apply('s', 'fresh-$name', 'e', '2024-03-01 10:00+00', 1)"),
		'applied', "$name: another one applies an event");
	is($node->safe_psql('postgres', "SELECT state FROM pg_stat_activity WHERE pid = $pid"),
		'active', "$name: while a replay still reads");
	like($replay->query_until(qr/\|/, ''), qr/^0\|$some$/m, "$name: which finds its duplicates");
	$replay->quit;
	return;
}

is($node->safe_psql('postgres', apply(0, 1)), "$events|0", 'events');
$node->safe_psql('postgres', 'CREATE TABLE filler AS SELECT generate_series(1, 100000) AS n');

restart('4MB', 'seen');
is_cut_off('page rows');
others_go_on('page rows');

# The same for those that have no place in memory.
restart('1MB', 'spill');
is($node->safe_psql('postgres', 'SELECT index_state FROM revenue_sink.stat_sink'), 'spilled',
	'with less memory: not all have a place');
is_cut_off('spilled');
others_go_on('spilled');

unlink $slow_files;
is($node->safe_psql('postgres', 'SELECT sum(events) FROM fact_revenue_1m'), $events + 2, 'all count once');
is($node->safe_psql('postgres', q(SELECT problem FROM revenue_sink.check('s'))), '', 'check() finds nothing');

done_testing();
