# outcome() and repeated calls, long after the batches: the commit log has been
# truncated and knows nothing of their transactions any more.

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

# Make a batch of one event; returns its gid.
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
is_deeply(outcomes(), $expected, 'the outcomes at once');

# Simulate millions of transactions: move the counter, put a commit log of zeros
# in place, and freeze everything.
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
is(sql("SELECT pg_xact_status('$xid')"), '', 'the commit log knows nothing of the transaction');

is_deeply(outcomes(), $expected, 'the outcomes long after');
is(sql("CALL revenue_sink.commit_prepared('$gid{committed}')"), 'committed', 'commit_prepared() again');
is(sql("CALL revenue_sink.rollback_prepared('$gid{'rolled back'}')"), 'rolled back', 'rollback_prepared() again');
is(sql("CALL revenue_sink.commit_checkpoint('s', 'job', 9, ARRAY['$gid{committed}', '$gid{'by hand'}'])"), '0',
	'commit_checkpoint() repeated');
my (undef, undef, $stderr) = $node->psql('postgres', "CALL revenue_sink.commit_prepared('$gid{'rolled back'}')");
like($stderr, qr/is 'rolled back'/, 'a batch that was rolled back stays rolled back');
is(sql('SELECT sum(revenue), sum(events) FROM fact_revenue_1m'), '2|2', 'revenue');
is(sql(q(SELECT problem FROM revenue_sink.check('s'))), '', 'check() finds nothing');

# On another server the transaction's id belongs to another transaction, which has
# rolled back: outcome() believes the ledger, and says 'unknown' of a batch that
# isn't in it.
my $moved_gid = batch(20, "PREPARE TRANSACTION :'gid'");
my $lost_gid  = batch(21, "PREPARE TRANSACTION :'gid'");
is(sql("CALL revenue_sink.commit_prepared('$moved_gid')"), 'committed', 'before the move: committed');
is(sql("CALL revenue_sink.rollback_prepared('$lost_gid')"), 'rolled back', 'before the move: rolled back');
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
system_or_bail('pg_dump', '-Fc', '-d', $node->connstr('postgres'), '-f', $dump);

my $moved = new_node('moved', start => 0, conf => "autovacuum = off\n");
$file = $moved->data_dir . '/pg_xact/0002';
open($out, '>', $file) or die "$file: $!";
print $out "\0" x (32 * 8192);
close $out;
my ($moved_xid, $lost_xid) = map { /:(\d+):[0-9a-f]+$/ } $moved_gid, $lost_gid;
command_ok([ 'pg_resetwal', '-x', $moved_xid, $moved->data_dir ], 'a server whose transactions are at these numbers');
$moved->start;
while ($moved->safe_psql('postgres', 'SELECT pg_snapshot_xmax(pg_current_snapshot())') <= $lost_xid)
{
	$moved->safe_psql('postgres', 'BEGIN; SELECT pg_current_xact_id(); ROLLBACK');
}
is($moved->safe_psql('postgres', "SELECT pg_xact_status('$moved_xid'), pg_xact_status('$lost_xid')"), 'aborted|aborted',
	'the other transactions of these ids have rolled back');
system_or_bail('pg_restore', '-d', $moved->connstr('postgres'), $dump);
is($moved->safe_psql('postgres', qq(
SELECT revenue_sink.apply('s', 'o', '20', '2024-03-01 10:01+00', 1);
SELECT revenue_sink.outcome('$moved_gid'), revenue_sink.outcome('$lost_gid'))), "duplicate\ncommitted|unknown",
	'the outcomes after the move');
is($moved->safe_psql('postgres', "CALL revenue_sink.commit_prepared('$moved_gid')"), 'committed', 'commit_prepared() after the move');

done_testing();
