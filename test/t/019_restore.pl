# All kinds of restore: a sink wakes up when all of it is there, and says until
# then what is missing.
#
# The worker of the new server looks ten times a second, and callers try all the
# time. No event that was counted before the dump may be counted again, or be
# lost, whatever order, parallelism or partial restore brought it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

my $seed   = $ENV{RSINK_SEED} || 1;
my $random = RevenueSink::Random->new($seed);
my $dir    = PostgreSQL::Test::Utils::tempdir();

# The source's worker merges only when told to, the target's all the time.
my $source = new_node('source', conf => q(
revenue_sink.worker_interval = '1h'
autovacuum = off
));
my $target = new_node('target', conf => q(
revenue_sink.worker_interval = '100ms'
max_worker_processes = 40
autovacuum = off
));

foreach my $node ($source, $target)
{
	$node->safe_psql('postgres', 'CREATE ROLE seller LOGIN; CREATE ROLE mallory LOGIN');
}

# ----------------------------------------------------------------------
# What is dumped: merged totals and deltas that aren't, a ledger, epochs and
# offsets, dead letters, an answer to an event that was deferred, and an event that
# waits for a transaction that no dump can have.

$source->safe_psql('postgres', 'CREATE DATABASE shop');
$source->safe_psql('shop', q(
SET client_min_messages = warning;
CREATE EXTENSION revenue_sink;
CREATE SCHEMA shop AUTHORIZATION seller;
SET ROLE seller;
SELECT revenue_sink.create_sink('s', 'shop.revenue', 'shop.events', dedup_window => '3 days');
SELECT revenue_sink.create_sink('t', 'shop.total', 'shop.total_in', mode => 'totals');
));

# The SQL that delivers the events first..last, as an INSERT and as a call.
sub events_of
{
	my ($first, $last) = @_;

	return "SELECT 'order-' || i / 3, 'event-' || i, timestamptz '2024-03-01 10:00+00' "
	  . "+ i * interval '2 s', i + 0.25, 'shop-' || i % 3 FROM generate_series($first, $last) i";
}

sub apply_of
{
	my ($first, $last) = @_;

	return "SELECT a.* FROM (SELECT array_agg(o), array_agg(e), array_agg(t), array_agg(a), array_agg(g) FROM ("
	  . events_of($first, $last) . ") AS every (o, e, t, a, g)) AS one (o, e, t, a, g), "
	  . "revenue_sink.apply('s', o, e, t, a, g) a";
}

my $begin = "SELECT revenue_sink.begin_batch('s', 'job', 'writer', 1, 7)";
my $gid   = $source->safe_psql('shop', q(
\set QUIET on
\pset tuples_only
\o /dev/null
SET ROLE seller;
BEGIN;
) . apply_of(1, 300) . q(;
PREPARE TRANSACTION 'first';
) . apply_of(300, 300) . q(;
COMMIT PREPARED 'first';
SELECT revenue_sink.merge('s');
) . apply_of(301, 340) . qq(;
CALL revenue_sink.recover('s', 'job', NULL, 1);
BEGIN;
$begin;
) . apply_of(341, 350) . q(;
SELECT revenue_sink.store_offsets('s', 'orders', '{0,1}', '{10,20}');
COMMIT;
BEGIN;
SELECT revenue_sink.begin_batch('s', 'job', 'writer', 1, 8);
) . apply_of(351, 360) . q(;
SELECT revenue_sink.pre_commit('s') AS gid \gset
PREPARE TRANSACTION :'gid';
CALL revenue_sink.commit_prepared(:'gid');
SELECT revenue_sink.apply('s', 'order-0', 'event-1', '2024-03-01 10:00:02+00', 99, 'shop-1');
SELECT revenue_sink.alter_sink('s', on_bad_event => 'reject');
SELECT revenue_sink.apply('s', '', 'nothing', '2024-03-01 10:00:02+00', 1, 'shop-1');
SELECT revenue_sink.resolve('s', 'discard', array_agg(letter), 'why') FROM revenue_sink.dead_letter WHERE order_id = '';
SELECT revenue_sink.upsert('t', '{2024-03-01 10:01+00,2024-03-01 10:02+00}', '{65,66}', NULL, 3);
SELECT revenue_sink.merge('t');
SELECT revenue_sink.upsert('t', '{2024-03-01 10:02+00,2024-03-01 10:03+00}', '{67,68}', NULL, 4);
BEGIN;
SELECT revenue_sink.apply('s', 'held', 'held', '2024-03-01 10:09+00', 7, 'held');
PREPARE TRANSACTION 'held';
SELECT revenue_sink.apply('s', 'held', 'held', '2024-03-01 10:09+00', 7, 'held');
\o
\echo :gid));

# Everything that must be the same in the end, except for the event that was
# deferred.
my $state_sql = q(
SELECT minute, group_key, revenue, events FROM shop.revenue WHERE group_key <> 'held' ORDER BY 1, 2;
SELECT minute, group_key, revenue FROM shop.total ORDER BY 1, 2;
SELECT * FROM revenue_sink.offsets('s') ORDER BY 1, 2;
SELECT sink, reason, order_id, event_id, amount, arrived_at, resolution, resolved_at, resolved_by, note FROM revenue_sink.dead_letter ORDER BY 1, 2;
SELECT * FROM revenue_sink.settled WHERE order_id <> 'held';
SELECT sink, job, writer, epoch, opened_at, last_number, events FROM revenue_sink.writer ORDER BY 1, 2, 3;
SELECT sink, owner, mode, fact, ingest, dedup_window, on_bad_event FROM revenue_sink.sink ORDER BY 1);
my $state = $source->safe_psql('shop', $state_sql);

is($source->safe_psql('shop', q(
SELECT count(*) > 1 FROM revenue_sink.total_1;
SELECT count(*) > 1 FROM revenue_sink.delta_1 WHERE minute > '-infinity';
SELECT order_id FROM revenue_sink.deferred;
SELECT order_id, answer FROM revenue_sink.settled;
SELECT count(*) FROM revenue_sink.dead_letter;
SELECT count(*) FROM revenue_sink.total_2;
SELECT count(*) FROM revenue_sink.sink WHERE problem IS NULL)), "t\nt\nheld\norder-100|duplicate\n2\n2\n2",
	'the source has rows of every kind');

# ----------------------------------------------------------------------
# Tools

sub dump_to
{
	my ($node, $db, $file, @options) = @_;

	system_or_bail('pg_dump', '-d', $node->connstr($db), '-f', "$dir/$file", @options);
	return;
}

sub new_database
{
	my ($db) = @_;

	$target->safe_psql('postgres', "CREATE DATABASE $db");
	return;
}

sub drop_database
{
	my ($db) = @_;

	$target->safe_psql('postgres', "DROP DATABASE $db");
	return;
}

sub restore
{
	my ($db, $file, @options) = @_;

	system_or_bail('pg_restore', '--exit-on-error', '-d', $target->connstr($db), @options, "$dir/$file");
	return;
}

# What the server answers to SQL: the result, or SQLSTATE and message with detail.
sub say_of
{
	my ($db, $sql) = @_;

	return answer_of($target, $db, $sql, 'DETAIL');
}

# A caller tries an event of the dump.
my $try = q(SELECT revenue_sink.apply('s', 'order-0', 'event-1', '2024-03-01 10:00:02+00', 1.25, 'shop-1'));

sub problem_of
{
	my ($db, $sink) = @_;

	return $target->safe_psql($db, "SELECT problem FROM revenue_sink.sink WHERE sink = '$sink'");
}

sub wait_for_home
{
	my ($db) = @_;

	wait_until("both sinks are at home in $db", sub {
		$target->safe_psql($db, 'SELECT count(*) FROM revenue_sink.sink WHERE problem IS NULL') eq '2' });
	return;
}

# Everything is there, and each event counts once. A number tells apart the new
# events of several checks.
my $new_event = 0;

sub check_whole
{
	my ($db, $how) = @_;

	is(say_of($db, $try), 'duplicate', "$how: an event of the dump is a duplicate");
	wait_for_home($db);
	wait_until("$db has settled", sub {
		$target->safe_psql($db, 'SELECT count(*) FROM revenue_sink.deferred') eq '0' });
	is($target->safe_psql($db, $state_sql), $state, "$how: the state is that of the source");
	is($target->safe_psql($db, q(
SELECT revenue, events FROM shop.revenue WHERE group_key = 'held';
SELECT answer FROM revenue_sink.settled WHERE order_id = 'held';
SELECT problem FROM revenue_sink.check('s');
SELECT problem FROM revenue_sink.check('t')
) . ";\n" . apply_of(1, 360)), "7|1\napplied\n0|360|0|0|0|0",
		"$how: the held event counts once, check() finds nothing, all are duplicates");
	$new_event++;
	is($target->safe_psql($db, qq(
BEGIN; $begin; COMMIT;
SELECT revenue_sink.apply('s', 'new', 'new-$new_event', '2024-03-01 10:09+00', 1, 'held');
SELECT revenue_sink.outcome('$gid');
SELECT revenue_sink.upsert('t', '{2024-03-01 10:03+00}', '{1}', NULL, 2);
SELECT revenue, events FROM shop.revenue WHERE group_key = 'held';
SELECT revenue FROM shop.total WHERE minute = '2024-03-01 10:03+00')) =~ s/^1\n(?=8)//mr,
		"f\napplied\ncommitted\n8|2\n68", "$how: the sinks go on");
	return;
}

# ----------------------------------------------------------------------
# Everything at once

dump_to($source, 'shop', 'custom', '-Fc');
dump_to($source, 'shop', 'directory', '-Fd');

foreach my $how ([ whole => 'custom' ], [ at_once => 'custom', '-1' ])
{
	my ($db, $file, @options) = @$how;

	new_database($db);
	restore($db, $file, @options);
	check_whole($db, $db);
}

# ... and once more over the live sinks, from a pipe
my $clean = "pg_restore --clean --if-exists -f - $dir/custom | psql -Xq -v ON_ERROR_STOP=1 -o /dev/null -d '"
  . $target->connstr('whole') . "'";
system_or_bail('bash', '-c', "set -o pipefail; $clean");
check_whole('whole', 'clean');
drop_database('at_once');

# ----------------------------------------------------------------------
# In steps

# The schema comes first: a sink without its row in the catalog can't be used.
new_database('steps');
restore('steps', 'custom', '-s');
like(say_of('steps', $try), qr/^42704 sink "s" does not exist$/, '-s: no sink yet');

# A sink that is made now gets its own number, and is left alone.
my $made = q(SET client_min_messages = warning;
SELECT revenue_sink.create_sink('made', 'made_fact', 'made_events');
SELECT revenue_sink.apply('made', 'o', 'e', '2024-03-01 10:01+00', 1);
SELECT id FROM revenue_sink.sink_catalog WHERE name = 'made');
is($target->safe_psql('steps', $made), "\napplied\n3", 'a sink made in between has another number');
restore('steps', 'custom', '-a');
wait_until('the sinks are at home', sub { problem_of('steps', $_) eq '' or return 0 foreach qw(s t); 1 });
is(say_of('steps', q(
SELECT revenue_sink.apply('made', 'o', 'e', '2024-03-01 10:01+00', 1);
SELECT sum(revenue) FROM made_fact;
SELECT problem FROM revenue_sink.check('made');
SELECT revenue_sink.drop_sink('made');
SELECT revenue_sink.create_sink('made', 'made_fact', 'made_events');
SELECT id > 2 FROM revenue_sink.sink_catalog WHERE name = 'made';
SELECT revenue_sink.drop_sink('made'))), "duplicate\n1\n\n\nt\n", 'nothing of the new sink is lost, and sink numbers go on');
check_whole('steps', '-s, then -a');
drop_database('steps');

# Sections: before the last section there are no indexes, and no marks on the
# views.
new_database('sections');
restore('sections', 'custom', "--section=$_") foreach qw(pre-data data);
like(say_of('sections', $try), qr/^55000 .*: The sink has not arrived whole: .*\.$/, 'refused before the last section');
like(problem_of('sections', $_), qr/^the sink has not arrived whole: table "revenue_sink.seen_\d" has no index on its column "oldest"$/,
	"sections: what sink $_ lacks") foreach qw(s t);

restore('sections', 'custom', '--section=post-data');
check_whole('sections', 'sections');
drop_database('sections');

# The tables come one by one, in any order, and a caller tries after each step.
my @toc = grep { /^\d+;.* (TABLE DATA|SEQUENCE SET) / }
  split /\n/, (run_command([ 'pg_restore', '-l', "$dir/custom" ]))[0];
is(scalar(grep { /TABLE DATA/ } @toc), 22, 'tables of the dump');

sub shuffled
{
	my @list = @_;

	foreach my $i (reverse 1 .. $#list)
	{
		my $j = $random->below($i + 1);
		@list[ $i, $j ] = @list[ $j, $i ];
	}
	return @list;
}

# The tables that a sink needs to be complete
sub tables_of
{
	my ($number) = @_;

	return (map { "${_}_$number" } qw(seen slice sealed filter delta total)),
	  qw(sink_catalog sink_state deferred_event settled_event dead_letter_event resolved_event epoch ledger committed_offset decision);
}

my %orders = (
	'in order'         => [@toc],
	'in reverse order' => [ reverse @toc ],
	map { ("order $_" => [ shuffled(@toc) ]) } 1 .. 3);
my $n = 0;

foreach my $order (sort keys %orders)
{
	my $db = 'order' . $n++;
	my %missing = map { $_ => { map { $_ => 1 } tables_of($_) } } 1 .. 2;
	my @wrong;

	new_database($db);
	restore($db, 'custom', '-s');
	foreach my $entry (@{ $orders{$order} })
	{
		my ($table) = $entry =~ /(?:TABLE DATA|SEQUENCE SET) revenue_sink (\w+)/;
		append_to_file("$dir/$db.$table", "$entry\n");
		restore($db, 'custom', '-L', "$dir/$db.$table");
		delete $missing{$_}{$table} foreach 1 .. 2;

		my $said = say_of($db, $try);
		my $want = $missing{1}{sink_catalog} ? qr/^42704 / : %{ $missing{1} } ? qr/^55000 .*The sink has not arrived whole/ :
		  qr/^duplicate$/;
		push @wrong, "after $table: $said" unless $said =~ $want;
		my $problem = $missing{2}{sink_catalog} ? '' : problem_of($db, 't');
		push @wrong, "t after $table: $problem"
		  if !$missing{2}{sink_catalog} && %{ $missing{2} } && $problem !~ /^the sink has not arrived whole: /;
	}
	is(join("\n", @wrong), '', "$order: refused until all rows have arrived (seed $seed)");
	check_whole($db, $order);
	drop_database($db);
}

# The restore runs in parallel, and a caller tries all the time.
new_database('parallel');
my %said;
my $parallel = IPC::Run::start([ 'pg_restore', '--exit-on-error', '-j', '4', '-d', $target->connstr('parallel'),
	"$dir/directory" ], '>', \my $output, '2>&1');
while ($parallel->pumpable)
{
	my $said = say_of('parallel', $try);
	$said{$said}++;
	$parallel->pump_nb;
}
ok($parallel->finish, 'restored in parallel') or diag($output);
is(join("\n", grep { !/^(42704|42883|3F000|55000) |^duplicate$/ } sort keys %said), '',
	'parallel: each answer is an error or "duplicate"');
check_whole('parallel', 'parallel');
drop_database('parallel');

# If rows come one by one, nothing tells when the last one has come. In one
# transaction they all come at once.
dump_to($source, 'shop', 'inserts', '--inserts');
new_database('inserts');
system_or_bail('psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-d', $target->connstr('inserts'), '-f', "$dir/inserts");
like(say_of('inserts', $try), qr/^55000 .*: The sink has not arrived whole: the rows of table "revenue_sink.seen_1" came one by one, so it is not known whether all have come\.$/,
	'inserts: refused');
my (undef, undef, $stderr) = $target->psql('inserts', q(
SELECT revenue_sink.adopt_sink(sink) FROM revenue_sink.sink WHERE problem IS NOT NULL));
like($stderr, qr/^psql:<stdin>:2: WARNING:  sink "s" has been adopted, but may not be whole\nDETAIL:  .*came one by one/m,
	'inserts: adopt_sink() warns');
check_whole('inserts', 'inserts');
drop_database('inserts');

new_database('inserts');
system_or_bail('psql', '-Xq', '-1', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-d', $target->connstr('inserts'), '-f', "$dir/inserts");
check_whole('inserts', 'inserts in one transaction');
drop_database('inserts');

# ----------------------------------------------------------------------
# Partial restores

# Every call is refused for the same reason.
sub check_refused
{
	my ($db) = @_;

	foreach my $call (
		"SELECT * FROM revenue_sink.apply('s', '[]')",
		"INSERT INTO shop.events VALUES ('o', 'e', '2024-03-01 10:01+00', 1)",
		"COPY shop.events FROM stdin;\no\te\t2024-03-01 10:01+00\t1\tg\n\\.\n",
		"SELECT revenue_sink.upsert('t', '{2024-03-01 10:01+00}', '{1}')",
		"SELECT revenue_sink.begin_batch('s', 'job', 'writer', 1, 9)",
		"CALL revenue_sink.open_writer('s', 'job', 'writer')",
		"CALL revenue_sink.recover('s', 'job', NULL)",
		"CALL revenue_sink.commit_checkpoint('s', 'job', 9)",
		"SELECT * FROM revenue_sink.offsets('s')",
		"SELECT revenue_sink.seen('s', 'order-0', 'event-1')",
		"SELECT revenue_sink.merge('s')",
		"SELECT revenue_sink.expire('s')",
		"SELECT revenue_sink.alter_sink('s')",
		"SELECT * FROM revenue_sink.check('s')")
	{
		like(say_of($db, $call), qr/^55000 sink "[st]" cannot be used in this database: The sink has not arrived whole: /,
			'refused: ' . ($call =~ s/\n.*//sr));
	}
	return;
}

# If any one of the tables is missing, the sink says so, and its owner may adopt
# it without that table.
foreach my $table (grep { $_ ne 'sink_catalog' } tables_of(1))
{
	my $lacks = $table eq 'total_1' ? 'revenue counts \d+ events, but 360 were seen' :
	  qq(the rows of table "revenue_sink.$table" have not arrived);

	dump_to($source, 'shop', "without_$table", '-Fc', "--exclude-table-data=revenue_sink.$table");
	new_database($table);
	restore($table, "without_$table");
	like(say_of($table, $try), qr/^55000 .*: The sink has not arrived whole: $lacks\.$/, "without $table: refused");
	like(problem_of($table, 's'), qr/^the sink has not arrived whole: $lacks$/, "without $table: the problem");
	check_refused($table) if $table eq 'batch';
	(undef, undef, $stderr) = $target->psql($table, "SET ROLE seller; SELECT revenue_sink.adopt_sink('s')");
	like($stderr, qr/WARNING:  sink "s" has been adopted, but may not be whole\nDETAIL:  (?i:$lacks)\./,
		"without $table: adopt_sink() warns");
	my $answer = $table eq 'seen_1' ? 'applied' : 'duplicate';
	is(say_of($table, "SET ROLE seller; $try; SELECT problem FROM revenue_sink.sink WHERE sink = 's'"), "$answer\n",
		"without $table: adopted all the same");
	$target->safe_psql($table, "SELECT revenue_sink.adopt_sink('t')") unless $table =~ /_1$/;
	wait_until("the other sink is at home without $table", sub { problem_of($table, 't') eq '' });
	drop_database($table);
}

# Without its row in the catalog there is no sink; its tables disturb nobody.
dump_to($source, 'shop', 'without_catalog', '-Fc', '--exclude-table-data=revenue_sink.sink_catalog',
	'--exclude-table-data=revenue_sink.sink_id');
new_database('without');
restore('without', 'without_catalog');
is(say_of('without', "$made; SELECT count(*) FROM revenue_sink.sink"), "\napplied\n3\n1",
	'without the catalog and the sequence: a new sink gets a number of its own');
drop_database('without');

# One table alone is restored into a database with the extension.
my $from = -s $target->logfile;
new_database('alone');
$target->safe_psql('alone', 'SET client_min_messages = warning; CREATE EXTENSION revenue_sink');
restore('alone', 'custom', '-t', 'total_1');
is($target->safe_psql('alone', 'SELECT count(*) > 1, (SELECT count(*) FROM revenue_sink.sink) FROM revenue_sink.total_1'),
	't|0', 'one table alone: no sink');
is($target->safe_psql('alone', "$made; SELECT problem FROM revenue_sink.check('made')"), "\napplied\n2",
	'one table alone: a new sink gets a number of its own');
wait_until('the worker has merged', sub {
	$target->safe_psql('alone', 'SELECT unmerged_deltas FROM revenue_sink.stat_sink') eq '0' });
unlike(slurp_file($target->logfile, $from), qr/revenue_sink worker.*ERROR|ERROR:/, 'one table alone: no error of the worker');
drop_database('alone');

# Views alone are restored into a database with sinks of the same numbers. By
# their definitions they are views of those sinks, but nobody writes through them.
new_database('views');
is(say_of('views', q(
CREATE EXTENSION revenue_sink;
CREATE SCHEMA shop AUTHORIZATION seller;
SELECT revenue_sink.create_sink('mine', 'mine', 'mine_in');
SELECT revenue_sink.create_sink('mine too', 'mine_too', 'mine_too_in', mode => 'totals');
SELECT revenue_sink.apply('mine', 'o', 'e', '2024-03-01 10:01+00', 1))), "\n\napplied", 'views alone: other sinks');
restore('views', 'custom', '-n', 'shop');
like(say_of('views', "INSERT INTO shop.events VALUES ('o', 'e', '2024-03-01 10:01+00', 1)"), qr/^42809 "events" is not the ingest view of a sink/,
	'views alone: nothing is written through them');
like(say_of('views', 'SET ROLE seller; SELECT * FROM shop.revenue'), qr/^42501 /, 'views alone: nothing is read through them');
is(say_of('views', q(
SELECT problem FROM revenue_sink.sink;
SELECT revenue_sink.apply('mine', 'o', 'e', '2024-03-01 10:01+00', 1);
SELECT problem FROM revenue_sink.check('mine'))), "\n\nduplicate", 'views alone: the sinks go on');
drop_database('views');

# A restore without privileges: some are the extension's own. The owner of the
# views reads through them.
new_database('unprivileged');
restore('unprivileged', 'custom', '-x');
wait_for_home('unprivileged');
wait_until('the owner of the views reads', sub {
	say_of('unprivileged', 'SET ROLE seller; SELECT sum(events) > 0 FROM shop.revenue') eq 't' });
drop_database('unprivileged');

# Another superuser restores: the extension is his, and the tables aren't.
$target->safe_psql('postgres', 'CREATE ROLE other SUPERUSER LOGIN');
new_database('other');
restore('other', 'custom', '-U', 'other');
is(say_of('other', $try), 'duplicate', 'restored by another superuser: at home');
new_database('other_owns');
restore('other_owns', 'custom', '-U', 'other', '-O');
is(say_of('other_owns', $try), 'duplicate', 'restored by another superuser, who owns all: at home');
drop_database($_) foreach qw(other other_owns);

# ----------------------------------------------------------------------
# Somebody else's views

new_database('gone');
restore('gone', 'custom');
wait_for_home('gone');
$target->safe_psql('gone', 'SET client_min_messages = warning; DROP SCHEMA shop CASCADE');
like(say_of('gone', $try), qr/^42P01 .*: A view of the sink is gone/, 'views dropped: the sink is broken');
dump_to($target, 'gone', 'gone', '-Fc');
new_database('elsewhere');
restore('elsewhere', 'gone');

# The dump names no view that is gone, whatever other views there are.
$target->safe_psql('elsewhere', q(
CREATE SCHEMA mallory AUTHORIZATION mallory;
SET ROLE mallory;
CREATE TABLE mallory.own (order_id text, event_id text, event_time timestamptz, amount numeric, group_key text);
CREATE VIEW mallory.events AS TABLE mallory.own;
CREATE VIEW mallory.fact AS SELECT event_time AS minute, group_key, amount AS revenue, 1::bigint AS events FROM mallory.own;
RESET ROLE));
is($target->safe_psql('elsewhere', q(SET ROLE mallory;
SELECT count(*) FROM revenue_sink.sink;
SELECT count(*) FROM revenue_sink.stat_sink;
SELECT count(*) FROM revenue_sink.dead_letter;
SELECT count(*) FROM revenue_sink.deferred;
SELECT count(*) FROM revenue_sink.settled;
SELECT count(*) FROM revenue_sink.writer;
SELECT count(*) FROM revenue_sink.prepared)), join("\n", (0) x 7), "somebody's views: he is not shown the sink");
like(problem_of('elsewhere', $_), qr/^the sink has not arrived whole: no fact view has the triggers of the sink$/,
	"somebody's views: the superuser is told of sink $_") foreach qw(s t);
like(say_of('elsewhere', "SET ROLE mallory; $_"), qr/^(42501|55000|42P01) /, "somebody's views: refused to him: $_") foreach (
	$try,
	"SELECT revenue_sink.merge('s')",
	"SELECT * FROM revenue_sink.offsets('s')",
	"SELECT revenue_sink.upsert('t', '{2024-03-01 10:01+00}', '{1}')",
	"CALL revenue_sink.recover('s', 'job', NULL)",
	"CALL revenue_sink.rollback_prepared('$gid')");
like(say_of('elsewhere', "SET ROLE mallory; $_"), qr/^42501 /, "somebody's views: not for him: $_") foreach (
	"SELECT revenue_sink.drop_sink('s')",
	"SELECT revenue_sink.adopt_sink('s')",
	"CREATE TRIGGER revenue_sink_fact BEFORE INSERT OR UPDATE OR DELETE ON mallory.fact EXECUTE FUNCTION revenue_sink.refuse_write('1')",
	"CREATE TRIGGER revenue_sink_row INSTEAD OF INSERT ON mallory.events FOR EACH ROW EXECUTE FUNCTION revenue_sink.ingest('1')");
is(say_of('elsewhere', "SET ROLE mallory; INSERT INTO mallory.events VALUES ('o', 'e', now(), 1, 'g'); SELECT count(*) FROM mallory.fact"),
	'1', "somebody's views: the views still work for him");
like(say_of('elsewhere', "SELECT revenue_sink.adopt_sink('s')"), qr/^42P01 sink "s" cannot be adopted: The fact view is gone/,
	"somebody's views: not adopted");


is(say_of('elsewhere', q(
SELECT revenue_sink.drop_sink('s');
SELECT revenue_sink.drop_sink('t');
SELECT count(*) FROM revenue_sink.sink_catalog;
SELECT count(*) FROM pg_class WHERE relnamespace = 'revenue_sink'::regnamespace AND relname ~ '_[0-9]+$';
SELECT count(*) FROM pg_class WHERE relnamespace = 'mallory'::regnamespace AND relkind = 'v';
) . join('', map { "SELECT count(*) FROM revenue_sink.$_;\n" }
	  qw(sink_state deferred_event settled_event dead_letter_event resolved_event epoch ledger committed_offset decision))),
	join("\n", '', '', 0, 0, 2, (0) x 9), "somebody's views: the superuser drops the sink, and leaves them");
drop_database('elsewhere');

# A stranger's view isn't adopted even if he knows how the sink's views are made.
new_database('alike');
restore('alike', 'custom');
wait_for_home('alike');
$target->safe_psql('alike', q(
CREATE SCHEMA mallory AUTHORIZATION mallory;
SET ROLE mallory;
CREATE VIEW mallory.fact AS SELECT t.minute, t.group_key, t.revenue, t.events FROM revenue_sink.total_1 t, revenue_sink.delta_1 d;
CREATE VIEW mallory.events AS SELECT NULL::text AS order_id FROM revenue_sink.seen_1;
RESET ROLE;
DROP VIEW shop.revenue));
like(say_of('alike', "SET ROLE seller; SELECT revenue_sink.adopt_sink('s')"), qr/^42P01 /, 'a view alike: not adopted by the owner');
like(say_of('alike', 'SET ROLE mallory; SELECT count(*) FROM revenue_sink.delta_1'), qr/^42501 /, 'a view alike: it opens no table');
$target->safe_psql('alike', q(
SET client_min_messages = warning;
DROP SCHEMA shop CASCADE));
like(say_of('alike', "SELECT revenue_sink.adopt_sink('s')"), qr/^42P01 /, 'views alike: not adopted by the superuser');
is(say_of('alike', q(SELECT owner FROM revenue_sink.sink WHERE owner = 'mallory')), '', 'views alike: the sink is not his');
drop_database('alike');

# The sink whose views were dropped can be removed on the source, too.
is(say_of('gone', "SELECT revenue_sink.drop_sink(sink) FROM revenue_sink.sink; SELECT count(*) FROM revenue_sink.sink"),
	"\n\n0", 'views dropped: what is left of the sinks is removed');
drop_database('gone');

# ----------------------------------------------------------------------
# A copy of the files is at home at once, and original and copy go on
# independently.

$target->safe_psql('postgres', 'CREATE DATABASE copied TEMPLATE whole');
is(say_of('copied', "SELECT problem FROM revenue_sink.sink; $try; SELECT revenue_sink.outcome('$gid')"),
	"\n\nduplicate\ncommitted", 'copied: at home at once');
my $one = "SELECT revenue_sink.apply('s', 'copy', 'e', '2024-03-01 10:09+00', %d, 'copy'); "
  . "SELECT revenue, events FROM shop.revenue WHERE group_key = 'copy'; SELECT problem FROM revenue_sink.check('s')";
is(say_of('copied', sprintf($one, 2)), "applied\n2|1", 'copied: the copy goes on');
is(say_of('whole', sprintf($one, 3)), "applied\n3|1", 'copied: the original goes on by itself');
drop_database('copied');

# A copy of a restore that isn't over is at home once the rest arrives.
my ($last) = grep { / epoch / } @toc;
append_to_file("$dir/but_one", join('', map { "$_\n" } grep { $_ ne $last } @toc));
append_to_file("$dir/last", "$last\n");
new_database('half');
restore('half', 'custom', '-s');
restore('half', 'custom', '-L', "$dir/but_one");
$target->safe_psql('postgres', 'CREATE DATABASE other_half TEMPLATE half');
like(say_of('other_half', $try), qr/^55000 .* the rows of table "revenue_sink.epoch" have not arrived\.$/, 'copied in the midst: asleep');
restore('other_half', 'custom', '-L', "$dir/last");
is(say_of('other_half', "SET statement_timeout = '25s'; $try"), 'duplicate', 'copied in the midst, then restored: a caller is served');
is(say_of('other_half', 'SELECT revenue_sink.adopt_sink(sink) FROM revenue_sink.sink'), "\n", 'copied in the midst, then restored: adopted');
check_whole('other_half', 'copied in the midst, then restored');
like(problem_of('half', 's'), qr/^the sink has not arrived whole: /, 'copied in the midst: the original is asleep still');
drop_database($_) foreach qw(half other_half);

# ----------------------------------------------------------------------
# Owners alter their views, and superusers the tables. The sink is broken and says
# so, or goes on; once the damage is repaired, the sink is as before.

my $views = q(SELECT revenue_sink.adopt_sink('s'));

sub tamper
{
	my ($how, $sql, $problem, $repair) = @_;

	$target->safe_psql('whole', $sql);
	like(problem_of('whole', 's'), $problem, "$how: the problem");
	like(say_of('whole', $try), problem_of('whole', 's') eq '' ? qr/^duplicate$/ : qr/^(42P01|55000) /, "$how: a caller");
	$target->safe_psql('whole', "SET client_min_messages = error; $repair");
	is(say_of('whole', "SELECT problem FROM revenue_sink.sink; $try; SELECT problem FROM revenue_sink.check('s')"),
		"\n\nduplicate", "$how: repaired");
	return;
}

my $fine = qr/^$/;
my $view = qr/^a view of the sink is gone, or is not the one that was made for the sink$/;
my $table = qr/^table "revenue_sink\.\w+_1" is gone, or is not a heap that was made for the sink$/;

tamper('views renamed and moved', q(SET ROLE seller; ALTER VIEW shop.events RENAME TO e; ALTER VIEW shop.revenue RENAME TO r;
RESET ROLE; CREATE SCHEMA moved; ALTER VIEW shop.e SET SCHEMA moved; ALTER VIEW shop.r SET SCHEMA moved), $fine,
	q(ALTER VIEW moved.e SET SCHEMA shop; ALTER VIEW moved.r SET SCHEMA shop; ALTER VIEW shop.e RENAME TO events;
ALTER VIEW shop.r RENAME TO revenue));
tamper('triggers renamed', q(SET ROLE seller; ALTER TRIGGER revenue_sink_row ON shop.events RENAME TO a;
ALTER TRIGGER revenue_sink_fact ON shop.revenue RENAME TO b), $fine, '');
tamper('a trigger dropped', 'SET ROLE seller; DROP TRIGGER a ON shop.events', $view, $views);
tamper('the mark of the fact view dropped', 'SET ROLE seller; DROP TRIGGER b ON shop.revenue', $view, $views);
tamper('a view replaced', q(SET ROLE seller; CREATE OR REPLACE VIEW shop.revenue AS
SELECT minute, group_key, sum(revenue) AS revenue, sum(events)::bigint AS events
FROM (SELECT minute, group_key, revenue, events FROM revenue_sink.total_1 UNION ALL SELECT * FROM revenue_sink.delta_1 WHERE minute > '-infinity') AS every
GROUP BY minute, group_key), $fine, '');
tamper('a table renamed', 'ALTER TABLE revenue_sink.seen_1 RENAME TO mine', $table,
	'ALTER TABLE revenue_sink.mine RENAME TO seen_1');
tamper('a table given away', 'ALTER TABLE revenue_sink.total_1 OWNER TO mallory', $table,
	'ALTER TABLE revenue_sink.total_1 OWNER TO CURRENT_USER');
tamper('a table moved', 'ALTER TABLE revenue_sink.delta_1 SET SCHEMA shop', $table,
	'ALTER TABLE shop.delta_1 SET SCHEMA revenue_sink');
like(say_of('whole', 'DROP TYPE revenue_sink.home_1'), qr/^2BP01 /, 'the home is not dropped by accident');
tamper('the home dropped', 'ALTER EXTENSION revenue_sink DROP TYPE revenue_sink.home_1; DROP TYPE revenue_sink.home_1',
	qr/^the sink has not arrived whole: the rows of table "revenue_sink.\w+" came one by one/, $views);

# A view is dropped while the worker is at work on the sink, between two of its
# steps.
my ($worker) = worker_pids($target, 'whole');
my $locker = $target->background_psql('whole');
$locker->query_safe('BEGIN; LOCK TABLE revenue_sink.deferred_event IN SHARE MODE');
wait_until('the worker waits amid a round', sub {
	$target->safe_psql('whole', q(SELECT revenue_sink.apply('s', 'amid', clock_timestamp()::text, '2024-03-01 10:01+00', 0) \g /dev/null
SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'revenue_sink worker' AND datname = 'whole'
	AND wait_event_type = 'Lock')) eq '1' });
$target->safe_psql('whole', 'DROP TRIGGER revenue_sink_fact ON shop.revenue');
$locker->query_safe('ROLLBACK');
$locker->quit;
wait_until('the worker has found it broken', sub {
	slurp_file($target->logfile) =~ /LOG:  the worker skips sink "s": a view of the sink is gone(?!.*LOG:  (?:the worker skips )?sink "s")/s });
is(join(' ', worker_pids($target, 'whole')), $worker, 'a view dropped amid a round: the worker lives');
is(say_of('whole', "$views; SELECT problem FROM revenue_sink.sink; SELECT problem FROM revenue_sink.check('s')"), "\n\n",
	'a view dropped amid a round: repaired');

# A sink that was restored, tampered with, expired and rewritten can be dumped
# again.
$target->safe_psql('whole', q(
BEGIN;
SELECT revenue_sink.begin_batch('s', 'job', 'writer', 1, 9);
SELECT revenue_sink.apply('s', 'later', 'later', '2024-03-09 10:00+00', 1, 'later');
COMMIT;
SELECT revenue_sink.merge('s')));
wait_until('all before has expired', sub {
	$target->safe_psql('whole', q(SELECT revenue_sink.expire('s') \g /dev/null
SELECT sum(events) FROM revenue_sink.seen_1)) eq '1' });
$target->safe_psql('whole', "VACUUM (FULL, FREEZE) revenue_sink.$_") foreach tables_of(1);
$state = $target->safe_psql('whole', $state_sql);
dump_to($target, 'whole', 'again', '-Fc');
new_database('again');
restore('again', 'again');
wait_for_home('again');
is($target->safe_psql('again', "$state_sql; $try; SELECT problem FROM revenue_sink.check('s')"), "$state\nlate",
	'dumped and restored again');

done_testing();
