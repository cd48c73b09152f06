# A session of an old epoch is slow, at each of its steps, while its job recovers.
#
# If the zombie's batch is open, its session is ended; if not, it gets an error; a
# batch that it had prepared is rolled back, by recover() or, if that died in
# between, by the worker. Whatever the zombie does, it never changes revenue. (The
# specs two_phase_zombie and two_phase_zombies have the interleavings in which its
# session lives on.)

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

# For sessions that ask for it, there is a synchronous standby that never comes:
# so a zombie can be kept in its PREPARE, with the transaction prepared already.
my $node = new_node('zombies', streaming => 1, conf => q(
revenue_sink.worker_interval = '50ms'
lock_timeout = '5s'
synchronous_standby_names = 'nobody'
synchronous_commit = local
));
create_sink($node, 'postgres');

# The steps of a zombie, at each of which it can be held up.
my @steps = (
	'BEGIN',
	q(SELECT revenue_sink.begin_batch('s', :'job', 'w', 1, 1)),
	q(SELECT revenue_sink.apply('s', :'job', 'e', '2024-03-01 10:01+00', 65)),
	q(SELECT revenue_sink.pre_commit('s') AS gid \gset),
	q(PREPARE TRANSACTION :'gid'));
my $in_apply   = $steps[2] . ', pg_advisory_lock(1)';    # events come one by one
my $in_prepare = "SET LOCAL synchronous_commit = on; $steps[4]";
my $truth = 0;

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

sub revenue
{
	return sql('SELECT coalesce(sum(revenue), 0) FROM fact_revenue_1m');
}

sub prepared_count
{
	return sql('SELECT count(*) FROM pg_prepared_xacts');
}

# A session that has opened its job with epoch 1, and has taken its first steps.
sub start_zombie
{
	my ($job, $steps, $open) = @_;

	sql($open // "CALL revenue_sink.recover('s', '$job', NULL, 1)");
	my $zombie = $node->background_psql('postgres', on_error_stop => 0);
	$zombie->query("\\set VERBOSITY verbose");
	$zombie->query("\\set job '$job'");
	$zombie->query('SET lock_timeout = 0');
	$zombie->query($_) foreach @steps[ 0 .. $steps - 1 ];
	return $zombie;
}

# Let a zombie take a step in which it gets stuck; returns its pid.
sub get_stuck
{
	my ($zombie, $query, $wait_event) = @_;
	my ($pid) = $zombie->query('SELECT pg_backend_pid()') =~ /(\d+)/;

	$zombie->{stdout} = '';
	$zombie->query_until(qr/stuck/, "\\echo stuck\n$query;\n");
	wait_until('the zombie is stuck', sub {
		sql("SELECT wait_event FROM pg_stat_activity WHERE pid = $pid") eq $wait_event });
	return $pid;
}

# The output of a zombie's query: errors, or that its session is gone.
sub hears
{
	my ($zombie, $query) = @_;

	$zombie->{stderr} = '';
	return "no session: $zombie->{stderr}" unless eval { $zombie->query($query); 1 };
	return $zombie->{stderr};
}

# For the successor, the zombie's event is new at once.
sub check_successor
{
	my ($job, $epoch) = @_;

	is(sql(qq(
BEGIN;
SELECT revenue_sink.begin_batch('s', '$job', 'w', $epoch, 1), revenue_sink.apply('s', '$job', 'e', '2024-03-01 10:01+00', 1);
COMMIT)), 't|applied', 'its successor goes on');
	$truth++;
	return;
}

# Nothing that a zombie has done counts, and it can't change that.
sub check_end
{
	my ($zombie) = @_;

	eval { $zombie->quit };
	is(prepared_count(), '0', 'no batch of the zombie is prepared');
	is(revenue(), $truth, "nothing of the zombie's counts");
	return;
}

# The zombie is slow between its steps.
foreach my $call (qw(recover open_writer))
{
	foreach my $step (1 .. @steps)
	{
		my $job  = "$call at $step";
		my $open = "CALL revenue_sink.$call('s', '$job', " . ($call eq 'recover' ? 'NULL' : "'w', NULL");
		my $name = "$call() with a zombie after step $step";
		my $zombie = start_zombie($job, $step, "$open, 1)");

		is(prepared_count(), $step == @steps ? 1 : 0, "$name: the zombie stands where it should");
		my $epoch = sql("$open)");
		cmp_ok($epoch, '>', 1, $name);
		is(prepared_count(), '0', 'no batch of the zombie is left prepared');
		check_successor($job, $epoch);

		# The zombie wakes up, and goes through the remaining steps all the same.
		my $first = $step < @steps ? $steps[$step] : q(CALL revenue_sink.commit_prepared(:'gid'));
		like(hears($zombie, $first),
			$step == 1 ? qr/ERROR:  RS001: .* has been fenced off/ :
			$step == @steps ? qr/ERROR:  25000: the outcome of .* is 'rolled back'/ :
			qr/terminating connection|connection to server was lost|^no session/, 'the zombie gets an error');
		hears($zombie, $_) foreach @steps[ $step + 1 .. $#steps ], q(COMMIT PREPARED :'gid'), 'COMMIT';
		check_end($zombie);
	}
}

# The zombie is slow amid its events: one event is claimed, and the next one is
# slow to come.
my $zombie = start_zombie('in apply', 2);
my $lock   = $node->background_psql('postgres');
$lock->query_safe('SELECT pg_advisory_lock(1)');
my $pid = get_stuck($zombie, $in_apply, 'advisory');
my $epoch = sql(q(CALL revenue_sink.recover('s', 'in apply', NULL)));
cmp_ok($epoch, '>', 1, 'recover() with a zombie amid its events');
wait_until('its session has ended', sub { RevenueSink::is_gone($pid) });
pass('the session of the zombie has ended');
$lock->quit;
check_successor('in apply', $epoch);
check_end($zombie);

# The zombie is slow amid PREPARE, past all checks of its epoch.
$zombie = start_zombie('in PREPARE', 4);
get_stuck($zombie, $in_prepare, 'SyncRep');
is(prepared_count(), '1', 'the batch of the zombie is prepared');
$epoch = sql(q(CALL revenue_sink.recover('s', 'in PREPARE', NULL)));
cmp_ok($epoch, '>', 1, 'recover() with a zombie in PREPARE');
is(prepared_count(), '0', 'no batch of the zombie is left prepared');
check_successor('in PREPARE', $epoch);
check_end($zombie);

# The zombie is so slow in PREPARE that recover() has given up waiting for it:
# nobody has decided on the batch that it leaves behind, but its epoch is over.
$zombie = start_zombie('orphan', 4);
$pid    = get_stuck($zombie, $in_prepare, 'SyncRep');
my $gid = sql('SELECT gid FROM pg_prepared_xacts');
ok(RevenueSink::halt_process($pid), 'a zombie that does not react to signals');
my $recover = $node->background_psql('postgres', on_error_stop => 0);
my ($waiting) = $recover->query('SELECT pg_backend_pid()') =~ /(\d+)/;
$recover->query_until(qr/begun/, "\\echo begun\nCALL revenue_sink.recover('s', 'orphan', NULL);\n");
wait_until('the next epoch is open', sub {
	$epoch = sql(q(SELECT max(epoch) FROM revenue_sink.epoch WHERE job = 'orphan'));
	$epoch > 1 });
is(prepared_count(), '1', 'recover() waits for the zombie');
sql("SELECT pg_cancel_backend($waiting)");
like(hears($recover, 'SELECT 1'), qr/canceling statement due to user request/, 'recover() is cancelled');
$recover->quit;
isnt(sql("SELECT revenue_sink.outcome('$gid')"), 'committed', 'nothing is committed');
kill('CONT', $pid);
wait_until('the zombie is gone', sub { RevenueSink::is_gone($pid) });
wait_until('the worker has rolled back the leftovers', sub { prepared_count() eq '0' });
is(sql("SELECT revenue_sink.outcome('$gid')"), 'rolled back', 'the worker has rolled back the leftovers');
check_successor('orphan', $epoch);
check_end($zombie);

is(sql(q(SELECT problem FROM revenue_sink.check('s'))), '', 'check() finds nothing');

$node->stop;
done_testing();
