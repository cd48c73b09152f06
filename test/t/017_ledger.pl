# The ledger doesn't grow with the age of a sink: which rows folding leaves, and
# what begin_batch() and outcome() say of numbers that are forgotten.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RevenueSink;
use TwoPhase;
use Test::More;

my $node = new_node('ledger', conf => "revenue_sink.worker_interval = '10ms'\n");
create_sink($node, 'postgres');

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# Commit so many batches of one event each, with numbers at equal distances.
sub batches
{
	my ($job, $epoch, $from, $step, $n) = @_;

	sql(qq(
DO \$\$
BEGIN
	FOR i IN 0 .. $n - 1 LOOP
		PERFORM revenue_sink.begin_batch('s', '$job', 'w', $epoch, $from + i * $step);
		PERFORM revenue_sink.apply('s', '$job', ($from + i * $step)::text, '2024-03-01 10:01+00', 1);
		COMMIT;
	END LOOP;
END \$\$));
	return;
}

sub begin
{
	my ($job, $epoch, $number, $writer) = @_;

	$writer //= 'w';
	return "SELECT revenue_sink.begin_batch('s', '$job', '$writer', $epoch, $number)";
}

# Prepare a batch; returns its gid.
sub prepare
{
	my ($job, $number) = @_;

	return (split /\n/, sql(batch_sql($job, 'w', 1, $number, [ "$job $number", 1 ])
		  . "PREPARE TRANSACTION :'gid';\n\\echo :gid"))[-1];
}

# Wait for a number of rows. A sink at rest is folded seldom, so each look is also
# an event.
sub wait_for_rows
{
	my ($table, $job, $n) = @_;

	wait_until("$table has $n rows of $job", sub {
		sql(qq(\\o /dev/null
SELECT revenue_sink.apply('s', 'look', 'e', '2024-03-01 10:01+00', 0);
\\o
SELECT count(*) FROM revenue_sink.$table WHERE job = '$job')) eq $n });
	return;
}

sql("CALL revenue_sink.recover('s', '$_', NULL, 1)") foreach qw(gaps none held);

# Numbers without gaps become one range, however many they are.
batches('none', 1, 1, 1, 300);
wait_for_rows('ledger', 'none', 1);
is(sql(begin('none', 1, 5)), 'f', 'a number in the range is known');
is(sql(q(SELECT last_number, events FROM revenue_sink.writer WHERE job = 'none')), '300|300', 'of all of them');

# Of numbers with gaps the last ten thousand are kept, and one row says that there
# were others.
my $early = prepare('gaps', 10);
sql("CALL revenue_sink.commit_prepared('$early')");
batches('gaps', 1, 20, 10, 10199);
my $late = prepare('gaps', 102010);
sql("CALL revenue_sink.commit_prepared('$late')");
wait_for_rows('ledger', 'gaps', 10001);
is(sql(begin('gaps', 1, 102000)), 'f', 'a late number is known');
is(sql(begin('gaps', 1, 2020)), 'f', 'the earliest number that is kept is known');
like(error_of($node, 'postgres', begin('gaps', 1, $_)), qr/ERROR:  \w+: batch number $_ of writer "w" is lower than the last one of epoch 1/,
	"the outcome of number $_ isn't guessed")
  foreach 10, 2010, 2015, 102005;
is(sql(q(SELECT last_number, events FROM revenue_sink.writer WHERE job = 'gaps')), '102010|10201', 'all events count');
is(sql("SELECT revenue_sink.outcome('$late')"), 'committed', 'the outcome of a late number');
is(sql("SELECT revenue_sink.outcome('$early')"), 'unknown', 'the outcome of a forgotten number');
like(error_of($node, 'postgres', "CALL revenue_sink.commit_prepared('$early')"), qr/is 'unknown'/, 'nor is it called committed');
batches('gaps', 1, 102020, 10, 5);
wait_for_rows('ledger', 'gaps', 10001);
is(sql(q(SELECT number - last FROM revenue_sink.ledger WHERE job = 'gaps' AND number > last)), '1',
	'one row stands for all forgotten numbers');

# Decisions are removed when they have been carried out, even while another batch
# stays in doubt.
prepare('held', $_) foreach 1 .. 3;
my $held = prepare('held', 9);
is(sql(q(CALL revenue_sink.commit_checkpoint('s', 'held', 3))), '3', 'three decisions');
wait_for_rows('decision', 'held', 0);
my $given_up = prepare('held', 10);
sql("CALL revenue_sink.rollback_prepared('$given_up')");
batches('none', 1, 301, 1, 100);
wait_for_rows('ledger', 'none', 1);
like(error_of($node, 'postgres', begin('held', 1, 10)), qr/was prepared in epoch 1 and rolled back/,
	'a batch that is decided to roll back keeps its number from being begun again');
sql("CALL revenue_sink.recover('s', 'held', NULL, 2)");
wait_for_rows('decision', 'held', 0);
is(sql("SELECT revenue_sink.outcome('$held')"), 'rolled back', 'the outcome of the batch in doubt');

# A batch was decided on, and then rolled back by hand: a row inserted by hand
# plays the part of a decision whose call died.
sql(q(INSERT INTO revenue_sink.decision SELECT id, 'held', 'w', 2, 7, '3', true, now() FROM revenue_sink.sink_catalog));
like(error_of($node, 'postgres', begin('held', 2, 7)), qr/was prepared in epoch 2 and rolled back/,
	'a decision never reaches another batch of its number');

# The batches of an epoch that is over are removed together when the window has
# passed.
sql("CALL revenue_sink.recover('s', 'gaps', NULL, 2)");
batches('gaps', 2, 1, 1, 10);
sql(q(UPDATE revenue_sink.ledger SET ended_at = ended_at - interval '40 days' WHERE job IN ('gaps', 'none') AND epoch = 1));
wait_for_rows('ledger', 'gaps', 1);
is(sql("SELECT revenue_sink.outcome('$late')"), 'unknown', 'the outcome of a batch of an epoch long over');
is(sql(begin('none', 1, 5)), 'f', 'an epoch that is not over is kept');

# Names that are used once don't stay for ever: a writer that has been silent for
# a month is forgotten, except for the highest epoch of its job.
my @epochs = map { sql("CALL revenue_sink.open_writer('s', 'names', 'w$_')") } 1 .. 3;
sql(qq(
BEGIN;
SELECT revenue_sink.begin_batch('s', 'names', 'w2', $epochs[1], 1);
COMMIT;
UPDATE revenue_sink.epoch SET opened_at = now() - interval '31 days' WHERE job = 'names'));
wait_for_rows('epoch', 'names', 2);
is(sql(q(SELECT string_agg(writer || ' ' || epoch, ', ' ORDER BY epoch) FROM revenue_sink.writer WHERE job = 'names')),
	"w2 $epochs[1], w3 $epochs[2]", 'the writer that is active and the highest epoch are kept');
sql(q(UPDATE revenue_sink.ledger SET ended_at = now() - interval '31 days' WHERE job = 'names'));
wait_for_rows('ledger', 'names', 0);
wait_for_rows('epoch', 'names', 1);
like(error_of($node, 'postgres', begin('names', $epochs[1], 2, 'w2')), qr/writer "w2" of job "names" has no epoch/, 'a forgotten one opens an epoch first');
cmp_ok(sql("CALL revenue_sink.open_writer('s', 'names', 'w4')"), '>', $epochs[2], 'and gets one that nobody had');

# If the whole job has been opened, too, an epoch that a writer's own epoch has
# fenced off stays fenced off, though the writer is silent.
@epochs = (sql("CALL revenue_sink.recover('s', 'mixed', NULL)"),
	map { sql("CALL revenue_sink.open_writer('s', 'mixed', '$_')") } qw(w1 w2));
cmp_ok($epochs[1], '>', $epochs[0], "a writer's epoch is above that of the whole job");
cmp_ok($epochs[2], '>', $epochs[1], 'the epoch of the other writer is above that');
sql(q(UPDATE revenue_sink.epoch SET opened_at = now() - interval '31 days' WHERE job = 'mixed'));
batches('none', 1, 401, 1, 100);
wait_for_rows('ledger', 'none', 1);
like(error_of($node, 'postgres', begin('mixed', $epochs[0], 1, 'w1')), qr/epoch $epochs[0] of writer "w1" of job "mixed" has been fenced off/,
	'a zombie of the job is fenced off');
is(sql(begin('mixed', $epochs[1], 1, 'w1')), 't', 'the live writer begins a batch');

# A window without an end doesn't keep the ledger from being folded.
sql(q(SELECT revenue_sink.alter_sink('s', dedup_window => '3650000 days')));
batches('none', 1, 501, 1, 100);
wait_for_rows('ledger', 'none', 1);

# Dead letters are removed some days after they were resolved; if the setting's former
# name is set, its value counts instead. Others stay, unless a setting of their own says
# when they go; the log says how many have gone.
sub letters
{
	return sql(q(SELECT string_agg(order_id, ' ' ORDER BY order_id) FROM revenue_sink.dead_letter));
}

sub let_them_fold
{
	my ($expected, $what) = @_;

	wait_until($what, sub { sql(q(SELECT revenue_sink.apply('s', 'look', 'e', '2024-03-01 10:01+00', 0)));
		letters() eq $expected });
	pass($what);
	return;
}

sql(q(SELECT revenue_sink.alter_sink('s', on_bad_event => 'reject')));
# Let all letters of an order have arrived, and been resolved, some days ago.
sub age
{
	my ($order, $days) = @_;

	sql("UPDATE revenue_sink.dead_letter_event SET arrived_at = now() - interval '$days days' - interval '1 hour' WHERE order_id = '$order';"
		  . "UPDATE revenue_sink.resolved_event SET resolved_at = now() - interval '$days days' - interval '1 hour' "
		  . "WHERE event IN (SELECT substring(letter, 1, 16) FROM revenue_sink.dead_letter_event WHERE order_id = '$order')");
	return;
}

foreach my $days (10, 20, 30)
{
	sql("SELECT revenue_sink.apply('s', '$_ $days', '', '2024-03-01 10:01+00', 1)") foreach 'new', 'old', 'open';
	sql("SELECT revenue_sink.resolve('s', 'discard', array_agg(letter)) FROM revenue_sink.dead_letter WHERE order_id = 'old $days'");
	age($_, $days) foreach "old $days", "open $days", "new $days";
}
# These arrived long ago, too, and have just been resolved.
sql("SELECT revenue_sink.resolve('s', 'discard', array_agg(letter)) FROM revenue_sink.dead_letter WHERE order_id LIKE 'new %'");
my $stay = 'new 10 new 20 new 30';
my $log_start = -s $node->logfile;
let_them_fold("$stay old 10 old 20 open 10 open 20 open 30", 'dead letters that were resolved a month ago go');
is(sql("SELECT unresolved_letters, now() - oldest_unresolved > '30 days' FROM revenue_sink.stat_sink"), '3|t', 'those that were not are counted');
sql($_) foreach 'ALTER SYSTEM SET revenue_sink.dead_letter_retention = 20', 'SELECT pg_reload_conf()';
let_them_fold("$stay old 10 open 10 open 20 open 30", 'with another retention those of 20 days');
sql($_) foreach 'ALTER SYSTEM SET revenue_sink.rejected_retention = 10', 'SELECT pg_reload_conf()';
let_them_fold("$stay open 10 open 20 open 30", 'by the former name of the setting those of 10 days');
unlike(slurp_file($node->logfile, $log_start), qr/nobody has resolved/, 'no dead letter that nobody has resolved is removed');
sql($_) foreach 'ALTER SYSTEM SET revenue_sink.unresolved_retention = 20', 'SELECT pg_reload_conf()';
let_them_fold("$stay open 10", 'unless a setting says so');
like(slurp_file($node->logfile, $log_start),
	qr/WARNING:  sink "s" has removed dead letters that nobody has resolved\n.*DETAIL:  Dead letters: 2\. They were older than 20 days\./,
	'and the log says how many');
is(sql("SELECT unresolved_letters FROM revenue_sink.stat_sink"), '1', 'one is left');
is(sql("SELECT revenue_sink.apply('s', 'old 30', '', '2024-03-01 10:01+00', 1), revenue_sink.apply('s', 'open 30', '', '2024-03-01 10:01+00', 1);"
	  . "SELECT order_id, resolution FROM revenue_sink.dead_letter WHERE order_id IN ('old 30', 'open 30')"),
	"duplicate|rejected\nopen 30|", 'what was resolved is known when its dead letter is gone');

# So are answers to events that were deferred.
foreach my $days (1, 9, 11)
{
	my $event = "'s', 'settled', '$days', '2024-03-01 10:01+00', 0";

	sql("BEGIN; SELECT revenue_sink.apply($event); PREPARE TRANSACTION 'settled'; SELECT revenue_sink.apply($event);"
		. "COMMIT PREPARED 'settled'; SELECT revenue_sink.merge('s')");
	sql("UPDATE revenue_sink.settled_event SET settled_at = now() - interval '$days days' WHERE event_id = '$days'");
}
wait_until('an answer is removed', sub { sql(q(SELECT revenue_sink.apply('s', 'look', 'e', '2024-03-01 10:01+00', 0);
SELECT count(*) < 3 FROM revenue_sink.settled)) =~ /t$/ });
is(sql(q(SELECT string_agg(event_id, ' ' ORDER BY event_id) FROM revenue_sink.settled)), '1 9', 'answers of 11 days ago go');

# Opening an epoch doesn't end the worker, at work on old batches, as if it were a
# zombie.
my $worker = join ' ', worker_pids($node, 'postgres');
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE revenue_sink.committed_offset');
batches('none', 1, 601, 1, 3);
wait_until('the worker is amid folding', sub {
	sql(q(SELECT revenue_sink.apply('s', 'look', 'e', '2024-03-01 10:01+00', 0);
SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'revenue_sink worker' AND wait_event_type = 'Lock')) =~ /1$/ });
cmp_ok(sql("SET statement_timeout = '60s'; CALL revenue_sink.recover('s', 'none', NULL)"), '>', 1, 'recover() amid folding');
$locker->query_safe('ROLLBACK');
$locker->quit;
is(join(' ', worker_pids($node, 'postgres')), $worker, 'the worker lives');

is(sql('SELECT problem FROM revenue_sink.check(\'s\')'), '', 'check() finds nothing');
is(sql('SELECT sum(events) FROM fact_revenue_1m'), 603 + 10206 + 3 + 10 + 1 + 3, 'revenue');

done_testing();
