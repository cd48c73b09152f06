# Cold slices are merged into larger ones, and at every step of that an event that was
# counted is known: while a slice is being made of others, in the moment after, for a
# writer that has asked the old slices, through cancels and crashes, on a server that takes
# over, and until the larger slice expires.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

# In 1 MB, a slice has at most some 15,100 events, and most slices are cold.
my $node = new_node('merging', streaming => 1, conf => q(
revenue_sink.dedup_memory = '1MB'
revenue_sink.worker_interval = '20ms'
autovacuum = off
));
create_sink($node, 'postgres');
my $small = 15_200;
my %table = map { $_ => sink_table($node, 'postgres', $_) } qw(seen slice sealed filter);
my $check = "SELECT problem FROM revenue_sink.check('s')";
my $n = 0;

sub sql
{
	my ($sql, $where) = @_;

	return ($where // $node)->safe_psql('postgres', $sql);
}

# The SQL of a call with each step-th of the events from .. to; its result are the counts of
# applied, duplicate, deferred, conflict and late.
sub feed
{
	my ($from, $to, $step, $amount) = @_;

	return sprintf(q(SET synchronous_commit = local; SELECT concat_ws('|', applied, duplicate, deferred, conflict, late)
FROM (SELECT array_agg('o' || i / 3), array_agg('e' || i), array_agg('2024-03-01 10:00+00'::timestamptz + i / 20000 * interval '1 minute'),
	array_agg(%s::numeric) FROM generate_series(%d, %d - 1, %d) i) AS a (o, e, t, m), revenue_sink.apply('s', o, e, t, m)),
		$amount // 1, $from, $to, $step // 1);
}

sub wait_for
{
	my ($name, $condition, $where) = @_;

	return wait_until($name, sub { sql("SELECT $condition", $where) eq 't' });
}

sub is_whole
{
	my ($name, $where) = @_;
	my $seen = "SELECT seen_events FROM revenue_sink.stat_sink WHERE sink = 's'";

	is(sql(feed(0, $n), $where), "0|$n|0|0|0", "$name: all events are duplicates");
	is(sql('SELECT sum(events), sum(revenue) FROM fact_revenue_1m', $where), "$n|$n", "$name: each event counts once");
	is(sql($seen, $where), $n, "$name: each event is remembered once");
	is(sql($check, $where), '', "$name: check() finds nothing");
	return;
}

# Feed so many events that some slices are merged.
sub feed_many
{
	is(sql(feed($n, $n + 150_000)), '150000|0|0|0|0', 'events are applied');
	$n += 150_000;
	return;
}

my $merged = "(SELECT count(*) FROM $table{slice} WHERE events > $small)";
my $unmerged = "(SELECT count(*) FROM $table{slice} WHERE events BETWEEN 1 AND $small)";
my $hot = "(SELECT sum(events) FROM $table{seen})";

# Eight slices become one, as often as there are eight cold ones, and their rows go.
feed_many() foreach 1 .. 3;
wait_for('slices are merged', "$merged >= 2 AND $hot < 21000");
is_whole('merged');
is(sql("SELECT count(*) FROM generate_series(0, $n - 1, 7) i WHERE NOT revenue_sink.seen('s', 'o' || i / 3, 'e' || i)"), '0',
	'seen() knows all of them');
is(sql(feed(0, $n, 3, 2)), join('|', 0, 0, 0, $n / 3, 0), 'another amount is a conflict');
is(sql("SELECT count(*) FROM (SELECT slice FROM $table{sealed} UNION SELECT slice FROM $table{filter}) AS s WHERE slice <> 0 AND slice NOT IN (SELECT slice FROM $table{slice})"),
	'0', 'nothing is left of the slices that were merged');
my $share = sql("SELECT round(pg_relation_size('$table{sealed}') / 8192.0 / sum(rows), 1) FROM $table{slice}");
cmp_ok($share, '<', 2, 'the place of their rows is used again');

# A slice is made of others, but its transaction has not committed: the worker waits for a
# standby that isn't there. If the worker waits with something else, it is let go on, and
# gets more to do.
my $waiting = "FROM pg_stat_activity WHERE backend_type LIKE 'revenue_sink worker%' AND wait_event = 'SyncRep'";

sub resume_merging
{
	my ($where) = @_;

	sql('ALTER SYSTEM RESET synchronous_standby_names', $where);
	sql('SELECT pg_reload_conf()', $where);
	return;
}

sub halt_merging
{
	my $merging = "FROM pg_stat_activity WHERE backend_type LIKE 'revenue_sink worker%' AND wait_event = 'SyncRep' AND query LIKE 'merge slices%'";

	sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
	sql('SELECT pg_reload_conf()');
	wait_until('the worker merges slices, and waits for a standby', sub {
		# there is always something to do
		sql(feed($n, $n + 2000));
		$n += 2000;
		return 1 if sql("SELECT count(*) $merging") eq '1';

		# what it has waited for is committed: so a cancel lets it go on
		sql("SELECT pg_cancel_backend(pid) $waiting AND query NOT LIKE 'merge slices%'");
		return 0;
	});
	return;
}

halt_merging();
is(sql(feed(0, $n)), "0|$n|0|0|0", 'an unfinished merge: all events are duplicates');
is(sql('SET synchronous_commit = local; BEGIN; ' . feed($n, $n + 1000) . '; ROLLBACK'), '1000|0|0|0|0',
	'an unfinished merge: new events are applied');
is(sql("SET synchronous_commit = local;\n$check"), '', 'an unfinished merge: check() finds nothing');

# The moment after the commit: somebody else has the maintenance lock, so that the worker
# can't have shared memory forget the old slices.
my $merger = $node->background_psql('postgres');
my $pid = $merger->query_safe('SELECT pg_backend_pid()');
$merger->query_until(qr/sent/, "\\echo sent\nSET synchronous_commit = local; BEGIN; SELECT revenue_sink.merge('s') >= 0;\n");
wait_for('somebody waits for the maintenance lock', "wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $pid");
resume_merging();
like($merger->query_safe('SELECT 1'), qr/^1$/m, 'the maintenance lock is passed on');
is(sql(feed(0, $n)), "0|$n|0|0|0", 'the merge is committed: all events are duplicates');
$merger->query_safe('ROLLBACK');
$merger->quit;
is_whole('the merge is finished');

# A crash at that moment, and one of the worker alone.
halt_merging();
kill_server($node);
$node->start;
resume_merging();
is_whole('after a crash while slices were merged');
halt_merging();
kill_process('KILL', (worker_pids($node))[0]);
$node->poll_query_until('postgres', 'SELECT true');
resume_merging();
is_whole('after the worker was killed');

# Merging stops, because somebody reads the description of all slices; there the worker is
# cancelled, and then the server crashes.
sub stop_at_slice
{
	my $locker = $node->background_psql('postgres');

	foreach my $try (1 .. 200)
	{
		my $locked = "FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT granted AND relation = '$table{slice}'::regclass AND backend_type LIKE 'revenue_sink worker%'";

		$locker->query_safe("BEGIN; LOCK TABLE $table{slice} IN SHARE MODE");
		sql(feed($n, $n + $small));
		$n += $small;
		wait_for('the worker waits for the table', "EXISTS (SELECT $locked)");
		return $locker if sql("SELECT count(*) $locked AND a.query LIKE 'merge slices%'") eq '1';
		$locker->query_safe('ROLLBACK');
	}
	die 'the worker does not merge';
}

my $locker = stop_at_slice();
is(sql(feed(0, $n)), "0|$n|0|0|0", 'a merge stops: all events are duplicates');
sql('SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = ' . (worker_pids($node))[0]);
wait_until('the merge was cancelled', sub { slurp_file($node->logfile) =~ /canceling statement due to user request/ });
is(sql(feed(0, $n)), "0|$n|0|0|0", 'a merge is cancelled: all events are duplicates');
$locker->query_safe('ROLLBACK');
$locker->quit;
is_whole('after a cancelled merge');
$locker = stop_at_slice();
kill_server($node);
$locker->{run}->kill_kill if $locker->{run};
$node->start;
is_whole('after a crash in the midst of a merge');

# A writer has asked which slices there are, and stands before it reads the first piece of a
# filter. In the meantime slices are merged, and their rows go.
wait_for('all is sealed and merged', "$hot < 21000 AND $unmerged < 20");

# who has the maintenance lock keeps the worker from sealing and merging
$merger = $node->background_psql('postgres');
$merger->query_safe("BEGIN; SELECT revenue_sink.merge('s')");
my $known = $n;
feed_many();
$locker = $node->background_psql('postgres');
my $writer = $node->background_psql('postgres');
$pid = $writer->query_safe('SELECT pg_backend_pid()');
$locker->query_safe("BEGIN; LOCK TABLE $table{filter} IN ACCESS EXCLUSIVE MODE");
my $step = int($known / 15000) + 1;
my $some = int(($known + $step - 1) / $step);
$writer->query_until(qr/sent/, "\\echo sent\n" . feed(0, $known, $step) . ";\n");
wait_for('the writer waits for the filters', "EXISTS (SELECT FROM pg_locks WHERE pid = $pid AND NOT granted AND relation = '$table{filter}'::regclass)");
halt_process($pid);

# which slices are cold depends on the memory, so that any eight of them may be merged
my $asked = sql("SELECT string_agg(slice::text, ',') FROM $table{slice} WHERE slice > 0");
my $left = sql("SELECT count(*) - 8 FROM $table{slice} WHERE slice > 0");
$locker->query_safe('ROLLBACK');
$locker->quit;
$merger->query_safe('ROLLBACK');
$merger->quit;
wait_for('slices are merged', "(SELECT count(*) FROM $table{slice} WHERE slice IN ($asked)) <= $left AND $hot < 21000");
kill('CONT', $pid);
like($writer->query_safe('SELECT 1'), qr/^0\|$some\|0\|0\|0$/m, 'events of slices that were merged meanwhile are duplicates');
$writer->quit;
is_whole('after a writer that stood');

# Another server takes over in the midst of a merge.
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
halt_merging();
$node->wait_for_catchup('standby', 'replay', $node->lsn('flush'));
is($standby->safe_psql('postgres', "SELECT count(*) FROM generate_series(0, $n - 1, 5000) i WHERE NOT revenue_sink.seen('s', 'o' || i / 3, 'e' || i)"),
	'0', 'a standby knows all events');
kill_server($node);
$standby->promote;
$standby->append_conf('postgresql.conf', "synchronous_standby_names = ''");
$standby->reload;
is_whole('after a promotion', $standby);
resume_merging($standby);

# With memory enough, no slice is cold, and large ones are loaded.
$standby->append_conf('postgresql.conf', "revenue_sink.dedup_memory = '64MB'");
$standby->restart;
is_whole('with more memory', $standby);

# Slices expire as a whole.
sql("SELECT revenue_sink.apply('s', 'o', 'later', '2024-03-03 12:00+00', 0)", $standby);
wait_for('all slices have expired', "NOT EXISTS (SELECT FROM $table{slice} WHERE events > 0)", $standby);
is(sql($check, $standby), '', 'expired: check() finds nothing');

# Slices that have lost a row are not merged, and the worker says why. It does everything
# else, and merges the slices once the rows are back.
$standby->append_conf('postgresql.conf', "revenue_sink.dedup_memory = '1MB'");
$standby->restart;
sql("CREATE TABLE lost AS SELECT * FROM $table{sealed} LIMIT 0", $standby);
my $slices = "(SELECT count(*) FROM $table{slice} WHERE events > 0)";
my $late = 0;

sub feed_late
{
	my $sql = sprintf(q(SELECT sum(r.applied) FROM (SELECT array_agg('late' || i) o, array_agg('2024-03-03 13:00+00'::timestamptz) t,
	array_agg(1::numeric) m FROM generate_series(%d, %d) i) a, revenue_sink.apply('s', o, o, t, m) r), $late, $late + 29_999);

	is(sql($sql, $standby), 30_000, 'later events are applied');
	$late += 30_000;
	wait_for('the events are sealed', "$hot < 21000", $standby);
	return;
}

# each slice loses a row as soon as it is there
wait_until('the merge fails', sub {
	feed_late();
	sql("INSERT INTO lost SELECT * FROM $table{sealed} WHERE ctid IN
		(SELECT min(ctid) FROM $table{sealed} WHERE slice > 0 AND slice NOT IN (SELECT slice FROM lost) GROUP BY slice);
		DELETE FROM $table{sealed} s USING lost l WHERE s.slice = l.slice AND s.first = l.first", $standby);
	return sql("SELECT last_error_sqlstate = 'XX001' AND last_error_message LIKE 'slices % events, but were sealed with %' FROM revenue_sink.stat_sink WHERE sink = 's'",
		$standby) eq 't';
});
my $sealed = sql("SELECT $slices", $standby);
feed_late();
cmp_ok(sql("SELECT $slices", $standby), '>', $sealed, 'sealing goes on');
isnt(sql($check, $standby), '', 'check() finds the damage');
sql("INSERT INTO $table{sealed} SELECT * FROM lost", $standby);
wait_for('the slices are merged', "$slices < $sealed", $standby);
is(sql($check, $standby), '', 'the rows are back: check() finds nothing');

$standby->stop;
done_testing();
