# Calls that take too long are cancelled or timed out, and very big calls.
#
# A call that ends early leaves nothing behind, a big call takes bounded memory or
# is refused, and no backend dies of either.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

my $node = new_node('cancel');
create_sink($node, 'postgres');

my $state = q(
SELECT coalesce(sum(events), 0), coalesce(sum(revenue), 0) FROM fact_revenue_1m;
SELECT problem FROM revenue_sink.check('s'));
my $started = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');

# A million events, ready to be applied in one call.
my $big = 1_000_000;
$node->safe_psql('postgres', qq(
CREATE TABLE big AS
SELECT array_agg('order-' || i / 3) AS o, array_agg('evt-' || i) AS e,
	array_agg('2024-03-01 10:00+00'::timestamptz + i % 3600 * interval '1 second') AS t,
	array_agg(0.01) AS a
FROM generate_series(1, $big) i));
my $apply = q(SELECT applied, duplicate, deferred
FROM big, revenue_sink.apply('s', o, e, t, a));

# The call is timed out at different points, until the time is enough.
my ($timeout, $timeouts) = (10, 0);
while (1)
{
	my ($ret, $stdout, $stderr) = $node->psql('postgres', qq(
\\set VERBOSITY sqlstate
SET statement_timeout = $timeout;
BEGIN;
$apply;
ROLLBACK));

	last if $ret == 0;
	$timeouts++;
	like($stderr, qr/ERROR:  57014/, "timed out after $timeout ms");
	is($node->safe_psql('postgres', $state), '0|0', 'nothing is left behind');
	$timeout = int($timeout * 1.7);
	die 'it never ends' if $timeout > 120_000;
}
cmp_ok($timeouts, '>', 0, 'the call was timed out at least once');

# apply() is cancelled in the middle.
my $psql = $node->background_psql('postgres', on_error_stop => 0);
my $pid  = $psql->query_safe('SELECT pg_backend_pid()');
$psql->query_until(qr/sent/, "\\echo sent\n$apply;\n");
$node->poll_query_until('postgres', qq(
SELECT state = 'active' AND backend_xid IS NOT NULL FROM pg_stat_activity WHERE pid = $pid))
  or die 'not at work';
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
my (undef, $error) = $psql->query('SELECT 1');
like($psql->{stderr}, qr/canceling statement due to user request/, 'apply() is cancelled');
$psql->quit;
is($node->safe_psql('postgres', $state), '0|0', 'nothing is left behind');

# Deferring an event needs a table that somebody has locked: the call can be timed
# out, and others go on meanwhile.
my $holder = $node->background_psql('postgres');
$holder->query_safe(q(BEGIN; SELECT revenue_sink.apply('s', 'held', 'e', '2024-03-01 10:01+00', 1)));
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE revenue_sink.deferred_event');
my (undef, undef, $timed_out) = $node->psql('postgres', q(SET statement_timeout = '200ms';
SELECT revenue_sink.apply('s', 'held', 'e', '2024-03-01 10:01+00', 1)));
like($timed_out, qr/canceling statement due to statement timeout/, 'deferring an event is timed out');
is($node->safe_psql('postgres', q(SET statement_timeout = '20s';
BEGIN;
SELECT revenue_sink.apply('s', 'other', 'e', '2024-03-01 10:01+00', 1);
ROLLBACK)), 'applied', 'others go on');
$locker->query_safe('ROLLBACK');
$holder->query_safe('ROLLBACK');
$_->quit foreach $locker, $holder;
is($node->safe_psql('postgres', $state), '0|0', 'nothing is left behind');

# One statement of a transaction fails, and the transaction goes on.
is($node->safe_psql('postgres', q(
\set ON_ERROR_ROLLBACK on
\set ON_ERROR_STOP off
BEGIN;
SELECT revenue_sink.apply('s', 'o', 'before', '2024-03-01 10:00+00', 1);
SET LOCAL statement_timeout = 40;
SELECT count(*) FROM big, revenue_sink.apply('s', o, e, t, a);
RESET statement_timeout;
SELECT revenue_sink.apply('s', 'o', 'after', '2024-03-01 10:00+00', 1);
COMMIT)), "applied\napplied", 'a transaction goes on after a timeout');
is($node->safe_psql('postgres', $state), '2|2', 'the rest of the transaction counts, without the call that was timed out');

# The call runs to its end, and then once more.
is($node->safe_psql('postgres', "$apply; $apply"), "$big|0|0\n0|$big|0",
	'a million events in one call, and again: all are duplicates');
is($node->safe_psql('postgres', $state), ($big + 2) . '|10002.00', 'each event counts once');

# COPY brings another million rows, in one transaction and in bounded memory: the
# process maps a fixed part, shared memory, and what it allocates.
my $dir  = PostgreSQL::Test::Utils::tempdir();
my $rows = 1_000_000;
open(my $file, '>', "$dir/events.csv") or die "$!";
foreach my $i (1 .. $rows)
{
	printf $file "copied-%d,%08d-aaaa-bbbb-cccc-dddddddddddd,2024-03-01 12:%02d:00+00,0.01,\n",
	  $i / 3, $i, $i % 60;
}
close $file or die "$!";
system_or_bail('sh', '-c', "head -n 1000 $dir/events.csv > $dir/few.csv");

sub peak_megabytes
{
	my ($pid) = @_;

	return slurp_file("/proc/$pid/status") =~ /VmPeak:\s*(\d+) kB/ ? $1 / 1024 : 0;
}

$psql = $node->background_psql('postgres');
$pid  = $psql->query_safe('SELECT pg_backend_pid()');
SKIP:
{
	skip 'no /proc here', 1 unless -r "/proc/$pid/status";
	$psql->query_safe("BEGIN; COPY order_events FROM '$dir/few.csv' (FORMAT csv); ROLLBACK");
	my $before = peak_megabytes($pid);
	$psql->query_safe("COPY order_events FROM '$dir/events.csv' (FORMAT csv)");
	my $grown = peak_megabytes($pid) - $before;
	cmp_ok($grown, '<', 50, sprintf('COPY of a million rows took %.0f MB', $grown));
}
$psql->quit;
is($node->safe_psql('postgres', $state), ($big + $rows + 2) . '|20002.00',
	'all copied rows are counted');

# A COPY fails on its last row.
system_or_bail('sh', '-c', "(sed 's/^copied/failed/' $dir/events.csv | head -n 20000;"
	  . " echo ',no-order,2024-03-01 12:00:00+00,1,') > $dir/bad.csv");
my ($ret, undef, $stderr) =
  $node->psql('postgres', "\\copy order_events FROM '$dir/bad.csv' (FORMAT csv)");
isnt($ret, 0, 'a bad last row fails the COPY');
like($stderr, qr/order_id/, 'the error names the bad column');
is($node->safe_psql('postgres', $state), ($big + $rows + 2) . '|20002.00',
	'nothing of the failed COPY is counted');

# One call has ten million events: it is refused or done, and no backend dies.
my $huge = 10_000_000;
($ret, my $stdout, $stderr) = $node->psql('postgres', qq(
\\set VERBOSITY verbose
SELECT applied FROM revenue_sink.apply('s', array_fill('huge'::text, ARRAY[$huge]),
	(SELECT array_agg(i::text) FROM generate_series(1, $huge) i),
	array_fill('2024-03-01 14:00+00'::timestamptz, ARRAY[$huge]),
	array_fill(0.01, ARRAY[$huge]))));
if ($ret == 0)
{
	is($stdout, $huge, 'ten million events in one call are applied');
}
else
{
	like($stderr, qr/ERROR:  (54000|53200|22023|0A000)/, 'ten million events in one call are refused');
}
my $expected = $big + $rows + 2 + ($ret == 0 ? $huge : 0);
is($node->safe_psql('postgres', 'SELECT sum(events) FROM fact_revenue_1m'), $expected,
	'all or nothing of the call is counted');

is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $started,
	'the server has not restarted');
unlike(slurp_file($node->logfile), qr/was terminated by signal|PANIC/, 'no backend died');

done_testing();
