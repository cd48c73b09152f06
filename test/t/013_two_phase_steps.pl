# Every step of the calls that finish prepared batches, and every lost answer.
#
# Each call is halted at its k-th step, for every k, and then the server, the
# backend or the session dies, or the call is cancelled. If the call's decision
# was committed, the worker does the rest; if not, all batches stay in doubt until
# the call comes again. Either way the call may be repeated, and the end is the
# same. The server dies once while the prepared batches are only in WAL, and once
# while they are in pg_twophase. At last, in each call of a processor's loop the
# client dies, and the server goes on.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RevenueSink;
use TwoPhase;
use Test::More;

my $module = build_module('stop_at');
plan skip_all => 'needs a compiler and the headers of the server' unless $module;

my $node = new_node('steps', conf => q(
max_prepared_transactions = 30
max_worker_processes = 16
revenue_sink.worker_interval = '1h'
lock_timeout = '5s'
));

# The batches that a job has prepared when a call comes, in this order. All events
# are in one minute; the sum of their amounts tells which are counted.
my @batches = (
	[ 'w1', 1, 1, [ 'a', 1 ], [ 'early', 32 ] ],
	[ 'w1', 1, 2, [ 'b', 2 ] ],
	[ 'w1', 1, 3, [ 'd', 8 ], [ 'late', 16 ] ],
	[ 'w2', 1, 2, [ 'c', 4 ], [ 'early', 32 ], [ 'late', 16 ] ]);

# The calls, each for checkpoint 2 and in a database of its own, since a
# session that is halted keeps others from finishing anything in its database.
#   first, again: what the call says, and what once more
#   finished:     how many batches it finishes
#   left, sum:    what is prepared then, and the revenue of the others
#   end:          the revenue when checkpoint 3 has committed that, too
my %calls = (
	commit_checkpoint => {
		sql => q(CALL revenue_sink.commit_checkpoint('s', '%s', 2)),
		first => 3, again => 0, finished => 3,
		left => '1 in doubt', sum => 39, end => 63
	},
	recover => {
		sql => q(CALL revenue_sink.recover('s', '%s', 2, 7)),
		new => q(CALL revenue_sink.recover('s', '%s', 2)),
		first => 7, again => 7, finished => 4,
		left => '0 ', sum => 55, end => 55
	},
	open_writer => {
		sql => q(CALL revenue_sink.open_writer('s', '%s', 'w1', 2, 7)),
		new => q(CALL revenue_sink.open_writer('s', '%s', 'w1', 2)),
		first => 7, again => 7, finished => 3,
		left => '1 in doubt', sum => 35, end => 55
	});
my @plain = sort keys %calls;

# For the death of the server the calls come once more, with the prepared batches
# in files, where a CHECKPOINT has put them, and no longer in WAL.
my @in_files = map { "${_}_in_files" } @plain;
@calls{@in_files} = map { { %{ $calls{$_} }, in_files => 1 } } @plain;

# How many batches of a job are prepared, and their states; held_till() waits
# until that equals the value given, and returns the last value.
my $held_sql = q(
CREATE FUNCTION held(job text) RETURNS text LANGUAGE sql AS $$
	SELECT count(*) || ' ' || coalesce(string_agg(DISTINCT state, ','), '')
	FROM revenue_sink.prepared p WHERE p.job = held.job $$;
CREATE FUNCTION held_till(job text, wanted text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	FOR try IN 1 .. %d LOOP
		EXIT WHEN held(job) = wanted;
		PERFORM pg_sleep(0.02);
	END LOOP;
	RETURN held(job);
END $$);

foreach my $name (@plain, @in_files)
{
	$node->safe_psql('postgres', "CREATE DATABASE $name");
	create_sink($node, $name);
	$node->safe_psql($name,
		sprintf($held_sql, 50 * $PostgreSQL::Test::Utils::timeout_default));
}

# The worker rests while a call is at work, so that the call takes all its steps.
sub worker_interval
{
	my ($interval, $is_down) = @_;

	$node->adjust_conf('postgresql.conf', 'revenue_sink.worker_interval', "'$interval'");
	$node->reload unless $is_down;
	return;
}

# Wait until the worker has looked at all prepared batches of a database, which it
# has when it has rolled back a batch whose epoch was ended only by a row inserted
# by hand.
sub wait_for_worker
{
	my ($name, $job) = @_;

	$node->safe_psql($name, "CALL revenue_sink.recover('s', '$job', NULL, 1);"
		  . batch_sql($job, 'w', 1, 1, [ 'x', 1 ]) . qq(PREPARE TRANSACTION :'gid';
INSERT INTO revenue_sink.epoch (sink_id, job, writer, epoch, opened_at)
SELECT sink_id, job, 'w', 2, now() FROM revenue_sink.epoch WHERE job = '$job';
-- something to do makes it come at once
SELECT revenue_sink.apply('s', '$job', 'y', '2024-03-01 10:01+00', 1, '$job')));
	return $node->safe_psql($name, "SELECT held_till('$job', '0 ')") eq '0 ';
}

# The ways in which halted calls die. After a start of the server its workers are
# at work from the start: a process that is only starting ignores a reload.
my %deaths = (
	server => sub {
		kill_server($node);
		worker_interval('10ms', 1);
		$node->start;
	},
	backend => sub {
		my $other = $node->safe_psql('postgres',
			q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'));

		worker_interval('10ms');
		kill('KILL', map { $_->{pid} } @_);
		# the server ends everybody else, and starts again by itself
		wait_until('the server has noticed', sub { RevenueSink::is_gone($other) });
		wait_until('the server is up', sub { $node->psql('postgres', 'SELECT 1') == 0 });
	},
	session => sub {
		foreach my $i (0 .. $#_)
		{
			# in turn: its end, and what a statement_timeout does, at which psql leaves
			my ($call, $end) = ($_[$i], ($i + $_[$i]{step}) % 2 ? 'terminate' : 'cancel');

			$node->safe_psql('postgres', "SELECT pg_${end}_backend($call->{pid})");
			kill('CONT', $call->{pid});
			wait_until('the session has ended', sub { RevenueSink::is_gone($call->{pid}) });
		}
		worker_interval('10ms');
	});

# Is the call's decision committed after a death at this step? Undefined if a
# session is ended, or cancelled, right before its commit.
sub decided
{
	my ($death, $step) = @_;

	return 1 if $step > 1;
	return $death eq 'session' ? undef : 0;
}

# Check what has become of a job without another call, then after the same call
# once more, and after that of the next checkpoint. A call without an epoch of its
# own answers with an epoch above the last one.
sub check_job
{
	my ($name, $job, $sql, $answer, $last, $decided, $label) = @_;
	my $call   = $calls{$name};
	my ($next) = $call->{left} =~ /^(\d)/;
	my $before = $decided ? $call->{left} : '4 in doubt';
	my $sum    = "SELECT revenue FROM fact_revenue_1m WHERE group_key = '$job'";
	my $merge  = "SELECT FROM revenue_sink.merge('s')";

	# one who has waited in vain once needn't do so at every step
	if (defined $decided && !$decided)
	{
		ok(wait_for_worker($name, "$job: worker"), "$label: the worker is at work")
		  or die 'no worker';
	}
	my $wait = defined $decided ? "SELECT held_till('$job', '$before')" : "SELECT ''";
	my ($held, $again, @found) = split /\n/, $node->safe_psql($name, "
$wait; $sql; SELECT held('$job'); $merge; $sum;
CALL revenue_sink.commit_checkpoint('s', '$job', 3);
SELECT held('$job'); $merge; $sum;
SELECT 'check: ' || problem FROM revenue_sink.check('s')");

	is($held, defined $decided ? $before : '',
		"$label: " . ($decided ? 'the worker finishes the batches' : 'all batches stay in doubt'))
	  or die 'no worker';
	defined $last
	  ? cmp_ok($again, '>', $last, "$label: the same call opens a higher epoch")
	  : like($again, qr/^($answer)$/, "$label: the answer to the same call");
	is(join(', ', @found), "$call->{left}, $call->{sum}, $next, 0 , $call->{end}",
		"$label: prepared and counted then, and after the next checkpoint");
	return;
}

# Start a call on the batches that a job has prepared, if so wished without an
# epoch of its own; let it halt.
sub start_job
{
	my ($name, $job, $step, $new) = @_;
	my $call = $calls{$name};
	my $sql  = sprintf($new && $call->{new} || $call->{sql}, $job);
	my ($first, $again) = $new && $call->{new} ? () : @$call{qw(first again)};
	my $run = start_call($node, $name, $module, $step, "$sql;",
		"CALL revenue_sink.recover('s', '$job', NULL, 1);\n" . join '',
		map { batch_sql($job, @$_) . "PREPARE TRANSACTION :'gid';\n" } @batches);

	@$run{qw(name step call first again halted)} =
	  ($name, $step, $sql, $first, $again, halts($run));
	return $run;
}

# Play one step of all calls with one death; returns the names of the calls that
# came so far.
sub play
{
	my ($death, $step) = @_;
	my $job = "$death at $step";
	my @runs;

	worker_interval('1h');
	if ($death eq 'server')
	{
		push @runs, map { start_job($_, $job, $step, 1) } @in_files;
		my $count = $node->safe_psql('postgres',
			'CHECKPOINT; SELECT count(*) FROM pg_prepared_xacts');
		my @files = glob $node->data_dir . '/pg_twophase/*';
		is(scalar(@files), $count, "step $step: prepared batches are in files");
	}
	push @runs, map { start_job($_, $job, $step, $death eq 'session') } @plain;

	my @halted = grep { $_->{halted} } @runs;
	@halted ? $deaths{$death}->(@halted) : worker_interval('10ms');
	foreach my $run (@runs)
	{
		my ($first, $again) = @$run{qw(first again)};
		my $label   = "$run->{name}, step $step, $death";
		my $decided = $run->{halted} ? decided($death, $step) : 1;
		my $last;

		# without an epoch of its own the call answers with the epoch that it has opened
		if (!defined $first)
		{
			$first = $again = $last = $node->safe_psql($run->{name},
				"SELECT max(epoch) FROM revenue_sink.epoch WHERE job = '$job'");
			cmp_ok($last, $decided ? '>' : '==', 1, "$label: " . ($decided ? 'a new epoch' : 'no new epoch'))
			  if defined $decided;
		}

		# a session that is ended late may find that there is no more to do
		like(finish_call($run),
			!$run->{halted} ? qr/^$first$/ : $death eq 'session' ? qr/^($first)?$/ : qr/^$/,
			"$label: " . ($run->{halted} ? 'the answer is lost' : 'the call has ended before'));
		check_job($run->{name}, $job, $run->{call},
			!defined $decided ? "$first|$again" : $decided ? $again : $first, $last, $decided, $label);
	}
	return map { $_->{name} } @halted;
}

foreach my $death (sort keys %deaths)
{
	my %steps = map { $_ => 0 } @plain, $death eq 'server' ? @in_files : ();

	for (my $step = 1; my @halted = play($death, $step); $step++)
	{
		$steps{$_} = $step foreach @halted;
	}
	foreach my $name (sort keys %steps)
	{
		# before and after the commit of the decision, and after each batch
		cmp_ok($steps{$name}, '>=', 2 + $calls{$name}{finished},
			"$name: steps that were taken apart, $death");
	}
}

# Lost answers: the client dies during the call, the server carries the call out
# all the same, and the same call comes by a new connection.
my $db = 'postgres';
create_sink($node, $db);

# Run SQL whose last statement is halted at a step while its client dies.
sub lost
{
	my ($step, $sql) = @_;
	my $call = start_call($node, $db, $module, $step, $sql);

	ok(halts($call), 'the server is at work') or diag($call->{err});
	lose_answer($call);
	finish_call($call);
	return;
}

# Run SQL in a transaction after which the client dies, which ends the
# transaction.
sub lost_within
{
	my ($sql) = @_;
	my $call = start_call($node, $db, $module, 0, "$sql\n\\! kill -9 \$PPID");

	finish_call($call);
	my ($pid) = $call->{out} =~ /^(\d+)/;
	wait_until('the session has ended', sub { RevenueSink::is_gone($pid) });
	return;
}

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql($db, $sql);
}

# The SQL of a batch of one event, up to its pre_commit; the amounts are powers of
# two.
sub one_batch
{
	my ($epoch, $number) = @_;

	return batch_sql('lost', 'w', $epoch, $number, [ "e$number", 2**($number - 1) ]);
}

sub prepare_batch
{
	my ($epoch, $number) = @_;

	return sql(one_batch($epoch, $number) . "PREPARE TRANSACTION :'gid'; SELECT :'gid'") =~ s/.*\n//sr;
}

# The answer of begin_batch() for a number.
sub begins
{
	my ($epoch, $number) = @_;

	return sql("BEGIN;
SELECT revenue_sink.begin_batch('s', 'lost', 'w', $epoch, $number);
ROLLBACK");
}

sub is_revenue
{
	my ($want, $name) = @_;

	is(sql(q(SELECT coalesce(sum(revenue), 0) FROM fact_revenue_1m WHERE group_key = 'lost')),
		$want, $name);
	return;
}

my $call = q(CALL revenue_sink.recover('s', 'lost', NULL, 1));
lost(2, "$call;");
is(sql($call), '1', 'recover() of a new job, repeated');

lost_within(one_batch(1, 1) =~ s/^SELECT revenue_sink\.(apply|pre_commit).*\n//gmr);
is(begins(1, 1), 't', 'begin_batch() repeated: the batch is new');

lost_within(one_batch(1, 1));
is(sql('SELECT count(*) FROM pg_prepared_xacts'), '0', 'pre_commit() alone prepares nothing');
is(begins(1, 1), 't', 'after pre_commit(), begin_batch() repeated: the batch is new');

lost(1, one_batch(1, 1) . q(PREPARE TRANSACTION :'gid';));
my $gid = sql(q(SELECT gid FROM revenue_sink.prepared WHERE job = 'lost'));
is(begins(1, 1), 'f', 'after PREPARE, begin_batch() repeated: the batch is there');
is(sql("SELECT revenue_sink.outcome('$gid')"), 'in doubt', 'the batch is in doubt');
is_revenue(0, 'the batch is not counted');

$call = "CALL revenue_sink.commit_prepared('$gid')";
lost(1, "$call;");
is(sql($call), 'committed', 'commit_prepared() repeated');
is(sql("SELECT revenue_sink.outcome('$gid')"), 'committed', 'the outcome of the batch');
is_revenue(1, 'the batch is counted once');

$gid = prepare_batch(1, 2);
$call = "CALL revenue_sink.rollback_prepared('$gid')";
lost(2, "$call;");
is(sql($call), 'rolled back', 'rollback_prepared() repeated');
is_revenue(1, 'the batch is not counted');

lost(2, one_batch(1, 3) . 'COMMIT;');
is(begins(1, 3), 'f', 'after COMMIT, begin_batch() repeated: the batch is there');
lost_within(one_batch(1, 3) =~ s/^SELECT revenue_sink\.(apply|pre_commit).*\n//gmr);
is(begins(1, 3), 'f', 'begin_batch() repeated once more, when its answer is lost');
is_revenue(5, 'the batch is counted once');

prepare_batch(1, 4);
$call = q(CALL revenue_sink.commit_checkpoint('s', 'lost', 4));
lost(2, "$call;");
is(sql($call), '0', 'commit_checkpoint() repeated');
is_revenue(13, 'the batch is counted once');

prepare_batch(1, 5);
$gid = prepare_batch(1, 6);
$call = q(CALL revenue_sink.recover('s', 'lost', 5, 2));
lost(2, "$call;");
is(sql($call), '2', 'recover() repeated');
is_revenue(29, 'the batch of the checkpoint is counted once');
is(sql("SELECT revenue_sink.outcome('$gid')"), 'rolled back', 'the later batch is rolled back');

prepare_batch(2, 6);
$gid = prepare_batch(2, 7);
$call = q(CALL revenue_sink.open_writer('s', 'lost', 'w', 6, 3));
lost(2, "$call;");
is(sql($call), '3', 'open_writer() repeated');
is_revenue(61, 'the batch of the checkpoint is counted once');
is(sql("SELECT revenue_sink.outcome('$gid')"), 'rolled back', 'the later batch is rolled back');

is(sql('SELECT count(*) FROM pg_prepared_xacts'), '0', 'nothing is left prepared');
is(sql(q(SELECT problem FROM revenue_sink.check('s'))), '', 'check() finds nothing');

$node->stop;
done_testing();
