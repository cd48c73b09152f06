# Events go from the index into sealed slices, and at every step of that an event
# that was counted is known: beside writers and unfinished transactions, while a
# slice is being made, through crashes, rewritten tables, a restore, a standby that
# takes over, and until the slice expires.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

# In 3 MB, sealing begins at some 60,500 events.
my $node = new_node('sealing', streaming => 1, conf => q(
revenue_sink.dedup_memory = '3MB'
revenue_sink.worker_interval = '20ms'
max_prepared_transactions = 10
autovacuum = off
));
create_sink($node, 'postgres');
my $hot = 61_000;
my %table = map { $_ => sink_table($node, 'postgres', $_) } qw(seen slice sealed filter);

sub sql
{
	my ($sql, $where) = @_;

	return ($where // $node)->safe_psql('postgres', $sql);
}

# The SQL of a call with the events from .. to, or each step-th of them, in as many minutes as there are
# thousands of events; its result are the counts of applied, duplicate, deferred,
# conflict and late.
sub feed
{
	my ($from, $to, $amount, $day, $step) = @_;

	return sprintf(q(SELECT concat_ws('|', applied, duplicate, deferred, conflict, late)
FROM (SELECT array_agg('o' || i / 3), array_agg('e' || i), array_agg('2024-03-%02d 10:00+00'::timestamptz + i / 1000 * interval '1 minute'),
	array_agg(%s::numeric) FROM generate_series(%d, %d - 1, %d) i) AS a (o, e, t, m), revenue_sink.apply('s', o, e, t, m)),
		$day // 1, $amount // 1, $from, $to, $step // 1);
}

my $sealed = "SELECT coalesce(sum(events), 0) FROM $table{slice}";
my $seen = "SELECT seen_events FROM revenue_sink.stat_sink WHERE sink = 's'";
my $check = "SELECT problem FROM revenue_sink.check('s')";

sub wait_for
{
	my ($name, $condition, $where) = @_;

	return wait_until($name, sub { sql("SELECT $condition", $where) eq 't' });
}

sub is_whole
{
	my ($n, $name, $where) = @_;

	is(sql(feed(0, $n), $where), "0|$n|0|0|0", "$name: all events are duplicates");
	is(sql('SELECT sum(events), sum(revenue) FROM fact_revenue_1m', $where), "$n|$n", "$name: each event counts once");
	is(sql($seen, $where), $n, "$name: each event is remembered once");
	is(sql($check, $where), '', "$name: check() finds nothing");
	is(sql('SELECT bool_and(seen_bytes_hot + seen_bytes_filters + seen_bytes_fences = seen_bytes_memory) FROM revenue_sink.stat_sink', $where),
		't', "$name: the kinds of memory add up");
	return;
}

# Sealing leaves a part of the events in the index.
my $n = 200_000;
is(sql(feed(0, $n)), "$n|0|0|0|0", 'events are applied');
wait_for('most events are sealed', "(SELECT count(*) >= 2 AND sum(events) >= $n - $hot FROM $table{slice})");
is_whole($n, 'sealed');
wait_for('what the server uses is what its sink uses', '(SELECT (sinks, used_bytes, hot_bytes, filter_bytes, fence_bytes)
	= (1, seen_bytes_memory, seen_bytes_hot, seen_bytes_filters, seen_bytes_fences) FROM revenue_sink.stat_pool, revenue_sink.stat_sink)');
is(sql("SELECT (SELECT sum(events) FROM $table{seen}) + ($sealed)"), $n, 'an event is either in a page row or in a slice');
is(sql("SELECT count(*) FROM generate_series(0, $n - 1) i WHERE NOT revenue_sink.seen('s', 'o' || i / 3, 'e' || i)"), '0',
	'seen() knows all of them');
is(sql("SELECT revenue_sink.seen('s', 'o1', 'other')"), 'f', 'seen() knows no other one');
is(sql(feed(0, $n, 2)), "0|0|0|$n|0", 'another amount is a conflict');
is(sql("BEGIN ISOLATION LEVEL SERIALIZABLE; SAVEPOINT a;\n" . feed(0, 100) . ";\nROLLBACK TO a;\n" . feed(0, 100) . ";\nCOMMIT"),
	"0|100|0|0|0\n0|100|0|0|0", 'a serializable transaction with a savepoint');

# What is unfinished stays in the index: its transaction may end either way.
sql("BEGIN;\n" . feed($n, $n + 24000) . ";\nPREPARE TRANSACTION 'kept'");
sql("BEGIN;\n" . feed($n + 24000, $n + 48000) . ";\nPREPARE TRANSACTION 'undone'");
my $before = sql($sealed);
is(sql(feed($n + 48000, $n + 48000 + $hot)), "$hot|0|0|0|0", 'others go on');
wait_for('their events are sealed', "($sealed) >= $before + 16000");
is(sql(feed($n, $n + 48000)), '0|0|48000|0|0', 'events of unfinished transactions are deferred');
sql("COMMIT PREPARED 'kept'; ROLLBACK PREPARED 'undone'");
$n += 48000 + $hot;
wait_until('deferred events are settled', sub { sql('SELECT count(*) FROM revenue_sink.deferred') eq '0' });
is_whole($n, 'after unfinished transactions');

# A slice is made, but its transaction has not committed: the worker waits for a
# standby that isn't there. If it waits with something else, that is committed, and a
# cancel lets the worker go on.
sub resume_sealing
{
	my ($where) = @_;

	sql('ALTER SYSTEM RESET synchronous_standby_names', $where);
	sql('SELECT pg_reload_conf()', $where);
	return;
}

sub halt_sealing
{
	my ($where) = @_;
	my $waiting = "FROM pg_stat_activity WHERE backend_type LIKE 'revenue_sink worker%' AND wait_event = 'SyncRep'";

	sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'", $where);
	sql('SELECT pg_reload_conf()', $where);
	wait_until('the worker seals, and waits for a standby', sub {
		# soon there is something to seal
		sql("SET synchronous_commit = local;\n" . feed($n, $n + 8000), $where);
		$n += 8000;
		return 1 if sql("SELECT count(*) $waiting AND query LIKE 'seal%'", $where) eq '1';
		sql("SELECT pg_cancel_backend(pid) $waiting AND query NOT LIKE 'seal%'", $where);
		return 0;
	});
	return;
}

halt_sealing();
is(sql("SET synchronous_commit = local;\n" . feed(0, $n)), "0|$n|0|0|0", 'an unfinished slice: all events are duplicates');
is(sql("SET synchronous_commit = local;\nBEGIN;\n" . feed($n, $n + 1000) . ";\nROLLBACK"), '1000|0|0|0|0',
	'an unfinished slice: new events are applied');
is(sql("SET synchronous_commit = local;\n$check"), '', 'an unfinished slice: check() finds nothing');

# The moment after the commit: somebody else has the maintenance lock, so that the
# worker can do nothing more for the slice.
sub await_maintenance
{
	my $merger = $node->background_psql('postgres');
	my $pid = $merger->query_safe('SELECT pg_backend_pid()');

	$merger->query_until(qr/sent/, "\\echo sent\nSET synchronous_commit = local; BEGIN; SELECT revenue_sink.merge('s') >= 0;\n");
	wait_for('somebody waits for the maintenance lock', "wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $pid");
	return $merger;
}

my $merger = await_maintenance();
resume_sealing();
like($merger->query_safe('SELECT 1'), qr/^1$/m, 'the maintenance lock is passed on');
is(sql(feed(0, $n)), "0|$n|0|0|0", 'the slice is committed: all events are duplicates');
$merger->query_safe('ROLLBACK');
$merger->quit;
is_whole($n, 'the slice is finished');

# A crash at that moment: the slice either is there as a whole or not at all.
halt_sealing();
kill_server($node);
$node->start;
resume_sealing();
is_whole($n, 'after a crash while a slice was made');
wait_for('the slice is made', "count(*) <= $hot FROM (SELECT 1 FROM $table{seen}, generate_series(1, events)) AS e");
kill_server($node);
$node->start;
is(sql(feed(0, $n)), "0|$n|0|0|0", 'right after a crash: all events are duplicates');
is_whole($n, 'after a crash');

# The worker itself is killed in the middle, and so is everybody.
halt_sealing();
kill_process('KILL', (worker_pids($node))[0]);
$node->poll_query_until('postgres', 'SELECT true');
resume_sealing();
is_whole($n, 'after the worker was killed');

# A writer has asked the slices while one of them was being made, and waits for a table
# before it goes on to check its other events. In the meantime the slice is finished.
my $holder = $node->background_psql('postgres');
my $locker = $node->background_psql('postgres');
my $writer = $node->background_psql('postgres');
$holder->query_safe("SET synchronous_commit = local; BEGIN;\n" . feed(900_000, 900_040));
halt_sealing();
my $slices = sql("SELECT count(*) FROM $table{slice}");
my $both = feed($n - $hot, $n - $hot + 10000) =~ s/FROM generate_series\((.*?)\) i\)/FROM (SELECT generate_series($1) UNION ALL SELECT generate_series(900000, 900039)) AS _(i))/r;
$locker->query_safe('BEGIN; LOCK TABLE revenue_sink.deferred_event IN SHARE MODE');
$writer->query_until(qr/sent/, "\\echo sent\nSET synchronous_commit = local; BEGIN;\n$both;\n");
my $waits = "EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT granted AND relation = 'revenue_sink.deferred_event'::regclass AND backend_type = 'client backend')";
wait_for('the writer waits for the table', $waits);
$merger = await_maintenance();
resume_sealing();
wait_for('the slice is finished', "count(*) > $slices FROM $table{slice}");
$locker->query_safe('ROLLBACK');
like($writer->query_safe('SELECT 1'), qr/^0\|10000\|40\|0\|0$/m, 'events of a slice that was finished meanwhile are duplicates');
$_->query_safe('ROLLBACK') foreach $merger, $writer, $holder;
$_->quit foreach $merger, $holder, $locker, $writer;
is_whole($n, 'after a writer that waited for a slice');

# Sealing stops at each of its steps in turn, because somebody has locked the table that
# comes next; there the worker is cancelled, and then the server crashes.
foreach my $kind (qw(sealed filter slice))
{
	my $locked = "EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT granted AND relation = '$table{$kind}'::regclass AND backend_type LIKE 'revenue_sink worker%')";
	my $locker = $node->background_psql('postgres');

	$locker->query_safe("BEGIN; LOCK TABLE $table{$kind} IN SHARE MODE");
	is(sql(feed($n, $n + $hot)), "$hot|0|0|0|0", "stopped before $kind: events are applied");
	$n += $hot;
	wait_for("the worker waits for $kind", $locked);
	is(sql(feed(0, $n)), "0|$n|0|0|0", "stopped before $kind: all events are duplicates");
	sql('SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = ' . (worker_pids($node))[0]);
	is(sql(feed(0, $n)), "0|$n|0|0|0", "cancelled before $kind: all events are duplicates");
	wait_for("the worker waits for $kind again", $locked);
	kill_server($node);
	$locker->{run}->kill_kill if $locker->{run};
	$node->start;
	is_whole($n, "crashed before $kind");
	wait_for('the events are sealed', "count(*) <= $hot FROM (SELECT 1 FROM $table{seen}, generate_series(1, events)) AS e");
}
is_whole($n, 'sealed after all');

# A writer has asked the slices, and waits for a table before it goes on to check
# its other events. In the meantime these are sealed. (The worker's next round seals
# first, and then waits for that table, too.)
$node->append_conf('postgresql.conf', "revenue_sink.worker_interval = '1h'");
$node->restart;
wait_for('the worker has had its round', "EXISTS (SELECT FROM pg_stat_activity WHERE backend_type LIKE 'revenue_sink worker%' AND state = 'idle' AND wait_event = 'Extension' AND query ~ '^(pack|merge slices)')");
$holder = $node->background_psql('postgres');
$locker = $node->background_psql('postgres');
$writer = $node->background_psql('postgres');
sql("SELECT revenue_sink.alter_sink('s', max_future => '100 days')");
$n += 4000;
is(sql(feed($n - 4000, $n)), '4000|0|0|0|0', 'hot events');
$holder->query_safe("BEGIN;\n" . feed($n, $n + 40));
$locker->query_safe('BEGIN; LOCK TABLE revenue_sink.deferred_event IN SHARE MODE');
$writer->query_until(qr/sent/, "\\echo sent\n" . feed($n - 4000, $n + 40) . ";\n");
wait_for('the writer waits for the table', $waits);
is(sql(feed($n + 40, $n + 40 + 2 * $hot)), 2 * $hot . '|0|0|0|0', 'others write more');
$node->append_conf('postgresql.conf', "revenue_sink.worker_interval = '20ms'");
$node->reload;
wait_for('the hot events are sealed', "(SELECT NOT EXISTS (SELECT FROM $table{seen} WHERE events > 0 AND newest < '2024-03-01 10:00+00'::timestamptz + ($n - 1) / 1000 * interval '1 minute'))");
$locker->query_safe('ROLLBACK');
like($writer->query_safe('SELECT 1'), qr/^0\|4000\|40\|0\|0$/m, 'events that were sealed meanwhile are duplicates');
$holder->query_safe('COMMIT');
$n += 40 + 2 * $hot;
wait_until('deferred events are settled', sub { sql('SELECT count(*) FROM revenue_sink.deferred') eq '0' });
$_->quit foreach $holder, $locker, $writer;
is_whole($n, 'after a writer that waited');

# Rows move to other files, and pieces of filters get lost.
foreach my $kind (qw(sealed filter slice seen))
{
	sql("VACUUM FULL $table{$kind}");
	is(sql(feed(0, $n)), "0|$n|0|0|0", "VACUUM FULL of $kind: all events are duplicates");
}
is_whole($n, 'after VACUUM FULL');
my $last = sql("SELECT max(slice) FROM $table{slice}");
sql("DELETE FROM $table{filter} WHERE slice > 0 AND piece % 2 = 0");
kill_server($node);
$node->start;
is_whole($n, 'after pieces of filters were lost');

# No worker is there to load anything.
my $some = $n / 20;
$node->append_conf('postgresql.conf', 'max_worker_processes = 0');
$node->restart;
is(sql(feed(0, $n, 1, 1, 20)), "0|$some|0|0|0", 'without a worker: events of all slices are duplicates');
$node->append_conf('postgresql.conf', 'max_worker_processes = 8');

# There is less memory now: for some slices there is none at all, and some are cold.
# That depends on how much there is.
foreach my $kb (1024, 1536, 2048)
{
	$node->append_conf('postgresql.conf', "revenue_sink.dedup_memory = '${kb}kB'");
	$node->restart;
	is(sql(feed(0, 1000)), '0|1000|0|0|0', "$kb kB, right after a restart: events are duplicates");
	wait_for('the worker has nothing more to load', "EXISTS (SELECT FROM pg_stat_activity WHERE backend_type LIKE 'revenue_sink worker%' AND query ~ '^(pack|merge slices)')");
	is(sql(feed(0, $n, 1, 1, 20)), "0|$some|0|0|0", "$kb kB: events of all slices are duplicates");
	is(sql('SELECT used_bytes = hot_bytes + filter_bytes + fence_bytes AND used_bytes <= bytes FROM revenue_sink.stat_pool'), 't',
		"$kb kB: the kinds of memory add up to what is used");
}
$node->append_conf('postgresql.conf', "revenue_sink.dedup_memory = '3MB'");
$node->restart;
is_whole($n, 'with as much memory as before');

# check() finds what doesn't fit together, here in a slice that has all of its filter.
is(sql(feed($n, $n + $hot)), "$hot|0|0|0|0", 'more events');
$n += $hot;
wait_for('there is another slice', "max(slice) > $last FROM $table{slice}");
my $one = sql("SELECT max(slice) FROM $table{slice}");
sub broken
{
	my ($break, $found, $name) = @_;

	sql('SET synchronous_commit = off; SELECT revenue_sink.merge(sink) FROM revenue_sink.sink');
	is(sql("BEGIN;\n$break;\n$check;\nROLLBACK"), $found, "check() finds $name");
	return;
}
my $events = sql("SELECT events FROM $table{slice} WHERE slice = $one");
my $rows = sql("SELECT rows FROM $table{slice} WHERE slice = $one");
broken("UPDATE $table{filter} SET lines = decode(repeat('00', length(lines)), 'hex') WHERE slice = $one",
	"slice $one has $events events that its filter does not find", 'a filter that misses events');
broken("UPDATE $table{sealed} SET first = first + 1 WHERE slice = $one AND first = (SELECT min(first) FROM $table{sealed} WHERE slice = $one)",
	"slice $one has events that are out of order", 'a row that begins elsewhere');
broken("DELETE FROM $table{sealed} WHERE slice = $one",
	"slice $one has 0 events in 0 rows, but was sealed with $events in $rows", 'a slice without rows');

# Another server takes over while a slice is being made, and an older copy is restored.
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
halt_sealing();
$node->wait_for_catchup('standby', 'replay', $node->lsn('flush'));
kill_server($node);
$standby->promote;
$standby->append_conf('postgresql.conf', "synchronous_standby_names = ''");
$standby->reload;
is_whole($n, 'after a promotion', $standby);
resume_sealing($standby);
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
$standby->safe_psql('postgres', 'CREATE DATABASE copy');
$standby->run_log([ 'pg_dump', '-d', $standby->connstr('postgres'), '-Fc', '-f', $dump ]);
$standby->command_ok([ 'pg_restore', '--exit-on-error', '-d', $standby->connstr('copy'), $dump ], 'a dump is restored');
is($standby->safe_psql('copy', feed(0, $n)), "0|$n|0|0|0", 'restored: all events are duplicates');
is($standby->safe_psql('copy', $check), '', 'restored: check() finds nothing');

# Slices expire as a whole; disk and memory come back.
wait_for('the rest is sealed', "($sealed) > $n / 2", $standby);
my $bytes = sql('SELECT seen_bytes_memory FROM revenue_sink.stat_sink', $standby);
is(sql(feed(0, 1, 1, 20), $standby), '0|0|0|1|0', 'a known event at a later time is a conflict');
is(sql("SELECT revenue_sink.apply('s', 'later', 'e', '2024-03-20 00:00+00', 1)", $standby), 'applied', 'a later event');
wait_for('all others have expired', "($seen) = 1", $standby);
is(sql(feed(0, $n), $standby), "0|0|0|0|$n", 'expired events are late');
is(sql("SELECT (SELECT count(*) FROM $table{sealed} WHERE slice > 0) + (SELECT count(*) FROM $table{filter} WHERE slice > 0)
	+ (SELECT count(*) FROM $table{slice} WHERE slice > 0)", $standby), '0', 'nothing is left of the slices');
wait_for('memory has come back', "(SELECT seen_bytes_memory < $bytes / 3 FROM revenue_sink.stat_sink)", $standby);
is(sql($check, $standby), '', 'expired: check() finds nothing');
sql("SELECT revenue_sink.drop_sink('s')", $standby);
is(sql("SELECT count(*) FROM pg_class WHERE relnamespace = 'revenue_sink'::regnamespace AND relname ~ '_[0-9]+\$'", $standby), '0',
	'a dropped sink leaves no table behind');
is($standby->safe_psql('copy', feed(0, $n)), "0|$n|0|0|0", 'the other sink still knows its events');
$standby->safe_psql('copy', "SELECT revenue_sink.drop_sink('s')");

# Events behind the horizon are counted under the policy 'apply', and sealed like others.
sql("SELECT revenue_sink.create_sink('s', dedup_window => '1 hour', late_policy => 'apply')", $standby);
is(sql("SELECT revenue_sink.apply('s', 'now', 'e', '2024-03-01 20:00+00', 1)", $standby), 'applied', 'an event sets the horizon');
wait_for('the horizon is there', "(SELECT horizon = '2024-03-01 19:00+00' FROM revenue_sink.stat_sink)", $standby);
is(sql(feed(0, 3 * $hot), $standby), 3 * $hot . '|0|0|0|0', 'late events are applied');
wait_for('they are forgotten', "($seen) = 1", $standby);
is(sql($check, $standby), '', 'late events: check() finds nothing');
sql("SELECT revenue_sink.drop_sink('s')", $standby);
wait_for('all memory has come back', '(SELECT (sinks, used_bytes) = (0, 0) FROM revenue_sink.stat_pool)', $standby);

# Twenty sinks share the memory, which is too small for the events of all.
my ($sinks, $each) = (20, 20_000);
foreach my $i (1 .. $sinks)
{
	sql("SELECT revenue_sink.create_sink('s$i', 'fact$i', 'events$i')", $standby);
	is(sql(feed(0, $each) =~ s/apply\('s'/apply('s$i'/r, $standby), "$each|0|0|0|0", "sink $i takes its events");
}
foreach my $i (1 .. $sinks)
{
	is(sql(feed(0, $each) =~ s/apply\('s'/apply('s$i'/r, $standby), "0|$each|0|0|0", "sink $i: all events are duplicates");
	is(sql("SELECT problem FROM revenue_sink.check('s$i')", $standby), '', "sink $i: check() finds nothing");
}

# Each sink has a chunk of 64 kB besides.
cmp_ok(sql('SELECT sum(seen_bytes_memory) FROM revenue_sink.stat_sink', $standby), '<=', (3 * 1024 + $sinks * 64) * 1024,
	'the memory is bounded');

done_testing();
