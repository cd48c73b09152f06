# The launcher and the workers, from CREATE EXTENSION to DROP DATABASE.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;
use Time::HiRes qw(time);

my $node = new_node('worker', streaming => 1, conf => q(
revenue_sink.worker_interval = '100ms'
autovacuum = off
wal_log_hints = off
));

# Wait until a database has so many workers.
sub workers_become
{
	my ($db, $count, $name) = @_;

	ok($node->poll_query_until('postgres', qq(
SELECT count(*) = $count FROM pg_stat_activity
WHERE backend_type = 'revenue_sink worker' AND datname = '$db')), $name);
	return;
}

sub apply_some
{
	my ($db, $what) = @_;

	return $node->safe_psql($db, qq(
SELECT r.applied
FROM (SELECT array_agg('$what'::text) AS o, array_agg(i::text) AS e,
		array_agg('2024-03-01 10:00+00'::timestamptz + i * interval '1 minute') AS t,
		array_agg(1.0) AS a
	FROM generate_series(1, 100) i) given, revenue_sink.apply('s', o, e, t, a) r));
}

sub merged
{
	my ($db, $name) = @_;

	ok($node->poll_query_until($db,
		'SELECT sum(unmerged_deltas) = 0 FROM revenue_sink.stat_sink'), $name);
	return;
}

# The server starts.
is($node->safe_psql('postgres', q(
SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'revenue_sink launcher')),
	'1', 'there is a launcher');
is(scalar worker_pids($node), 0, 'there is no worker without the extension');
$node->safe_psql('postgres', 'CREATE EXTENSION revenue_sink');
workers_become('postgres', 1, 'CREATE EXTENSION starts a worker');
create_sink($node, 'postgres');
my $total = sink_table($node, 'postgres', 'total');
is(apply_some('postgres', 'first'), '100', 'events');
merged('postgres', 'the worker merges');

# A sink whose creation hasn't been committed keeps its slot; the slot's counters
# say since when they count.
my $maker = $node->background_psql('postgres');
my $since = q(SELECT stats_since FROM revenue_sink.stat_sink WHERE sink = 'new');
$node->safe_psql('postgres', q(SELECT revenue_sink.create_sink('second', 'second_fact', 'second_events')));
my $first = $maker->query_safe(qq(BEGIN;
SELECT revenue_sink.create_sink('new', 'new_fact', 'new_events') \\gset
SELECT revenue_sink.apply('new', 'o', 'e', '2024-03-01 10:00+00', 1) \\gset
$since));
$node->safe_psql('postgres', q(SELECT revenue_sink.apply('second', 'o', 'e', '2024-03-01 10:00+00', 1)));
merged('postgres', 'it has done a round');
is($maker->query_safe($since), $first, 'a sink that is being made keeps its slot');
$maker->query_safe('COMMIT');
$maker->quit;
is($node->safe_psql('postgres', $since), $first, 'the sink keeps its slot when it has been made');
$node->safe_psql('postgres', q(SELECT revenue_sink.drop_sink('new')));

# For each sink with batches in doubt the log has a warning.
my $log = -s $node->logfile;
$node->append_conf('postgresql.conf', "revenue_sink.in_doubt_warning = '1s'");
$node->reload;
foreach my $sink (qw(s second))
{
	$node->safe_psql('postgres', "CALL revenue_sink.recover('$sink', 'job', NULL, 1)");
	$node->safe_psql('postgres', qq(BEGIN;
SELECT revenue_sink.begin_batch('$sink', 'job', 'w', 1, 1);
SELECT revenue_sink.pre_commit('$sink') AS gid \\gset
PREPARE TRANSACTION :'gid'));
}
$node->wait_for_log(qr/WARNING:  batch 1 of writer "w" of job "job" of sink "$_" has been in doubt/, $log)
  foreach qw(s second);
ok(1, 'the log warns about the batches of both sinks');
$node->safe_psql('postgres', "CALL revenue_sink.recover('$_', 'job', NULL)") foreach qw(s second);
$node->safe_psql('postgres', q(SELECT revenue_sink.drop_sink('second')));

# A CREATE EXTENSION that was rolled back leaves no worker behind.
$node->safe_psql('postgres', 'CREATE DATABASE never');
$node->safe_psql('never', 'BEGIN; CREATE EXTENSION revenue_sink; ROLLBACK');
workers_become('never', 0, 'none for a CREATE EXTENSION that was rolled back');

# The server restarts.
$node->restart;
workers_become('postgres', 1, 'a worker is started again after a restart');
apply_some('postgres', 'second');
merged('postgres', 'it merges again');

# The worker is ended in the middle of a merge, where a lock on the table of
# totals stops it.
foreach my $signal (qw(TERM KILL))
{
	my $locker = $node->background_psql('postgres', on_error_stop => 0);
	my $from   = -s $node->logfile;

	$locker->query_safe("BEGIN; LOCK TABLE $total IN SHARE MODE");
	apply_some('postgres', "merge $signal");
	ok($node->poll_query_until('postgres', q(
SELECT wait_event_type = 'Lock' FROM pg_stat_activity
WHERE backend_type = 'revenue_sink worker' AND datname = 'postgres')),
		"$signal: the worker is in the middle of a merge");
	my ($pid) = worker_pids($node, 'postgres');
	kill_process($signal, $pid);
	if ($signal eq 'KILL')
	{
		$node->wait_for_log(qr/database system is ready to accept connections/, $from);
		$locker->{run}->finish;
	}
	else
	{
		$locker->query_safe('COMMIT');
		$locker->quit;
	}
	workers_become('postgres', 1, "$signal: a worker is back");
	isnt((worker_pids($node, 'postgres'))[0], $pid, "$signal: the worker is a new one");
	merged('postgres', "$signal: the new worker finishes the merge");
}
is($node->safe_psql('postgres', q(
SELECT count(*), sum(revenue), sum(events) FROM fact_revenue_1m;
SELECT problem FROM revenue_sink.check('s'))), '100|400.0|400', 'the totals are right, and check() finds nothing');

# An error doesn't end the worker: it logs the error, waits, and tries again.
my $from = -s $node->logfile;
$node->safe_psql('postgres',
	"ALTER TABLE $total ADD CONSTRAINT planted CHECK (false) NOT VALID");
apply_some('postgres', 'error');
$node->wait_for_log(qr/violates check constraint "planted"/, $from);
is($node->safe_psql('postgres', 'SELECT sum(events) FROM fact_revenue_1m'), '500',
	'readers see all events while the merge fails');
ok($node->poll_query_until('postgres', q(
SELECT last_error > last_round FROM revenue_sink.stat_sink WHERE sink = 's')),
	'stat_sink says that the last round has failed');
my $error = q(SELECT last_error_sqlstate, last_error_message FROM revenue_sink.stat_sink WHERE sink = 's');
my ($name) = $total =~ /\.(\w+)/;
is($node->safe_psql('postgres', $error),
	qq(23514|new row for relation "$name" violates check constraint "planted"), 'and why');
$node->safe_psql('postgres', "ALTER TABLE $total DROP CONSTRAINT planted");
merged('postgres', 'the worker merges once the cause of the error is gone');
ok($node->poll_query_until('postgres', q(
SELECT last_round > last_error FROM revenue_sink.stat_sink WHERE sink = 's')),
	'stat_sink says that a round has ended well since');
like($node->safe_psql('postgres', $error), qr/^23514\|/, 'the last error can still be seen');

# Of a long message in characters of several bytes as many are kept as fit.
$node->safe_psql('postgres', qq(
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
\$\$BEGIN RAISE EXCEPTION USING errcode = 'RX001', message = 'x' || repeat(chr(8364), 1000); END\$\$;
CREATE TRIGGER fail BEFORE INSERT OR UPDATE ON $total FOR EACH ROW EXECUTE FUNCTION fail()));
apply_some('postgres', 'long');
ok($node->poll_query_until('postgres', q(
SELECT last_error_sqlstate = 'RX001' AND last_error_message = 'x' || repeat(chr(8364), 84)
FROM revenue_sink.stat_sink WHERE sink = 's')), 'a long message is cut between two characters');
$node->safe_psql('postgres', "DROP TRIGGER fail ON $total; DROP FUNCTION fail()");
merged('postgres', 'the worker merges again');

# Change a setting, and wait until it has been reloaded.
sub set_interval
{
	my ($interval) = @_;

	$node->safe_psql('postgres',
		"ALTER SYSTEM SET revenue_sink.worker_interval = '$interval'");
	$node->reload;
	$node->poll_query_until('postgres', qq(
SELECT current_setting('revenue_sink.worker_interval')::interval = '$interval'))
	  or die 'not reloaded';
}

# With the default interval, an idle worker does next to no work and writes next
# to no WAL in four seconds.
set_interval('1s');
$node->safe_psql('postgres', 'VACUUM ANALYZE; CHECKPOINT');

sub cpu_seconds
{
	my ($pid) = @_;
	my @stat = split / /, slurp_file("/proc/$pid/stat") =~ s/.*\) //r;

	return ($stat[11] + $stat[12]) / POSIX::sysconf(POSIX::_SC_CLK_TCK());
}
SKIP:
{
	my ($pid) = worker_pids($node, 'postgres');

	skip 'no /proc here', 2 unless -r "/proc/$pid/stat";
	my ($used, $written);

	# The first rounds after a checkpoint may still log images of pages on
	# which they have set hint bits, where pages have checksums.
	foreach (1 .. 4)
	{
		$used = cpu_seconds($pid);
		my $wal = $node->safe_psql('postgres', q(
SELECT pg_current_wal_insert_lsn();
SELECT pg_sleep(4);
SELECT pg_current_wal_insert_lsn()));
		my ($before, $after) = (split /\n/, $wal)[ 0, -1 ];
		$used    = cpu_seconds($pid) - $used;
		$written = $node->safe_psql('postgres', "SELECT '$after'::pg_lsn - '$before'");
		last if $used < 0.2 && $written < 1000;
	}
	cmp_ok($used,    '<', 0.2,  "$used s of 4 s used by an idle worker");
	cmp_ok($written, '<', 1000, 'an idle worker writes next to no WAL');
}

# A standby may have a launcher, but nothing is done there.
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
set_interval('1h');
apply_some('postgres', 'standby');
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
is($standby->safe_psql('postgres', q(
SELECT sum(events) FROM fact_revenue_1m;
SELECT pg_sleep(1);
SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'revenue_sink worker'
  AND state <> 'idle')), "700\n\n0", 'nothing is done on a standby');
unlike(slurp_file($standby->logfile), qr/ERROR/, 'nothing is tried on a standby');
$standby->stop;
set_interval('100ms');
merged('postgres', 'on the primary, a shorter interval counts at once');

# RENAME, TEMPLATE and DROP of databases aren't blocked, and the workers follow.
$node->safe_psql('postgres', 'CREATE DATABASE one');
create_sink($node, 'one');
workers_become('one', 1, 'a second database has a worker of its own');
apply_some('one', 'x');
foreach my $sql (
	'ALTER DATABASE one RENAME TO two',
	'CREATE DATABASE copy TEMPLATE two',
	'DROP DATABASE two')
{
	my $db   = $sql =~ /RENAME/ ? 'one' : 'two';
	my $from = time;

	workers_become($db, 1, "$db has a worker");
	my ($ret, undef, $stderr) = $node->psql('postgres', $sql);
	is($ret, 0, "not blocked: $sql") or diag $stderr;
	cmp_ok(time - $from, '<', 10, 'the statement is done soon');
}
workers_become('two', 0, 'the worker of a dropped database is gone');
apply_some('copy', 'y');
workers_become('copy', 1, 'the copy has got a worker with its first use');
merged('copy', 'which merges');
is($node->safe_psql('copy', q(
SELECT sum(events) FROM fact_revenue_1m;
SELECT problem FROM revenue_sink.check('s'))), '200', 'the totals of the copy are right');

# DROP EXTENSION ends the workers, the first one too.
$node->safe_psql('copy', q(
SET client_min_messages = warning;
DROP EXTENSION revenue_sink CASCADE));
workers_become('copy', 0, 'DROP EXTENSION ends the worker');
$node->safe_psql('copy', 'CREATE EXTENSION revenue_sink');
workers_become('copy', 1, 'CREATE EXTENSION starts another');
$node->safe_psql('postgres', 'DROP DATABASE copy; DROP DATABASE never');
workers_become('postgres', 1, 'the first database keeps its own');
is($node->safe_psql('postgres', q(SELECT problem FROM revenue_sink.check('s'))), '',
	'check() finds nothing');

done_testing();
