# What a person has resolved stays so: through crashes at each step of resolve(), a
# restart, a promotion, a dump; when the dead letter is gone; and for a copy of the
# event that has looked for resolutions just before one came.

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

my $node = new_node('resolve', streaming => 1, conf => q(
revenue_sink.worker_interval = '1h'
lock_timeout = '30s'
));
create_sink($node, 'postgres', more => "dedup_window => '1 hour', on_bad_event => 'reject'");

sub sql
{
	my ($sql, $on) = @_;

	return ($on // $node)->safe_psql('postgres', $sql);
}

sub pay
{
	my ($id, $time, $amount) = @_;

	return "SELECT revenue_sink.apply('s', 'o', '$id', '$time', $amount);\n";
}

# A call of resolve() for the dead letters of events
sub resolve
{
	my ($resolution, @ids) = @_;
	my $ids = join ',', @ids;

	return "SELECT revenue_sink.resolve('s', '$resolution', array_agg(letter)) FROM revenue_sink.dead_letter "
	  . "WHERE event_id = ANY ('{$ids}');\n";
}

my $late   = '2024-03-01 09:00+00';
my $ahead  = '2100-01-01 00:00+00';
my $counts = "SELECT sum(revenue) || ' of ' || sum(events) FROM fact_revenue_1m WHERE minute = '$late';\n";
my $letters = "SELECT string_agg(event_id || ' ' || coalesce(resolution, '-'), ', ' ORDER BY event_id) FROM revenue_sink.dead_letter;\n";
my $check = "SELECT problem FROM revenue_sink.check('s');\n";

sql(pay('first', '2024-03-01 11:00+00', 1) . "SELECT revenue_sink.expire('s');\n");

# ----------------------------------------------------------------------
# The server dies at each step of a resolution: right before its commit, and right
# after, when nobody has heard of it yet.

sql(pay('1', $late, 1) . pay('2', $late, 2) . pay('3', $ahead, 4));
my $resolving = 'BEGIN; ' . resolve('count', 1) . resolve('discard', 2, 3) . 'COMMIT;';
my @before = ('', '1 -, 2 -, 3 -', '1|2');
my @after = ('1 of 1', '1 count, 2 discard, 3 discard', '0|0');
foreach my $step (1, 2)
{
	my @expected = @{ $step == 1 ? \@before : \@after };
	my $call = start_call($node, 'postgres', $module, $step, $resolving);

	ok(halts($call), "resolve() halts at step $step");
	kill_server($node);
	$call->{run}->finish;
	$node->start;
	is(sql($counts), $expected[0], "step $step: the amount is counted, or isn't");
	is(sql($letters), $expected[1], "step $step: and the resolutions agree");
	is(sql($check), '', "step $step: check()");
}
is(sql(resolve('count', 1) . resolve('discard', 2, 3)), "0\n0", 'the call is repeated');
is(sql(pay('1', $late, 1) . pay('2', $late, 2)), "duplicate\nduplicate", 'the events come again');

# What was discarded because it was too far in the future is still known, though
# shared memory was lost, once its time has come. So are other events with another time.
my $now = '2024-03-01 11:30+00';
sql("SELECT revenue_sink.alter_sink('s', max_future => '100000 days')");
is(sql(pay('3', $ahead, 4) . pay('1', $now, 1) . pay('2', $now, 3)), "duplicate\nconflict\nconflict", 'resolved events come again in time');
$node->restart;
is(sql(pay('3', $ahead, 4) . pay('1', $now, 1) . pay('2', $now, 3)), "duplicate\nconflict\nconflict", 'and after a restart');
sql("SELECT revenue_sink.alter_sink('s', max_future => '5 minutes')");
is(sql("SELECT count(*) FROM revenue_sink.dead_letter"), 3, 'they make no dead letters');

# Of two copies of an event one counts. Whoever wants to count the other one is warned.
sql(pay('two', '2024-03-01 09:01+00', 1) . pay('two', '2024-03-01 09:01+00', 2));
sql(resolve('count', 'two') =~ s/WHERE/WHERE amount = 2 AND/r);
my ($code, $out, $warning) = $node->psql('postgres', resolve('count', 'two'));
is($out, 0, 'both letters once more count nothing');
like($warning, qr/WARNING:  dead letter \\x[0-9a-f]{64} of sink "s" is not counted\n.*DETAIL:  Role "\w+" has counted dead letter \\x[0-9a-f]{64} of the same event at .*\n.*HINT:  To correct/,
	'but a warning tells of the other amount');
unlike($warning, qr/WARNING.*WARNING/s, 'and of no more than that');
is(sql("SELECT sum(revenue) FROM fact_revenue_1m WHERE minute = '2024-03-01 09:01+00'"), 2, 'one amount counts');

# ----------------------------------------------------------------------
# What was counted expires at once, and the dead letters go, too: the resolutions of
# both kinds are known all the same, under either policy.

sql("SELECT revenue_sink.merge('s'); SELECT revenue_sink.expire('s')");
is(sql("SELECT revenue_sink.seen('s', 'o', '1')"), 'f', 'a counted event has expired');
sql('DELETE FROM revenue_sink.dead_letter_event WHERE sink_id > 0');
is(sql(pay('1', $late, 1) . pay('2', $late, 2)), "duplicate\nduplicate", 'when the dead letters are gone');
sql("SELECT revenue_sink.alter_sink('s', late_policy => 'apply')");
is(sql(pay('1', $late, 1) . pay('2', $late, 2)), "duplicate\nduplicate", 'though late events count');
is(sql($counts . $letters . $check), "1 of 1\n", 'nothing has come of it');

# ----------------------------------------------------------------------
# A late copy, which would count, has looked for resolutions, and then waits for a
# lock while the event is counted by resolve() and expires. A call waits so when it
# comes to its first deferred event, in the order of the fingerprints: so the copy
# must come after one of those, which it does in nearly all orders.

my ($try, $applied) = (0);
my $held = join ',', map { "u$_" } 1 .. 50;
my $call_of = sub {
	my ($ids) = @_;

	return "SELECT a.* FROM revenue_sink.apply('s', array_fill('o'::text, ARRAY[cardinality('{$ids}'::text[])]), '{$ids}', "
	  . "array_fill('$late'::timestamptz, ARRAY[cardinality('{$ids}'::text[])]), "
	  . "array_fill(8::numeric, ARRAY[cardinality('{$ids}'::text[])])) a;\n";
};
my ($holder, $locker, $copy);
while (1)
{
	$try++;
	sql("SELECT revenue_sink.alter_sink('s', late_policy => 'reject')");
	sql(pay("c$try", $late, 8));
	sql("SELECT revenue_sink.alter_sink('s', late_policy => 'apply')");
	$holder = $node->background_psql('postgres');
	$holder->query_safe('BEGIN; ' . $call_of->($held =~ s/u/u$try./gr));
	$locker = $node->background_psql('postgres');
	$locker->query_safe('BEGIN; LOCK TABLE revenue_sink.deferred_event IN SHARE MODE');
	$copy = $node->background_psql('postgres');
	$copy->query_until(qr/sent/, "\\echo sent\n" . $call_of->("c$try," . ($held =~ s/u/u$try./gr)));
	$node->poll_query_until('postgres',
		q(SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%revenue_sink.apply%')))
	  or die 'the copy does not wait';
	last if answer_of($node, 'postgres', resolve('count', "c$try"), 'DETAIL') eq '1';
	die 'no copy comes after a deferred event' if $try == 5;
	$locker->query_safe('ROLLBACK');
	$holder->query_safe('ROLLBACK');
	$_->quit foreach $locker, $holder, $copy;
}
cmp_ok(sql("SELECT revenue_sink.expire('s')"), '>', 0, 'the counted event expires while its copy waits');
is(sql("SELECT revenue_sink.seen('s', 'o', 'c$try')"), 'f', 'it is not known by the seen events any more');
$locker->query_safe('ROLLBACK');
$locker->quit;
is($copy->query_safe('SELECT 1'), "0|1|50|0|0|0\n1", 'the copy is a duplicate');
$copy->quit;
$holder->query_safe('ROLLBACK');
$holder->quit;
sql("SELECT revenue_sink.merge('s')");
is(sql("SELECT sum(revenue) || ' of ' || sum(events) FROM fact_revenue_1m WHERE minute = '$late'"),
	(1 + 8 * (50 + 1)) . ' of 52', 'the amount counts once, as do those of the deferred events');
is(sql($check), '', 'check()');
sql("SELECT revenue_sink.alter_sink('s', late_policy => 'reject')");

# ----------------------------------------------------------------------
# A standby shows resolutions and makes none. After its promotion, and in a restored
# database, the events that come again are known.

sql(pay('4', $late, 16) . pay('5', $late, 32) . pay('6', $ahead, 64) . pay('7', $late, 128));
sql(resolve('count', 4) . resolve('discard', 5, 6));
my $copies = pay('4', $late, 16) . pay('5', $late, 32) . pay('6', $ahead, 64);
my $view = 'SELECT * FROM revenue_sink.dead_letter ORDER BY event_id;'
  . "SELECT unresolved_letters, oldest_unresolved FROM revenue_sink.stat_sink WHERE sink = 's';";

$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
is(sql($view, $standby), sql($view), 'the standby shows the resolutions');
like(error_of($standby, 'postgres', resolve('discard', 7)), qr/ERROR:  25006: cannot execute resolve\(\) in a read-only transaction/,
	'the standby makes none');
$standby->promote;
is(sql($copies =~ s/;$//r . '; ' . "SELECT revenue_sink.alter_sink('s', max_future => '100000 days');" . pay('6', $ahead, 64), $standby),
	"duplicate\nduplicate\nduplicate\n\nduplicate", 'after a promotion the events are known');
is(sql(resolve('count', 4) . resolve('discard', 5, 6) . resolve('count', 7) . $check, $standby), "0\n0\n1", 'and the calls are repeated');

my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
system_or_bail('pg_dump', '-d', $node->connstr('postgres'), '-Fc', '-f', $dump);
sql('CREATE DATABASE restored');
system_or_bail('pg_restore', '--exit-on-error', '-d', $node->connstr('restored'), $dump);
my $restored = sub { return $node->safe_psql('restored', $_[0]) };
is($restored->($view), sql($view), 'a restore brings the resolutions');
is($restored->("SELECT revenue_sink.alter_sink('s', max_future => '100000 days');" . $copies), "\nduplicate\nduplicate\nduplicate",
	'and the events are known');
is($restored->(resolve('count', 4) . resolve('discard', 5, 6) . resolve('count', 7) . $check), "0\n0\n1", 'and the calls are repeated');

# A sink that comes without its resolutions is not whole.
sql('CREATE DATABASE torn');
system_or_bail('pg_restore', '--exit-on-error', '-d', $node->connstr('torn'), '--schema-only', $dump);
my $list = PostgreSQL::Test::Utils::tempdir() . '/list';
my ($entries) = run_command([ 'pg_restore', '-l', $dump ]);
append_to_file($list, join("\n", grep { !/TABLE DATA revenue_sink resolved_event/ } split /\n/, $entries) . "\n");
system_or_bail('pg_restore', '--exit-on-error', '-d', $node->connstr('torn'), '--data-only', '-L', $list, $dump);
is($node->safe_psql('torn', 'SELECT problem FROM revenue_sink.sink'),
	'the sink has not arrived whole: the rows of table "revenue_sink.resolved_event" have not arrived',
	'a sink without its resolutions is not whole');

$standby->stop;

# ----------------------------------------------------------------------
# A server that has no memory to watch for all that was resolved looks up each event.
# After a restart it does so until the worker has loaded what is watched for.

my $crowd = sub {
	my ($order, $time) = @_;

	return "SELECT a.* FROM (SELECT array_agg('$order'::text), array_agg(i::text), array_agg('$time'::timestamptz), array_agg(1::numeric) "
	  . "FROM generate_series(1, 20000) i) AS e (o, e, t, a), revenue_sink.apply('s', e.o, e.e, e.t, e.a) AS a;\n";
};
my $in_time = '2024-03-01 11:40+00';
my $known = "0|0|0|20000|0|0\n1|0|0|0|0|0";

$node->append_conf('postgresql.conf', "revenue_sink.dedup_memory = '1MB'");
$node->restart;
sql($crowd->('crowd', $late));
is(sql("SELECT revenue_sink.resolve('s', 'discard', array_agg(letter)) FROM revenue_sink.dead_letter WHERE order_id = 'crowd'"), 20000,
	'so many events are resolved');
my $new = 0;
my $replay = sub {
	$new++;
	return sql($crowd->('crowd', $in_time) . "SELECT * FROM revenue_sink.apply('s', ARRAY['new'], ARRAY['$new'], ARRAY['$in_time'::timestamptz], ARRAY[1])");
};
is($replay->(), $known, 'none of them counts, with little memory');
cmp_ok(sql("SELECT pg_relation_size('revenue_sink.resolved_event') / 8192"), '>', 256, 'they are too many for a caller to load them');
$node->append_conf('postgresql.conf', "revenue_sink.dedup_memory = '64MB'\nmax_worker_processes = 0");
$node->restart;
is($replay->(), $known, 'nor after a restart, while there is no worker');
$node->append_conf('postgresql.conf', "max_worker_processes = 8");
$node->restart;
$node->poll_query_until('postgres', "SELECT seen_bytes_filters > 0 FROM revenue_sink.stat_sink WHERE sink = 's'")
  or die 'the worker loads nothing';
is($replay->(), $known, 'nor when the worker has loaded what is watched for');
is(sql("SELECT count(*) FROM revenue_sink.dead_letter WHERE order_id = 'crowd'"), 20000, 'and there is no new dead letter');
is(sql($check), '', 'check()');

done_testing();
