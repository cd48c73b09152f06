# An answer is as durable as the effect that it speaks of.
#
# A processor that hears 'duplicate' or 'skip' forgets the events. So the COMMIT
# of such a transaction waits for the synchronous standby, as the COMMIT of the
# first delivery did: the first delivery may have reached only the primary's disk.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

# The worker is kept out, since it would only wait for the standby, too.
my $primary = new_node('primary', streaming => 1, conf => q(
revenue_sink.worker_interval = '1h'
));
create_sink($primary, 'postgres');
$primary->backup('base');

my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
$primary->append_conf('postgresql.conf', q(
synchronous_standby_names = 'standby'
));
$primary->reload;

sub wait_for_standby
{
	$primary->poll_query_until('postgres',
		q(SELECT bool_or(sync_state = 'sync') FROM pg_stat_replication))
	  or die 'the standby is not synchronous';
}

wait_for_standby();

my $event = q('s', 'order-7', 'evt-9f3', '2024-03-01 10:01+00', 65);
is($primary->safe_psql('postgres', "SELECT revenue_sink.apply($event)"),
	'applied', 'the first delivery');

# A batch whose answer will be lost.
my $epoch = $primary->safe_psql('postgres',
	q(CALL revenue_sink.open_writer('s', 'job', 'writer')));
my $begin = "SELECT revenue_sink.begin_batch('s', 'job', 'writer', $epoch, 0)";
is($primary->safe_psql('postgres', qq(
BEGIN;
$begin;
SELECT revenue_sink.apply('s', 'order-8', 'evt-a', '2024-03-01 10:01+00', 1);
COMMIT)), "t\napplied", 'a batch');

# Two batches are prepared: one is committed, the other stays in doubt.
my ($committed, $held) = map { $primary->safe_psql('postgres', qq(
\\set QUIET on
BEGIN;
SELECT revenue_sink.begin_batch('s', 'job', 'writer', $epoch, $_) \\gset
SELECT revenue_sink.pre_commit('s') AS gid \\gset
PREPARE TRANSACTION :'gid';
\\echo :gid)) } (1, 2);
$primary->safe_psql('postgres', "CALL revenue_sink.commit_prepared('$committed')");

# A session that has sent everything but COMMIT; returns it with its pid.
sub open_transaction
{
	my ($sql, $answer, $name) = @_;
	my $psql = $primary->background_psql('postgres', on_error_stop => 0);
	my $pid  = $psql->query_safe('SELECT pg_backend_pid()');

	$psql->query_safe('BEGIN');
	is($psql->query_safe($sql), $answer, "$name: the answer is $answer");
	return ($psql, $pid);
}

sub waits_for_standby
{
	my ($psql, $pid, $name) = @_;

	$psql->query_until(qr/sent/, "\\echo sent\nCOMMIT;\n\\echo committed\n");
	$primary->poll_query_until('postgres',
		"SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = $pid")
	  or die "$name: its COMMIT does not wait";
	pass("$name: the COMMIT waits for the standby");
}

my %answers = (
	'a duplicate' => [ "SELECT revenue_sink.apply($event)", 'duplicate' ],
	'a call of duplicates' => [ q(
SELECT duplicate FROM revenue_sink.apply('s', ARRAY['order-7', 'order-7'], '{evt-9f3,evt-9f3}',
	'{2024-03-01 10:01+00,2024-03-01 10:01+00}', '{65,65}')), '2' ],
	'duplicates by jsonb' => [ q(
SELECT duplicate FROM revenue_sink.apply('s', '[{"order_id": "order-7",
	"event_id": "evt-9f3", "event_time": "2024-03-01 10:01+00", "amount": 65}]')), '1' ],
	'duplicates by INSERT' => [ q(
WITH inserted AS (
	INSERT INTO order_events VALUES ('order-7', 'evt-9f3', '2024-03-01 10:01+00', 65)
	RETURNING 1)
SELECT count(*) FROM inserted), '1' ],
	'a skipped batch' => [ $begin, 'f' ],
	'a committed outcome' => [ "SELECT revenue_sink.outcome('$committed')", 'committed' ],
	'an outcome in doubt' => [ "SELECT revenue_sink.outcome('$held')", 'in doubt' ]);

$standby->stop;
foreach my $name (sort keys %answers)
{
	push @{ $answers{$name} }, open_transaction(@{ $answers{$name} }, $name);
}
foreach my $name (sort keys %answers)
{
	my (undef, undef, $psql, $pid) = @{ $answers{$name} };
	waits_for_standby($psql, $pid, $name);
}

# Readers have nothing to wait for.
is($primary->safe_psql('postgres', q(
SELECT revenue_sink.seen('s', 'order-7', 'evt-9f3');
SELECT sum(revenue) FROM fact_revenue_1m)), "t\n66", 'readers do not wait');

$standby->start;
foreach my $name (sort keys %answers)
{
	my (undef, undef, $psql) = @{ $answers{$name} };

	# its output is here as soon as the COMMIT has returned
	like($psql->query_until(qr/committed/, "\n"), qr/committed/,
		"$name: the COMMIT returns once the standby is back");
	$psql->quit;
}

# The reason for all this: a first delivery has reached only the primary, because
# its own COMMIT gave up waiting. The replay must not be told 'duplicate' for
# good.
wait_for_standby();
$standby->stop;
my $lost = q('s', 'order-9', 'evt-b', '2024-03-01 10:02+00', 7);
my ($first, $first_pid) =
  open_transaction("SELECT revenue_sink.apply($lost)", 'applied', 'first delivery');
waits_for_standby($first, $first_pid, 'first delivery');
$primary->safe_psql('postgres', "SELECT pg_terminate_backend($first_pid)");
$primary->poll_query_until('postgres', 'SELECT sum(events) = 3 FROM fact_revenue_1m')
  or die 'the first delivery is not visible';
my ($replay, $replay_pid) =
  open_transaction("SELECT revenue_sink.apply($lost)", 'duplicate', 'replay');
waits_for_standby($replay, $replay_pid, 'replay');

kill_server($primary);
$_->{run}->finish foreach ($first, $replay);
unlike($replay->{stdout}, qr/committed/, 'the replay never got an answer to its COMMIT');
$standby->start;
$standby->promote;
$standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()')
  or die 'not promoted';
is($standby->safe_psql('postgres', "SELECT revenue_sink.apply($lost)"),
	'applied', 'the event was lost in the failover and is applied now');
is($standby->safe_psql('postgres', "SELECT revenue_sink.apply($event); $begin"),
	"duplicate\nf", 'events and batches that the standby had are not applied again');
is($standby->safe_psql('postgres', 'SELECT sum(revenue) FROM fact_revenue_1m'),
	'73', 'the total is right');

done_testing();
