# Two histories of one sink: a lost primary and its standby, a restored dump, a
# copied disk, an earlier point in time, a database made from another one. No
# epoch of one history is ever given by the other, and a zombie of one history
# that connects to the other gets an error: if it were told that its batch is
# there, it would go on, and the batch would be lost.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir();

my $SECOND_ZERO = 946684800;    # epochs count from 2000-01-01 00:00 UTC

sub sql
{
	my ($side, $sql) = @_;

	return $side->[0]->safe_psql($side->[1], $sql);
}

# The order of epochs of one second is left to chance, even in two histories. Wait
# until the next epoch is of a later second than this one.
sub let_second_pass
{
	my ($epoch) = @_;

	wait_until('the next second has begun', sub { time() - $SECOND_ZERO > $epoch >> 30 });
	return;
}

# Try a writer's batch of one event; returns the answers of begin_batch() and
# apply(), or the SQLSTATE of the error.
sub batch
{
	my ($side, $writer, $epoch, $number, $event) = @_;
	my (undef, $stdout, $stderr) = $side->[0]->psql($side->[1], qq(
\\set VERBOSITY sqlstate
BEGIN;
SELECT revenue_sink.begin_batch('s', 'job', '$writer', $epoch, $number);
SELECT revenue_sink.apply('s', 'o', '$event', '2024-03-01 10:01+00', 1);
COMMIT), on_error_stop => 0);

	return $stderr =~ /ERROR:  (\w+)/ ? $1 : $stdout;
}

# Open a writer on both sides, and let the writer of each side connect to the
# other side.
sub try_histories
{
	my ($name, $left, $right, $before) = @_;
	my %side = (left => $left, right => $right);
	my %other = (left => 'right', right => 'left');
	my %writer;
	my %job;

	foreach my $at (qw(left right))
	{
		$writer{$at} = sql($side{$at}, q(CALL revenue_sink.open_writer('s', 'job', 'w')));
		$job{$at}    = sql($side{$at}, q(CALL revenue_sink.recover('s', 'job', NULL)));
		cmp_ok($writer{$at}, '>', $before, "$name: a new epoch is greater than those of before, $at");
		cmp_ok($job{$at}, '>', $writer{$at}, "$name: the epoch of the job is greater still, $at");
		$writer{$at} = sql($side{$at}, q(CALL revenue_sink.open_writer('s', 'job', 'w')));
		cmp_ok($writer{$at}, '>', $job{$at}, "$name: the next epoch of the writer is greater still, $at");
		is(batch($side{$at}, 'w', $writer{$at}, 1, "$name/$at"), "t\napplied", "$name: the writer writes, $at");
	}
	isnt($writer{left}, $writer{right}, "$name: the epochs of writers differ");
	isnt($job{left}, $job{right}, "$name: the epochs of jobs differ");
	foreach my $at (qw(left right))
	{
		my $there = $other{$at};

		# The lower epoch is fenced off, the higher one is unknown here.
		foreach my $number (1, 2)
		{
			is(batch($side{$there}, 'w', $writer{$at}, $number, "$name/zombie"),
				$writer{$at} < $writer{$there} ? 'RS001' : '22023', "$name: the zombie of $at is refused, batch $number");
		}
		is(batch($side{$there}, 'w', $before, 1, "$name/zombie"), 'RS001', "$name: the one of before is fenced off, $there");
		is(batch($side{$there}, 'w', $writer{$there}, 1, "$name/$there"), 'f' . "\nduplicate",
			"$name: the batch of $there itself is known");
		is(sql($side{$there}, qq(SELECT count(*) FILTER (WHERE revenue_sink.seen('s', 'o', '$name/' || n)) FROM
			unnest('{$there,zombie,$at}'::text[]) n)), '1', "$name: nothing else has come, $there");
		is(sql($side{$there}, q(SELECT problem FROM revenue_sink.check('s'))), '', "$name: check() finds nothing, $there");
	}
	return;
}

# Start a server on a copy of the files of a stopped server.
sub from_files
{
	my ($name, $node, $conf) = @_;
	my $copy = PostgreSQL::Test::Cluster->new($name);

	rmdir $copy->data_dir;
	PostgreSQL::Test::RecursiveCopy::copypath($node->data_dir, $copy->data_dir);
	chmod(0700, $copy->data_dir);
	$copy->append_conf('postgresql.conf', 'port = ' . $copy->port . "\n"
		. "unix_socket_directories = '" . $copy->host . "'\n$conf");
	$copy->start;
	return $copy;
}

sub promoted
{
	my ($node, $name) = @_;
	my $standby = standby($node, $name);

	$node->stop('immediate');
	$standby->promote;
	return $standby;
}

sub standby
{
	my ($node, $name) = @_;
	my $standby = PostgreSQL::Test::Cluster->new($name);

	$node->backup("for_$name");
	$standby->init_from_backup($node, "for_$name", has_streaming => 1);
	$standby->start;
	$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
	return $standby;
}

sub dump_of
{
	my ($side, $name) = @_;

	system_or_bail('pg_dump', '-d', $side->[0]->connstr($side->[1]), '-Fc', '-f', "$dir/$name");
	return;
}

sub restored
{
	my ($node, $db, $name) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $db");
	system_or_bail('pg_restore', '--exit-on-error', '-d', $node->connstr($db), "$dir/$name");
	return [ $node, $db ];
}

# ----------------------------------------------------------------------
# A server on timeline 3, and older dumps of it

my $first = new_node('first', streaming => 1);
create_sink($first, 'postgres');
my $oldest = sql([ $first, 'postgres' ], q(CALL revenue_sink.open_writer('s', 'job', 'w')));
is(batch([ $first, 'postgres' ], 'w', $oldest, 1, 'first'), "t\napplied", 'a batch');
dump_of([ $first, 'postgres' ], 'old');
my $third = promoted(promoted($first, 'second'), 'third');
my $side  = [ $third, 'postgres' ];
is(sql($side, 'SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)'), '00000003',
	'timeline 3');
my $epoch = sql($side, q(CALL revenue_sink.open_writer('s', 'job', 'w')));
cmp_ok($epoch, '>', $oldest, 'epochs go on after the promotions');
is(batch($side, 'w', $epoch, 1, 'third'), "t\napplied", 'batches go on, too');
dump_of($side, 'new');

# A new server, on timeline 1, is made from the dump of the first one; a standby
# of the new server lags behind when it is promoted.
my $moved = new_node('moved', streaming => 1);
my $main  = restored($moved, 'restored', 'new');
try_histories('restored', $side, $main, $epoch);
$epoch = sql($main, q(CALL revenue_sink.open_writer('s', 'job', 'w')));
my $behind = standby($moved, 'behind');
$behind->append_conf('postgresql.conf', "primary_conninfo = ''");
$behind->reload;
wait_until('the standby has lost its primary', sub {
	$behind->safe_psql('postgres', 'SELECT count(*) FROM pg_stat_wal_receiver') eq '0' });
my $lost = sql($main, q(CALL revenue_sink.open_writer('s', 'job', 'w')));
is(batch($main, 'w', $lost, 1, 'lost'), "t\napplied", 'a batch that the standby never gets');
$behind->promote;
is(batch([ $behind, 'restored' ], 'w', $lost, 1, 'lost'), '22023', 'its writer is refused before anybody has opened an epoch');
let_second_pass($lost);
try_histories('standby', $main, [ $behind, 'restored' ], $epoch);
is(batch([ $behind, 'restored' ], 'w', $lost, 1, 'lost'), 'RS001', 'its writer is fenced off after');
$behind->stop;

# An older dump knows nothing of the latest epochs.
try_histories('older dump', $main, restored($moved, 'older', 'old'), $oldest);

# A database is the template of another one.
$epoch = sql($main, q(CALL revenue_sink.open_writer('s', 'job', 'w')));
wait_until('the worker has left', sub {
	$moved->psql('postgres', 'CREATE DATABASE twin TEMPLATE restored') == 0 });
try_histories('template', $main, [ $moved, 'twin' ], $epoch);

# The clock is behind the given epochs, as if the clock of an earlier server had
# been a century ahead.
my $high = 4_500_000_000_000_000_000;
sql($main, "INSERT INTO revenue_sink.epoch SELECT sink_id, job, writer, $high, now(), true FROM revenue_sink.epoch WHERE writer = 'w' LIMIT 1");
dump_of($main, 'high');
try_histories('clock', $main, restored($moved, 'high', 'high'), $high);

# ----------------------------------------------------------------------
# A cold copy of the files, and a point in time that two histories follow

$epoch = sql($main, q(CALL revenue_sink.open_writer('s', 'job', 'w')));
$moved->stop;
my $twin = from_files('twin', $moved, '');
$moved->start;
try_histories('files', $main, [ $twin, 'restored' ], $epoch);
$twin->stop;

my $archived = new_node('archived', streaming => 1, start => 0);
$archived->enable_archiving;
$archived->start;
create_sink($archived, 'postgres');
$main = [ $archived, 'postgres' ];
$archived->backup('base');
$epoch = sql($main, q(CALL revenue_sink.open_writer('s', 'job', 'w')));
my $point = sql($main, q(SELECT pg_create_restore_point('before')));
$lost = sql($main, q(CALL revenue_sink.open_writer('s', 'job', 'w')));
is(batch($main, 'w', $lost, 1, 'lost'), "t\napplied", 'a batch after the point');
my $file = sql($main, 'SELECT pg_walfile_name(pg_switch_wal())');
$archived->poll_query_until('postgres', "SELECT last_archived_wal >= '$file' FROM pg_stat_archiver") or die 'not archived';
my $earlier = PostgreSQL::Test::Cluster->new('earlier');
$earlier->init_from_backup($archived, 'base', has_restoring => 1, standby => 0);
$earlier->append_conf('postgresql.conf', q(
recovery_target_name = 'before'
recovery_target_action = 'promote'
archive_mode = off
));
$earlier->start;
$earlier->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'no end of recovery';
is(batch([ $earlier, 'postgres' ], 'w', $lost, 1, 'lost'), '22023', 'its writer is refused at the point');
let_second_pass($lost);
try_histories('point in time', $main, [ $earlier, 'postgres' ], $epoch);
is(batch([ $earlier, 'postgres' ], 'w', $lost, 1, 'lost'), 'RS001', 'its writer is fenced off after');

done_testing();
