# Nothing slips past a fence, wherever the zombie stands when its epoch ends.
#
# open_writer() ends the sessions of old epochs. It may die between committing the
# new epoch and ending them; a row inserted by hand plays the part of such a call.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

my $node = new_node('fence', conf => q(
revenue_sink.worker_interval = '1h'
));
create_sink($node, 'postgres');
my $open = q(CALL revenue_sink.open_writer('s', 'job', 'w'));
my $state = q(SELECT coalesce(sum(events), 0) FROM fact_revenue_1m);

# A new epoch whose opener has ended no session.
my $orphan = 'INSERT INTO revenue_sink.epoch (sink_id, job, writer, epoch, opened_at) '
  . 'SELECT sink_id, job, writer, max(epoch) + 1, now() FROM revenue_sink.epoch GROUP BY 1, 2, 3';

# Run SQL in the session of a batch that was fenced off; returns its errors.
sub fenced
{
	my ($epoch, $number, $ending) = @_;
	my ($ret, $stdout, $stderr) = $node->psql('postgres', qq(
\\set VERBOSITY verbose
BEGIN;
SELECT revenue_sink.begin_batch('s', 'job', 'w', $epoch, $number);
SELECT revenue_sink.apply('s', 'o', 'e', '2024-03-01 10:01+00', 65);
\\! psql -XqAt -c "$orphan"
$ending), on_error_stop => 0, extra_params => ['-q']);

	return $stderr;
}

$ENV{PGHOST} = $node->host;
$ENV{PGPORT} = $node->port;
$ENV{PGDATABASE} = 'postgres';
my $first = $node->safe_psql('postgres', $open);
like(fenced($first, 1, 'COMMIT;'), qr/epoch $first of writer "w" of job "job" has been fenced off/,
	'COMMIT of a batch whose epoch has ended');
is($node->safe_psql('postgres', $state), '0', 'nothing of the batch is counted');
my $second = $first + 1;
like(fenced($second, 1, q(PREPARE TRANSACTION 'zombie';)), qr/epoch $second of writer "w" of job "job" has been fenced off/,
	'PREPARE of a batch whose epoch has ended');
is($node->safe_psql('postgres', q(SELECT count(*) FROM pg_prepared_xacts)), '0', 'the batch is not prepared');

# A zombie hears that it has been fenced off before it does any work.
my ($ret, $stdout, $stderr) = $node->psql('postgres', qq(
BEGIN;
SELECT revenue_sink.begin_batch('s', 'job', 'w', $first, 9);
ROLLBACK), on_error_stop => 0);
is($stdout, '', 'begin_batch() of an old epoch gives no answer');
like($stderr, qr/epoch $first of writer "w" of job "job" has been fenced off/, 'begin_batch() of an old epoch fails');

# open_writer() itself ends the old session before it returns.
my $epoch  = $node->safe_psql('postgres', $open);
cmp_ok($epoch, '>', $second + 1, 'a higher epoch than those inserted by hand');
my $zombie = $node->background_psql('postgres', on_error_stop => 0);
$zombie->query_safe(qq(
BEGIN;
SELECT revenue_sink.begin_batch('s', 'job', 'w', $epoch, 1);
SELECT revenue_sink.apply('s', 'o', 'e', '2024-03-01 10:01+00', 65)));
my $pid = $zombie->query_safe('SELECT pg_backend_pid()');
cmp_ok($node->safe_psql('postgres', $open), '>', $epoch, 'a higher epoch');
is($node->safe_psql('postgres', qq(
SELECT count(*) FROM pg_locks WHERE pid = $pid AND locktype = 'transactionid' AND granted)),
	'0', 'the old transaction has ended');
is($node->safe_psql('postgres', $state), '0', 'nothing of the old transaction counts');
$zombie->{run}->finish;

$node->stop;
done_testing();
