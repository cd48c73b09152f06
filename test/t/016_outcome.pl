# outcome() and the calls that come again, long after: when the commit log has
# been truncated and knows nothing of the transactions any more.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

my $node = new_node('outcome', conf => "autovacuum = off\n");
create_sink($node, 'postgres');
$node->safe_psql('postgres', q(CALL revenue_sink.recover('s', 'job', NULL, 1)));

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# A batch of one event; its gid.
sub batch
{
	my ($number, $end) = @_;

	return sql(qq(
\\set QUIET on
BEGIN;
SELECT revenue_sink.begin_batch('s', 'job', 'w', 1, $number) \\gset
SELECT revenue_sink.apply('s', 'o', '$number', '2024-03-01 10:01+00', 1) \\gset
SELECT revenue_sink.pre_commit('s') AS gid \\gset
$end;
\\echo :gid));
}

my %gid = (
	'committed'   => batch(1, q(PREPARE TRANSACTION :'gid')),
	'rolled back' => batch(2, q(PREPARE TRANSACTION :'gid')),
	'never'       => batch(3, 'ROLLBACK'),
	'by hand'     => batch(4, q(PREPARE TRANSACTION :'gid'; COMMIT PREPARED :'gid')));
sql("CALL revenue_sink.commit_prepared('$gid{committed}')");
sql("CALL revenue_sink.rollback_prepared('$gid{'rolled back'}')");

sub outcomes
{
	return { map { $_ => sql("SELECT revenue_sink.outcome('$gid{$_}')") } keys %gid };
}

my $expected = {
	'committed'   => 'committed',
	'rolled back' => 'rolled back',
	'never'       => 'rolled back',
	'by hand'     => 'committed'
};
is_deeply(outcomes(), $expected, 'at once');

# Millions of transactions later: the counter is moved, over a commit log of
# zeros, and everything frozen.
$node->stop;
my $file = $node->data_dir . '/pg_xact/0002';
open(my $out, '>', $file) or die "$file: $!";
print $out "\0" x (32 * 8192);
close $out;
command_ok([ 'pg_resetwal', '-x', 3_000_000, $node->data_dir ], 'time goes by');
$node->start;
sql('ALTER DATABASE template0 ALLOW_CONNECTIONS true');
$node->safe_psql($_, 'VACUUM FREEZE') foreach qw(template0 template1 postgres);
sql('CHECKPOINT');
ok(!-e $node->data_dir . '/pg_xact/0000', 'the commit log is truncated');
my ($xid) = $gid{committed} =~ /:(\d+):[0-9a-f]+$/;
is(sql("SELECT pg_xact_status('$xid')"), '', 'and knows nothing');

is_deeply(outcomes(), $expected, 'long after');
is(sql("CALL revenue_sink.commit_prepared('$gid{committed}')"), 'committed', 'commit_prepared() again');
is(sql("CALL revenue_sink.rollback_prepared('$gid{'rolled back'}')"), 'rolled back', 'rollback_prepared() again');
is(sql("CALL revenue_sink.commit_checkpoint('s', 'job', 9, ARRAY['$gid{committed}', '$gid{'by hand'}'])"), '0',
	'commit_checkpoint() again');
my (undef, undef, $stderr) = $node->psql('postgres', "CALL revenue_sink.commit_prepared('$gid{'rolled back'}')");
like($stderr, qr/is 'rolled back'/, 'what was rolled back stays so');
is(sql('SELECT sum(revenue), sum(events) FROM fact_revenue_1m'), '2|2', 'revenue');
is(sql(q(SELECT problem FROM revenue_sink.check('s'))), '', 'check() finds nothing');

done_testing();
