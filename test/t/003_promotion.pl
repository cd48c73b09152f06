# A standby takes over in mid-stream.
#
# The standby is synchronous, so that no commit that was answered is lost. Shared
# memory isn't replicated: the new primary builds its index from its tables. The
# writers find the new primary by themselves and continue from its offsets, with
# replay.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

my $seed = $ENV{RSINK_SEED} || 1;

my $writer_binary = build_client('writer');
my $reader_binary = build_client('reader');
plan skip_all => 'no C compiler' unless $writer_binary && $reader_binary;

my $primary = new_node('primary', streaming => 1);
create_sink($primary, 'postgres');

# An event from before the base backup, whose delta may be merged by then or not.
$primary->safe_psql('postgres', q(
SELECT revenue_sink.create_sink('other', 'other_fact', 'other_events');
SELECT revenue_sink.apply('other', 'o-1', 'e-1', '2024-03-01 10:01+00', 40)));
$primary->backup('base');

my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
$primary->append_conf('postgresql.conf', q(
synchronous_standby_names = 'standby'
));
$primary->reload;
$primary->poll_query_until('postgres',
	q(SELECT bool_or(sync_state = 'sync') FROM pg_stat_replication))
  or die 'the standby is not synchronous';

# On the standby, reads are answered from the tables; writes are refused.
$primary->safe_psql('postgres',
	q(SELECT revenue_sink.apply('other', 'o-1', 'e-2', '2024-03-01 10:01+00', 25)));
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
is($standby->safe_psql('postgres', q(
SELECT revenue_sink.seen('other', 'o-1', 'e-1'),
       revenue_sink.seen('other', 'o-1', 'e-2'),
       revenue_sink.seen('other', 'o-1', 'e-3'))), 't|t|f',
	'seen() answers on the standby');
is($standby->safe_psql('postgres', 'SELECT sum(revenue), sum(events) FROM other_fact'),
	'65|2', 'the fact view is right on the standby');
is($standby->safe_psql('postgres',
	q(SELECT count(*) FROM revenue_sink.offsets('other'))), '0',
	'offsets() answers on the standby');

foreach my $sql (
	q(SELECT revenue_sink.apply('other', 'o-1', 'e-1', '2024-03-01 10:01+00', 40)),
	q(INSERT INTO other_events VALUES ('o-1', 'e-1', '2024-03-01 10:01+00', 40)),
	q(SELECT revenue_sink.merge('other')),
	q(CALL revenue_sink.open_writer('other', 'j', 'w')))
{
	my ($ret, undef, $stderr) = $standby->psql('postgres', "\\set VERBOSITY verbose\n$sql");

	isnt($ret, 0, "refused on the standby: $sql");
	like($stderr, qr/ERROR:  25006:/, 'the refusal is that of a read-only transaction');
}

# In mid-stream, the primary dies and the standby is promoted.
my $streams = RevenueSink::Streams->new(seed => $seed, writers => 2);
my $load    = RevenueSink::Load->new(
	seed    => $seed,
	binary  => $writer_binary,
	streams => $streams,
	connstr => sprintf(
		"dbname=postgres host=%s,%s port=%s,%s target_session_attrs=read-write",
		$primary->host, $standby->host, $primary->port, $standby->port));
my $done = 0;

$load->start_reader($reader_binary);
$load->start_all($streams->grow(60));
$load->run(sub {
	my (undef, undef, $step) = @_;

	return unless $step eq 'applied' && ++$done == 10;
	kill_server($primary);
	$standby->promote;
});
ok($done > 10, 'the stream went on after the promotion');
is(differences($standby, 'postgres', truth => $streams->truth), '',
	'the totals on the new primary are right');
ok($load->stop_reader, 'the reader saw markers together, and none vanish');

is($standby->safe_psql('postgres', q(
SELECT revenue_sink.apply('other', 'o-1', 'e-1', '2024-03-01 10:01+00', 40),
       revenue_sink.apply('other', 'o-1', 'e-2', '2024-03-01 10:01+00', 25),
       revenue_sink.apply('other', 'o-1', 'e-3', '2024-03-01 10:01+00', 1))),
	'duplicate|duplicate|applied', 'what came before is recognized');
is($standby->safe_psql('postgres', q(SELECT problem FROM revenue_sink.check('other'))),
	'', 'check() finds nothing');
ok($standby->poll_query_until('postgres', q(
SELECT (SELECT count(*) FROM pg_stat_activity
        WHERE backend_type = 'revenue_sink worker' AND datname = 'postgres') = 1
   AND (SELECT sum(unmerged_deltas) FROM revenue_sink.stat_sink) = 0)),
	'the worker is at work on the new primary');

done_testing();
