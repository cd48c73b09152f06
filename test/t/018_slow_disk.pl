# Look-ups must read from a slow disk, as after a restart: nobody else waits for
# that, the call can be cancelled, and page rows of new events are as full as
# ever.

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
my $files  = PostgreSQL::Test::Utils::tempdir() . '/slow_files';
my $node   = new_node('slow', conf => q(
max_connections = 10
autovacuum = off
revenue_sink.worker_interval = '100ms'
revenue_sink.dedup_memory = '40MB'
));
create_sink($node, 'postgres');
my $pages = sink_table($node, 'postgres', 'seen');
my $sealed = sink_table($node, 'postgres', 'sealed');

# Apply every by-th event in one call.
sub apply
{
	my ($from, $to, $by) = @_;

	return qq(SELECT r.applied, r.duplicate FROM (
	SELECT array_agg('order-' || i / 3) AS o, array_agg('evt-' || i) AS e,
		array_agg('2024-03-01 10:00+00'::timestamptz + i % 600 * interval '1 second') AS t,
		array_agg(1.0) AS a
	FROM generate_series($from, $to - 1, $by) i) given, revenue_sink.apply('s', o, e, t, a) r);
}

# Restart, with an index that is built, and with nothing in the server's buffers
# except for what the build and a table that fills them leave there.
sub restart
{
	my ($conf) = @_;

	unlink $files;
	$node->append_conf('postgresql.conf', $conf);
	$node->stop('immediate');
	{
		local $ENV{LD_PRELOAD} = $library;
		local $ENV{SLOW_DISK}  = $files;
		$node->start;
	}
	$node->poll_query_until('postgres',
		q(SELECT revenue_sink.seen('s', 'o', 'e') OR index_state <> 'building' FROM revenue_sink.stat_sink)) or die 'no index';
	$node->safe_psql('postgres', 'UPDATE filler SET n = n + 1');
	return;
}

# From now on reads of a table are slow, or stop whoever reads it.
sub disk
{
	my ($how, $table) = @_;
	my $path = $node->safe_psql('postgres', "SELECT pg_relation_filepath('$table')");

	unlink $files, "$files.stopped";
	append_to_file($files, "$how /$path\n");
	return;
}

sub wait_until_stopped
{
	wait_until('somebody reads', sub { -e "$files.stopped" });
	return;
}

# A replay is cancelled amid its reading.
sub is_cut_off
{
	my ($name, $table) = @_;

	disk('slow', $table);
	my ($ret, $stdout, $stderr) = $node->psql('postgres',
		"SET statement_timeout = '300ms';\n\\timing on\n" . apply(1, $events, $step / 4));
	like($stderr, qr/statement timeout/, "$name: a replay is cancelled");
	ok($stdout =~ /Time: ([0-9.]+)/ && $1 < 2000, "$name: the cancel takes effect soon");
	return;
}

sub one_event
{
	my ($order) = @_;

	return "SELECT revenue_sink.apply('s', '$order', 'e', '2024-03-01 10:00+00', 1)";
}

# Run SQL while the disk is stopped, and then let the disk go on.
sub meanwhile
{
	my ($sql) = @_;
	my ($timed_out, $stdout);

	$node->psql('postgres', $sql, stdout => \$stdout, timeout => 30, timed_out => \$timed_out);
	unlink $files;
	return $timed_out ? 'no answer' : $stdout;
}

# While a replay waits for the disk, others apply new events. (The blocks into
# which these are inserted are in the buffers.)
sub others_go_on
{
	my ($name, $table, $from, $fresh) = @_;
	my $replay = $node->background_psql('postgres', on_error_stop => 0);

	$node->safe_psql('postgres', one_event("before-$name"));
	disk('stop', $table);
	$replay->query_until(qr/sent/, "\\echo sent\n" . apply($from, $events, $step) . ";\n");
	wait_until_stopped();
	is(meanwhile(one_event($fresh // "fresh-$name")), 'applied', "$name: another session applies an event");
	like($replay->query_until(qr/\|/, ''), qr/^0\|$some$/m, "$name: the replay finds its duplicates");
	$replay->quit;
	return;
}

sub page_rows
{
	return $node->safe_psql('postgres', "SELECT count(*) FROM $pages");
}

is($node->safe_psql('postgres', apply(0, $events, 1)), "$events|0", 'events');
$node->safe_psql('postgres', 'CREATE TABLE filler AS SELECT generate_series(1, 100000) AS n');

restart('shared_buffers = 4MB');
is_cut_off('page rows', $pages);
others_go_on('page rows', $pages, 2);

# A call has as many new events as old ones, which are read from disk: the new
# events share one or two page rows. The worker, which packs rows, is kept out.
restart("revenue_sink.worker_interval = '1h'");
my $before = page_rows();
is($node->safe_psql('postgres', apply($events - 500, $events + 500, 1)), '500|500', 'old and new events');
cmp_ok(page_rows() - $before, '<', 20, 'new events share page rows');

# The same holds for events that have no entries in the index, as no worker is there to
# seal others.
restart("max_worker_processes = 0
revenue_sink.dedup_memory = '1536kB'");
is($node->safe_psql('postgres', 'SELECT index_state FROM revenue_sink.stat_sink'), 'overflowed',
	'with less memory, not all events have an entry');
is_cut_off('runs', $pages);
$node->safe_psql('postgres', 'UPDATE filler SET n = n + 1');
others_go_on('runs', $pages, 3);

# Events that were sent and rolled back are sent again: memory leads to dead rows.
$node->safe_psql('postgres', 'BEGIN; ' . apply($events + 1000, $events + 5000, 1) . '; ROLLBACK');
restart("revenue_sink.worker_interval = '1h'");
$node->safe_psql('postgres', 'BEGIN; ' . apply($events + 1000, $events + 5000, 1)
	  . '; ROLLBACK; UPDATE filler SET n = n + 1');
$before = page_rows();
is($node->safe_psql('postgres', apply($events + 1000, $events + 5000, 1)), '4000|0', 'events that were rolled back are applied');
cmp_ok(page_rows() - $before, '<', 30, 'new events share page rows');

# The same holds for sealed events. It is a matter of chance whether a row of a slice must
# be read for a new event. So the other session sends one for which none must be read:
# the table of these rows isn't locked then.
restart("max_worker_processes = 8
revenue_sink.worker_interval = '20ms'
revenue_sink.dedup_memory = '2MB'");
$node->poll_query_until('postgres', "SELECT sum(events) > 80000 FROM $sealed") or die 'not sealed';
$node->append_conf('postgresql.conf', "revenue_sink.worker_interval = '1h'");
$node->reload;
$node->safe_psql('postgres', 'UPDATE filler SET n = n + 1');
is_cut_off('sealed', $sealed);
my $quiet = 0;
foreach my $i (1 .. 100)
{
	$quiet = $i;
	last if $node->safe_psql('postgres', 'BEGIN; ' . one_event("quiet-$i")
		  . "; SELECT count(*) FROM pg_locks WHERE relation = '$sealed'::regclass AND pid = pg_backend_pid(); ROLLBACK") =~ /^0$/m;
}
others_go_on('sealed', $sealed, 4, "quiet-$quiet");

is($node->safe_psql('postgres', 'SELECT sum(events) FROM fact_revenue_1m'), $events + 4506, 'each event counts once');
is($node->safe_psql('postgres', q(SELECT problem FROM revenue_sink.check('s'))), '', 'check() finds nothing');

done_testing();
