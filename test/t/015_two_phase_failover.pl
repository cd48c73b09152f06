# Prepared batches through restarts and a failover: they stay in doubt, are shown
# and warned about, and are decided on by the job, whichever server is the primary
# then. Batches that an asynchronous standby had not received are lost, and the
# job learns it from their gids.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

my $primary = new_node('primary', streaming => 1, conf => q(
max_prepared_transactions = 4
revenue_sink.worker_interval = '50ms'
revenue_sink.in_doubt_warning = '1s'
lock_timeout = '5s'
));
create_sink($primary, 'postgres');
my $first = $primary->safe_psql('postgres', q(CALL revenue_sink.recover('s', 'job', NULL)));

# Prepare a batch of one event; returns its gid.
sub hold
{
	my ($node, $writer, $number, $amount) = @_;

	return $node->safe_psql('postgres', qq(
\\set QUIET on
\\pset tuples_only
BEGIN;
SELECT revenue_sink.begin_batch('s', 'job', '$writer', $first, $number) \\gset
SELECT revenue_sink.apply('s', 'o', '$writer/$number', '2024-03-01 10:01+00', $amount) \\gset
SELECT revenue_sink.pre_commit('s') AS gid \\gset
PREPARE TRANSACTION :'gid';
\\echo :gid));
}

sub held
{
	my ($node) = @_;

	return $node->safe_psql('postgres', q(
SELECT string_agg(format('%s %s %s', writer, number, state), ', ' ORDER BY number, writer)
FROM revenue_sink.prepared WHERE age > '0'));
}

# Wait until the log, from a position on, warns about a batch in doubt.
sub wait_for_warning
{
	my ($node, $writer, $number, $from) = @_;

	$node->wait_for_log(
		qr/WARNING:  batch $number of writer "$writer" of job "job" of sink "s" has been in doubt for \d+ seconds/,
		$from // 0);
	ok(1, "batch $number of writer $writer is warned about");
	return;
}

# The time since when the oldest batch is prepared
sub prepared_at
{
	my ($node) = @_;

	return $node->safe_psql('postgres', q(
SELECT extract(epoch FROM min(prepared_at)) FROM revenue_sink.prepared
WHERE age BETWEEN now() - prepared_at AND clock_timestamp() - prepared_at));
}

sub revenue
{
	my ($node) = @_;

	return $node->safe_psql('postgres', 'SELECT coalesce(sum(revenue), 0) FROM fact_revenue_1m');
}

# The job prepares three batches of two checkpoints and never comes back.
my @gids = (hold($primary, 'w1', 1, 1), hold($primary, 'w2', 1, 10), hold($primary, 'w1', 2, 100));
my $all  = 'w1 1 in doubt, w2 1 in doubt, w1 2 in doubt';

is(held($primary), $all, 'all three batches are in doubt');
my $prepared_at = prepared_at($primary);
wait_for_warning($primary, 'w1', 1);

# max_prepared_transactions are in use: pre_commit() says so, before the work is
# lost in PREPARE.
my $fourth = hold($primary, 'w2', 2, 1000);
my (undef, undef, $stderr) = $primary->psql('postgres', qq(
\\set VERBOSITY verbose
BEGIN;
SELECT revenue_sink.begin_batch('s', 'job', 'w3', $first, 2);
SELECT revenue_sink.pre_commit('s')), on_error_stop => 0);
like($stderr, qr/ERROR:  53200: all 4 prepared transactions are in use\nHINT:  .*max_prepared_transactions/,
	'all prepared transactions are in use');
is($primary->safe_psql('postgres', "CALL revenue_sink.rollback_prepared('$fourth')"), 'rolled back', 'one is given up');

# The batches survive a clean restart (from pg_twophase), and a crash (from WAL).
$primary->restart;
is(held($primary), $all, 'the batches are in doubt after a restart');
push @gids, hold($primary, 'w2', 3, 1000);
$all .= ', w2 3 in doubt';
kill_server($primary);
my $from = -s $primary->logfile;
$primary->start;
is(held($primary), $all, 'the batches are in doubt after a crash');
wait_for_warning($primary, 'w2', 3, $from);
is(revenue($primary), '0', 'no batch counts');

# There are two standbys: one has everything, the other misses the last batch.
$primary->backup('base');
my %standby;
foreach my $name (qw(whole behind))
{
	$standby{$name} = PostgreSQL::Test::Cluster->new($name);
	$standby{$name}->init_from_backup($primary, 'base', has_streaming => 1);
	$standby{$name}->start;
	$primary->wait_for_catchup($standby{$name}, 'replay', $primary->lsn('insert'));
}
is($standby{whole}->safe_psql('postgres', "SELECT revenue_sink.outcome('$gids[0]')"), 'in doubt', 'outcome() on a standby');
foreach my $call ("commit_prepared('$gids[0]')", "commit_checkpoint('s', 'job', 9)", "recover('s', 'job', NULL)")
{
	(undef, undef, $stderr) = $standby{whole}->psql('postgres', "\\set VERBOSITY verbose\nCALL revenue_sink.$call");
	like($stderr, qr/ERROR:  25006:/, "refused on a standby: $call");
}

$primary->safe_psql('postgres', "CALL revenue_sink.rollback_prepared('$gids[3]')");
$primary->wait_for_catchup($_, 'replay', $primary->lsn('insert')) foreach values %standby;
$standby{behind}->append_conf('postgresql.conf', "primary_conninfo = ''");
$standby{behind}->reload;
wait_until('the standby has lost its primary', sub {
	$standby{behind}->safe_psql('postgres', 'SELECT count(*) FROM pg_stat_wal_receiver') eq '0' });
my $lost = hold($primary, 'w1', 3, 10000);
my $lost_epoch = $primary->safe_psql('postgres', q(CALL revenue_sink.open_writer('s', 'job', 'w4')));
$primary->wait_for_catchup($standby{whole}, 'replay', $primary->lsn('insert'));
kill_server($primary);
my %from = map { $_ => -s $standby{$_}->logfile } keys %standby;
$_->promote foreach values %standby;

# On the standby that is behind, the checkpoint with the lost batch is refused.
my $node = $standby{behind};
is(held($node), 'w1 1 in doubt, w2 1 in doubt, w1 2 in doubt', 'held after the promotion, without the lost one');
is(prepared_at($node), $prepared_at, 'the time since when they are in doubt is the same');
wait_for_warning($node, 'w1', 1, $from{behind});
isnt($node->safe_psql('postgres', "SELECT revenue_sink.outcome('$lost')"), 'committed', 'the lost batch is not committed');
(undef, undef, $stderr) = $node->psql('postgres', qq(
\\set VERBOSITY verbose
CALL revenue_sink.commit_checkpoint('s', 'job', 3, ARRAY['$gids[0]', '$gids[1]', '$gids[2]', '$lost'])));
like($stderr, qr/ERROR:  25000: cannot commit the checkpoint: .*\nDETAIL:  Nothing has been changed\.\nHINT:  .*earlier checkpoint/,
	'a checkpoint with a lost batch is refused');
is(held($node), 'w1 1 in doubt, w2 1 in doubt, w1 2 in doubt', 'nothing has been changed');
is(revenue($node), '0', 'nothing is counted');

# The lost transaction's id is given to a foreign transaction, which is prepared.
my ($xid) = $lost =~ /:(\d+):[0-9a-f]+$/;
while ($node->safe_psql('postgres', 'SELECT pg_snapshot_xmax(pg_current_snapshot())') < $xid)
{
	$node->safe_psql('postgres', 'SELECT pg_current_xact_id()');
}
is($node->safe_psql('postgres', q(BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'foreign')), $xid,
	"another transaction has the lost one's id");
is($node->safe_psql('postgres', "SELECT revenue_sink.outcome('$lost')"), 'unknown', 'what became of the lost one');
foreach my $call ("commit_checkpoint('s', 'job', 3, ARRAY['$lost'])", "commit_prepared('$lost')", "rollback_prepared('$lost')")
{
	(undef, undef, $stderr) = $node->psql('postgres', "SET statement_timeout = '20s'; CALL revenue_sink.$call");
	like($stderr, qr/the outcome of .* is 'unknown'/, "refused: $call");
}
$node->safe_psql('postgres', "ROLLBACK PREPARED 'foreign'");

my $epoch = $node->safe_psql('postgres', q(CALL revenue_sink.recover('s', 'job', 1)));
cmp_ok($epoch, '>', $first, 'an earlier checkpoint is restored, in a higher epoch');
isnt($epoch, $lost_epoch, 'the lost primary did not give this epoch');
is(held($node), '', 'no batch is left prepared');
is(revenue($node), '11', 'the batches of the checkpoint count, the rest is to come again');

# On the other standby nothing is missing.
$node = $standby{whole};
is($node->safe_psql('postgres',
		qq(CALL revenue_sink.commit_checkpoint('s', 'job', 3, ARRAY['$gids[0]', '$gids[1]', '$gids[2]', '$lost']))),
	'4', 'the whole checkpoint commits on the standby that had it all');
is(revenue($node), '10111', 'all batches count');
foreach (values %standby)
{
	is($_->safe_psql('postgres', q(SELECT problem FROM revenue_sink.check('s'))), '', 'check() finds nothing');
	is($_->safe_psql('postgres', q(SELECT count(*) FROM pg_prepared_xacts)), '0', 'nothing is left prepared');
}

# Prepared transactions are disabled.
$node->append_conf('postgresql.conf', 'max_prepared_transactions = 0');
$node->restart;
(undef, undef, $stderr) = $node->psql('postgres', qq(
\\set VERBOSITY verbose
BEGIN;
SELECT revenue_sink.begin_batch('s', 'job', 'w1', $first, 4);
SELECT revenue_sink.pre_commit('s')), on_error_stop => 0);
like($stderr, qr/ERROR:  55000: prepared transactions are disabled\nHINT:  Set max_prepared_transactions/, 'disabled');
is($node->safe_psql('postgres', q(CALL revenue_sink.commit_checkpoint('s', 'job', 4))), '0', 'an empty checkpoint is fine');

done_testing();
