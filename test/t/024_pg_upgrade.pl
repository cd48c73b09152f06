# pg_upgrade takes a sink along as it is: the sink is at home, and forgets
# nothing.
#
# The upgrade is from a version to itself, which for the extension is like any
# other: the schema comes by a dump, the files are copied or linked.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

my $bindir = `pg_config --bindir`;
chomp $bindir;
plan skip_all => 'no pg_upgrade' unless -x "$bindir/pg_upgrade";

foreach my $name (qw(copy link))
{
	my $old  = new_node("old_$name", conf => "revenue_sink.worker_interval = '1h'\n");
	create_sink($old, 'postgres');
	create_sink($old, 'postgres', sink => 't', more => q('fact_t', 'in_t', mode => 'totals'));
	my $epoch = $old->safe_psql('postgres', q(CALL revenue_sink.open_writer('s', 'job', 'w')));
	my ($gid, $lost) = map {
		$old->safe_psql('postgres', qq(
\\set QUIET on
\\pset tuples_only
BEGIN;
SELECT revenue_sink.begin_batch('s', 'job', 'w', $epoch, $_) \\gset
SELECT revenue_sink.apply('s', 'o', 'e-$_', '2024-03-01 10:01+00', $_) \\gset
SELECT revenue_sink.store_offsets('s', 'orders', '{0}', '{$_}') \\gset
SELECT revenue_sink.pre_commit('s') AS gid \\gset
PREPARE TRANSACTION :'gid';
\\echo :gid))
	} 1, 2;
	$old->safe_psql('postgres', qq(
CALL revenue_sink.commit_prepared('$gid');
CALL revenue_sink.rollback_prepared('$lost');
SELECT revenue_sink.merge('s');
SELECT revenue_sink.apply('s', 'o', 'unmerged', '2024-03-01 10:02+00', 4);
SELECT revenue_sink.upsert('t', '{2024-03-01 10:01+00}', '{65}');
SELECT revenue_sink.merge('t')));
	my $look = q(SELECT extract(epoch FROM minute), group_key, revenue, events FROM fact_revenue_1m ORDER BY 1, 2);
	my $before = $old->safe_psql('postgres', $look);
	$old->stop;

	my $new = new_node("new_$name", start => 0, conf => "revenue_sink.worker_interval = '1h'\n");
	my $dir = PostgreSQL::Test::Utils::tempdir();
	chdir $dir or die "$!";
	command_ok([ 'pg_upgrade', '--no-sync', '-d', $old->data_dir, '-D', $new->data_dir, '-b', $bindir, '-B', $bindir,
			'-s', $new->host, '-p', $old->port, '-P', $new->port, $name eq 'link' ? '--link' : () ], "$name: upgraded");
	$new->start;
	is($new->safe_psql('postgres', 'SELECT sink, problem FROM revenue_sink.sink ORDER BY sink'), "s|\nt|",
		"$name: the sinks are at home at once");
	is($new->safe_psql('postgres', $look), $before, "$name: the revenue is the same");
	is($new->safe_psql('postgres', qq(
SELECT revenue_sink.outcome('$gid');
SELECT revenue_sink.outcome('$lost');
SELECT revenue_sink.apply('s', 'o', 'e-1', '2024-03-01 10:01+00', 1);
SELECT revenue_sink.apply('s', 'o', 'unmerged', '2024-03-01 10:02+00', 4);
SELECT revenue_sink.apply('s', 'o', 'e-2', '2024-03-01 10:01+00', 2);
SELECT next_offset FROM revenue_sink.offsets('s');
SELECT problem FROM revenue_sink.check('s');
SELECT problem FROM revenue_sink.check('t'))), "committed\nunknown\nduplicate\nduplicate\napplied\n1",
		"$name: what was committed is known, what was not is new");
	cmp_ok($new->safe_psql('postgres', q(CALL revenue_sink.open_writer('s', 'job', 'w'))), '>', $epoch, "$name: epochs go on");
	$new->stop;
}

done_testing();
