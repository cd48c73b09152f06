# Many databases and few places for workers; databases that nobody may connect to;
# databases that come and go, or are dropped by force by owners who have no other
# rights.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = new_node('databases', conf => q(
revenue_sink.worker_interval = '200ms'
revenue_sink.dedup_memory = '1MB'
max_worker_processes = 8
max_prepared_transactions = 10
autovacuum = off
log_line_prefix = '%b [%p]: '
));
my @many = map { "db$_" } (1 .. 40);

# Poll for a condition, for so many seconds at most; returns how long it took, or
# undef.
sub within
{
	my ($seconds, $condition) = @_;
	my $from = time;

	while (time < $from + $seconds)
	{
		return time - $from if $condition->();
		usleep(50_000);
	}
	return undef;
}

sub query
{
	my ($db, $sql) = @_;

	return $node->safe_psql($db, $sql);
}

sub complaints
{
	my ($from) = @_;
	my $log = slurp_file($node->logfile, $from);

	return join "\n", $log =~ /^(revenue_sink (?:worker|launcher) \[\d+\]: (?:ERROR|FATAL|PANIC)(?!.*administrator command).*)/mg;
}

my $apply = "SELECT revenue_sink.apply('s', 'o', 'e%s', '2024-03-01 10:00+00', 1)";
my $merged = 'SELECT sum(unmerged_deltas) = 0 FROM revenue_sink.stat_sink';

# ----------------------------------------------------------------------
# If there are few databases, each keeps its worker.

query('postgres', 'CREATE DATABASE base');
create_sink($node, 'base');
query('base', sprintf($apply, 0));
query('postgres', 'CREATE DATABASE few1 TEMPLATE base; CREATE DATABASE few2 TEMPLATE base');
query($_, sprintf($apply, 1)) foreach qw(few1 few2);
ok(within(10, sub { worker_pids($node, $_) == 1 }), "$_ has a worker") foreach qw(few1 few2);
my @before = map { worker_pids($node, $_) } qw(few1 few2);
my $rounds = q(SELECT sum(xact_commit) FROM pg_stat_database WHERE datname = 'few1');
my $some = query('postgres', $rounds);
ok(within(20, sub { query('postgres', $rounds) > $some + 60 }), 'the worker has done many rounds');
is(join(' ', map { worker_pids($node, $_) } qw(few1 few2)), "@before", 'few databases keep their workers');

# A launcher that starts again finds the workers that the one before has started.
my $is_launcher = q(FROM pg_stat_activity WHERE backend_type = 'revenue_sink launcher');
my $launcher = query('postgres', "SELECT pid $is_launcher");
query('postgres', "SELECT pg_terminate_backend($launcher)");
wait_until('there is another launcher', sub { query('postgres', "SELECT pid $is_launcher") =~ /^(?!$launcher$)\d/ });
query('postgres', 'CREATE DATABASE few3 TEMPLATE base');
query('few3', sprintf($apply, 1));
wait_until('it has looked', sub { worker_pids($node, 'few3') });
is(join(' ', map { worker_pids($node, $_) } qw(few1 few2)), "@before", 'a new launcher starts no second workers');
query('postgres', "SELECT pg_terminate_backend($before[0])");
wait_until('there is another worker', sub { ((worker_pids($node, "few1"))[0] // $before[0]) != $before[0] });
is(scalar worker_pids($node, 'few1'), 1, 'a worker that ends is followed by one');
query('postgres', "DROP DATABASE few$_") foreach 1 .. 3;

# ----------------------------------------------------------------------
# Forty databases have places for six or seven workers.

my $log = -s $node->logfile;
query('postgres', join('', map { "CREATE DATABASE $_ TEMPLATE base;" } @many));
query('db30', q(BEGIN; ) . sprintf($apply, 'held') . q(; PREPARE TRANSACTION 'held'));
is(query('db30', sprintf($apply, 'held')), 'deferred', 'an event is deferred');
query($_, sprintf($apply, 1)) foreach @many;
my %todo = map { $_ => 1 } @many;
my $took = within(30, sub {
	query($_, $merged) eq 't' && delete $todo{$_} foreach keys %todo;
	return !%todo });
ok($took, 'all databases merge') or diag "not merged: @{[ sort keys %todo ]}";
note "all merged after $took s" if $took;
query('db30', "COMMIT PREPARED 'held'");
$took = within(20, sub { query('db30', 'SELECT count(*) FROM revenue_sink.deferred') eq '0' });
ok($took, 'a deferred event is settled in seconds');
note "settled after $took s" if $took;

# This is repeated: no database is starved.
foreach my $round (2 .. 4)
{
	query($_, sprintf($apply, $round)) foreach @many;
	%todo = map { $_ => 1 } @many;
	$took = within(20, sub {
		query($_, $merged) eq 't' && delete $todo{$_} foreach keys %todo;
		return !%todo });
	ok($took, "round $round: all databases merge") or diag "not merged: @{[ sort keys %todo ]}";
	note "after $took s" if $took;
}
is(query($_, "SELECT sum(events) FROM fact_revenue_1m; SELECT problem FROM revenue_sink.check('s')"), $_ eq 'db30' ? 6 : 5,
	"$_ is right") foreach qw(db1 db30 db40);

# Databases take turns even while one database is busy all the time.
query('db30', q(BEGIN; ) . sprintf($apply, 'again') . q(; PREPARE TRANSACTION 'held'));
query('db30', sprintf($apply, 'again'));
my $n = 100;
query('db30', "COMMIT PREPARED 'held'");
$took = within(20, sub {
	query("db$_", sprintf($apply, $n++)) foreach (1 .. 8);
	query('db30', 'SELECT count(*) FROM revenue_sink.deferred') eq '0' });
ok($took, 'a deferred event is settled in seconds beside busy databases');
note "settled after $took s" if $took;

# Forty databases at rest cost little: each turn is a few transactions.
my $starts = 'SELECT sum(xact_commit) FROM pg_stat_database WHERE datname ~ \'^db\'';
ok(within(20, sub { query('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE state = 'active' AND backend_type ~ 'revenue_sink'") eq 't' }), 'at rest');
my $count = query('postgres', $starts);
my $ours = () = slurp_file($node->logfile) =~ /take turns/g;
my $span = time;
within(3, sub { 0 });
my $rate = (query('postgres', $starts) - $count) / (time - $span);
note "transactions a second at rest: $rate";
cmp_ok($rate, '<', 500, 'no spinning at rest');
cmp_ok($ours, '<=', 1, 'the log says once that databases take turns');
is(complaints($log), '', 'nothing else is complained of');
unlike(slurp_file($node->logfile, $log), qr/could not start/, "no 'could not start'");

# ----------------------------------------------------------------------
# The index is built when there are more events than fit in memory.

query('db20', q(SELECT a.* FROM (SELECT array_agg('o' || i), array_agg('e'::text), array_agg('2024-03-01 11:00+00'::timestamptz), array_agg(1.0)
	FROM generate_series(1, 120000) i) AS g (o, e, t, a), revenue_sink.apply('s', o, e, t, a) a));
$node->restart;
my $from = time;
is(query('db20', "SET statement_timeout = '20s'; SELECT revenue_sink.apply('s', 'o7', 'e', '2024-03-01 11:00+00', 1.0)"), 'duplicate',
	'more events than fit in memory');
note 'built after ', time - $from, ' s';
cmp_ok(time - $from, '<', 15, 'the answer comes early');
query('postgres', join('', map { "DROP DATABASE $_ WITH (FORCE);" } @many));

# ----------------------------------------------------------------------
# Databases that nobody may connect to have no worker.

foreach my $case (
	[ 'ALLOW_CONNECTIONS false', 'ALTER DATABASE shut ALLOW_CONNECTIONS false', 'ALTER DATABASE shut ALLOW_CONNECTIONS true' ],
	[ 'an interrupted DROP', "UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'shut'",
		"UPDATE pg_database SET datconnlimit = -1 WHERE datname = 'shut'" ])
{
	my ($what, $shut, $open) = @$case;

	query('postgres', 'CREATE DATABASE shut TEMPLATE base');
	query('shut', sprintf($apply, 1));
	ok(within(20, sub { worker_pids($node, 'shut') == 1 }), "$what: there is a worker");
	$log = -s $node->logfile;
	query('postgres', $shut);
	kill_process('TERM', $_) foreach worker_pids($node, 'shut');
	# others come and go meanwhile, so that the launcher has looked
	foreach my $i (1 .. 2)
	{
		query('postgres', 'CREATE DATABASE other TEMPLATE base');
		query('other', sprintf($apply, 1));
		ok(within(20, sub { query('other', $merged) eq 't' }), "$what: others go on");
		query('postgres', 'DROP DATABASE other');
	}
	is(join(' ', worker_pids($node, 'shut')), '', "$what: no worker");
	is(complaints($log), '', "$what: nothing is tried");
	query('postgres', $open);
	ok(within(20, sub { worker_pids($node, 'shut') == 1 }), "$what: the worker comes back");
	query('shut', sprintf($apply, 2));
	ok(within(20, sub { query('shut', $merged) eq 't' }), "$what: the worker merges");
	is(complaints($log), '', "$what: there is no complaint");
	query('postgres', 'DROP DATABASE shut');
}

# ----------------------------------------------------------------------
# Owners who are no superusers drop databases WITH (FORCE).

query('postgres', 'CREATE ROLE maker LOGIN CREATEDB; CREATE ROLE heir LOGIN CREATEDB; CREATE ROLE stranger LOGIN');

sub by
{
	my ($role, $sql, $db) = @_;
	my ($ret, $stdout, $stderr) = $node->psql($db // 'postgres', $sql, extra_params => [ '-U', $role ]);

	return $ret ? $stderr : $stdout;
}
$log = -s $node->logfile;
foreach my $round (1 .. 4)
{
	is(by('maker', 'CREATE DATABASE his'), '', "FORCE $round: his database");
	create_sink($node, 'his');
	query('his', sprintf($apply, 1));
	ok(within(20, sub { worker_pids($node, 'his') == 1 }), "FORCE $round: there is a worker");
	my ($pid) = worker_pids($node, 'his');
	like(by('stranger', "\\set VERBOSITY sqlstate\nSELECT pg_terminate_backend($pid)"), qr/ERROR:  42501/, "FORCE $round: a stranger can't end it");
	if ($round == 2)
	{
		query('postgres', 'ALTER DATABASE his OWNER TO heir');
		ok(within(10, sub { by('heir', "SELECT pg_terminate_backend($pid)") eq 't' }), 'the new owner may end the worker');
		ok(within(10, sub { worker_pids($node, 'his') == 1 }), 'the worker comes back');
	}
	query('his', "SELECT revenue_sink.apply('s', 'o' || i, 'e', '2024-03-01 10:00+00', 1) FROM generate_series(1, 2000) i");
	is(by($round == 2 ? 'heir' : 'maker', 'DROP DATABASE his WITH (FORCE)'), '', "FORCE $round: dropped");
}
is(complaints($log), '', 'FORCE: no complaint');

# They can do so however long the worker rests, and whether it has done its first
# round or not.
$node->append_conf('postgresql.conf', "revenue_sink.worker_interval = '1h'");
$node->reload;
is(by('maker', 'CREATE DATABASE his'), '', 'FORCE: his database, and a worker at rest');
create_sink($node, 'his');
ok(within(20, sub { worker_pids($node, 'his') == 1 }), 'FORCE: there is a worker');
query('postgres', 'ALTER DATABASE his OWNER TO heir');
my $said;
ok(within(5, sub { ($said = by('heir', 'DROP DATABASE his WITH (FORCE)')) eq '' }), 'FORCE: the new owner drops it')
  or diag $said;
query('postgres', 'DROP DATABASE IF EXISTS his');
$node->append_conf('postgresql.conf', "revenue_sink.worker_interval = '200ms'");
$node->reload;

# ----------------------------------------------------------------------
# A database comes and goes, with few slots for sinks.

$node->append_conf('postgresql.conf', 'revenue_sink.max_sinks = 4');
$node->restart;
$log = -s $node->logfile;
foreach my $round (1 .. 10)
{
	query('postgres', 'CREATE DATABASE fleeting');
	create_sink($node, 'fleeting');
	is(query('fleeting', sprintf($apply, 1)), 'applied', "max_sinks = 4: database $round");
	query('postgres', 'DROP DATABASE fleeting');
}
is(complaints($log), '', 'max_sinks = 4: no complaint');

done_testing();
