# The worker removes old minutes: in short transactions, as whole minutes, through
# crashes, on a standby that takes over, and in a restored database.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

my $node = new_node('retain', streaming => 1, conf => q(
revenue_sink.worker_interval = '50ms'
max_prepared_transactions = 10
autovacuum = off
));
create_sink($node, 'postgres');
my $dir = PostgreSQL::Test::Utils::tempdir();
my %table = map { $_ => sink_table($node, 'postgres', $_) } qw(delta total);

sub sql
{
	my ($sql, $where) = @_;

	return ($where // $node)->safe_psql('postgres', $sql);
}

# The SQL of a call with so many events from a time on, one per minute and group
# of 100.
sub pay
{
	my ($label, $from, $n) = @_;

	return qq(SELECT applied FROM (SELECT array_agg('$label' || i), array_agg('e'::text),
	array_agg('$from'::timestamptz + i % ($n / 100) * interval '1 minute'), array_agg(1.0), array_agg('g' || i / ($n / 100))
	FROM generate_series(0, $n - 1) i) AS a (o, e, m, r, g), revenue_sink.apply('s', o, e, m, r, g));
}

# The SQL of a call with one event, whose result is the answer.
sub pay_one
{
	my ($id, $time, $sink) = @_;

	return sprintf("SELECT revenue_sink.apply('%s', '%s', 'e', '%s', 1)", $sink // 's', $id, $time);
}

my $state = "SELECT removed, discarded FROM revenue_sink.stat_sink WHERE sink = 's'";
my $fact = q(SELECT to_char(min(minute) AT TIME ZONE 'UTC', 'DD HH24:MI'), count(*), sum(revenue), sum(events) FROM fact_revenue_1m);

# There are 1,000 minutes of events, of which 939 are to be removed: 93,900
# totals. Somebody has locked one of these, so that the worker stops in the
# middle.
sql("SELECT revenue_sink.alter_sink('s', dedup_window => '1 hour')");
is(sql(pay('day', '2024-03-01 00:00+00', 100_000)), 100_000, 'a day of events');
wait_until('they are merged', sub { sql('SELECT unmerged_deltas FROM revenue_sink.stat_sink') == 0 });
my $holder = $node->background_psql('postgres');
$holder->query_safe("BEGIN; SELECT FROM $table{total} WHERE minute = '2024-03-01 08:19+00' AND group_key = 'g99' FOR UPDATE");
sql("SELECT revenue_sink.alter_sink('s', retain => '1 hour')");
wait_until('the worker stands before the one that is held', sub {
	sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'revenue_sink worker' AND wait_event_type = 'Lock'") == 1 });
is(sql($state), '40000|0', 'two steps are done');
is(sql("SELECT count(*) FROM $table{total}"), '60000', 'no other totals are removed');
my $kept = '01 15:39|6100|6100.0|6100';
is(sql($fact), $kept, 'a reader sees nothing of what is left of old minutes');
is(sql(pay_one('late', '2024-03-01 15:38:59+00')), 'late', 'an old minute takes no event');
is(sql("SELECT problem FROM revenue_sink.check('s')"), '', 'check() finds nothing');

# In the middle of this, too, a standby sees the same.
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby, 'replay', $node->lsn('flush'));
is(sql($fact, $standby), $kept, 'a reader on a standby sees nothing of old minutes');

# The server is killed in the middle of this.
$holder->quit;
$holder = $node->background_psql('postgres');
$holder->query_safe("BEGIN; SELECT FROM $table{total} WHERE minute = '2024-03-01 08:19+00' AND group_key = 'g98' FOR UPDATE");
kill_server($node);
$node->start;
is(sql($fact), $kept, 'after a crash a reader sees nothing of old minutes');
is(sql(pay_one('late too', '2024-03-01 15:38:59+00')), 'late', 'an old minute takes no event');
wait_until('all of it is removed', sub { sql("SELECT count(*) FROM $table{total} WHERE minute < '2024-03-01 15:39+00'") == 0 });
is(sql($state), '93900|0', 'each removed total is counted once');
is(sql($fact), $kept, 'the kept minutes are there');
is(sql("SELECT problem FROM revenue_sink.check('s')"), '', 'check() finds nothing');
is(sql(pay('day', '2024-03-01 00:00+00', 100_000) =~ s/applied/applied, duplicate, late/r), '0|6000|94000', 'the day once more');

# With late_policy 'apply', an event has been prepared since before its minute was
# removed.
sql("SELECT revenue_sink.alter_sink('s', late_policy => 'apply', retain => '2 hours')");
sql(pay_one('evening', '2024-03-01 20:00+00'));
wait_until('the limit is up', sub { sql("SELECT retained_from = '2024-03-01 18:00+00' FROM revenue_sink.stat_sink WHERE sink = 's'") eq 't' });
sql('BEGIN; ' . pay_one('held', '2024-03-01 18:30+00') . "; PREPARE TRANSACTION 'held'");
sql(pay_one('night', '2024-03-01 23:00+00'));
wait_until('the limit is up again', sub { sql("SELECT retained_from = '2024-03-01 21:00+00' FROM revenue_sink.stat_sink WHERE sink = 's'") eq 't' });
kill_server($node);
$node->start;
my $log_at = -s $node->logfile;
sql("COMMIT PREPARED 'held'");
is(sql($fact), '01 23:00|1|1|1', 'a reader sees nothing of the event');
wait_until('it is discarded', sub { sql($state) =~ /\|1$/ });
like(slurp_file($node->logfile, $log_at),
	qr/WARNING:  sink "s" has discarded revenue that came for buckets already removed\n.*DETAIL:  Events: 1, with a revenue of 1\. The oldest bucket starts at 2024-03-01 /,
	'the discarded revenue is reported');
is(sql($fact), '01 23:00|1|1|1', 'a reader still sees nothing of the event');
is(sql("SELECT problem FROM revenue_sink.check('s')"), '', 'check() finds nothing');

# The standby takes over.
$node->wait_for_catchup($standby, 'replay', $node->lsn('flush'));
$standby->promote;
is(sql(pay_one('later', '2024-03-01 20:59+00'), $standby), 'late', 'after a promotion the limit is known');
is(sql(pay_one('morning', '2024-03-02 03:00+00'), $standby), 'applied', 'events go on');
wait_until('the new primary removes', sub {
	sql("SELECT retained_from = '2024-03-02 01:00+00' FROM revenue_sink.stat_sink WHERE sink = 's'", $standby) eq 't' });
is(sql($fact, $standby), '02 03:00|1|1|1', 'the new primary shows the kept minutes');
$standby->stop;

# A dump takes the settings and the limit along.
sql('CREATE DATABASE restored');
system_or_bail('pg_dump', '-d', $node->connstr('postgres'), '-Fc', '-f', "$dir/dump");
system_or_bail('pg_restore', '--exit-on-error', '-d', $node->connstr('restored'), "$dir/dump");
is($node->safe_psql('restored', pay_one('later', '2024-03-01 20:59+00')), 'late', 'a restored database knows the limit');
is($node->safe_psql('restored', "SELECT retain, removed, discarded FROM revenue_sink.sink JOIN revenue_sink.stat_sink USING (sink)"),
	sql("SELECT retain, removed, discarded FROM revenue_sink.sink JOIN revenue_sink.stat_sink USING (sink)"), 'and the rest');
is($node->safe_psql('restored', pay_one('morning', '2024-03-02 03:00+00')), 'applied', 'events go on there');
wait_until('the restored database removes', sub {
	$node->safe_psql('restored', "SELECT retained_from = '2024-03-02 01:00+00' FROM revenue_sink.stat_sink") eq 't' });
is($node->safe_psql('restored', $fact), '02 03:00|1|1|1', 'the restored database shows its kept minutes');
is(sql($fact), '01 23:00|1|1|1', 'the original database shows its own');

# Without any worker the limit is known after a restart, in both modes.
sql("SELECT revenue_sink.create_sink('t', 'totals', 'total_in', mode => 'totals', dedup_window => '1 hour', retain => '1 hour')");
my $put = "SELECT revenue_sink.upsert('t', ARRAY['%s']::timestamptz[], ARRAY[1])";
sql(sprintf($put, '2024-03-01 10:00+00'));
sql(sprintf($put, '2024-03-01 12:00+00'));
wait_until('a minute of totals is removed', sub { sql("SELECT removed FROM revenue_sink.stat_sink WHERE sink = 't'") == 1 });
$node->append_conf('postgresql.conf', "max_worker_processes = 1\nmax_logical_replication_workers = 0");
kill_server($node);
$node->start;
is(sql(pay_one('no worker', '2024-03-01 20:59+00')), 'late', 'an event after a restart');
is(sql(sprintf($put, '2024-03-01 10:00+00')), 0, 'a total after a restart');
is(sql(q(SELECT to_char(minute AT TIME ZONE 'UTC', 'HH24:MI') FROM totals)), '12:00', 'the total of the kept minute');

done_testing();
