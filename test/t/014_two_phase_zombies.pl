# A slow session of an old epoch, at each of its steps, while its job recovers.
#
# The zombie's session is ended where its batch is open, told off where it
# isn't; what it had prepared is rolled back, by recover() or, if that died in
# between, by the worker. Whatever it does, it never changes revenue. (The spec
# two_phase_zombie has the interleavings in which its session lives on.)

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

my $node = new_node('zombies', conf => q(
revenue_sink.worker_interval = '50ms'
lock_timeout = '5s'
));
create_sink($node, 'postgres');

my @steps = (
	'BEGIN',
	q(SELECT revenue_sink.begin_batch('s', :'job', 'w', 1, 1)),
	q(SELECT revenue_sink.apply('s', :'job', 'e', '2024-03-01 10:01+00', 65)),
	q(SELECT revenue_sink.pre_commit('s') AS gid \gset),
	q(PREPARE TRANSACTION :'gid'));

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

sub revenue
{
	return sql('SELECT coalesce(sum(revenue), 0) FROM fact_revenue_1m');
}

sub nothing_prepared
{
	return sql('SELECT count(*) FROM pg_prepared_xacts') eq '0';
}

my $truth = 0;
foreach my $call (qw(recover open_writer))
{
	foreach my $step (1 .. @steps)
	{
		my $job  = "$call at $step";
		my $end  = $call eq 'recover' ? "'$job', NULL" : "'$job', 'w'";
		my $name = "$call() with a zombie after step $step";

		sql("CALL revenue_sink.$call('s', $end)");
		my $zombie = $node->background_psql('postgres', on_error_stop => 0);
		$zombie->query("\\set job '$job'");
		$zombie->query($_) foreach @steps[ 0 .. $step - 1 ];
		is(sql('SELECT count(*) FROM pg_prepared_xacts'), $step == @steps ? 1 : 0, "$name stands where it should");

		is(sql("CALL revenue_sink.$call('s', $end)"), '2', $name);
		ok(nothing_prepared(), 'nothing of it is left prepared');

		# Its successor counts the same event, at once.
		is(sql(qq(
BEGIN;
SELECT revenue_sink.begin_batch('s', '$job', 'w', 2, 1), revenue_sink.apply('s', '$job', 'e', '2024-03-01 10:01+00', 1);
COMMIT)), 't|applied', 'its successor goes on');

		# The zombie wakes up.
		foreach my $query (@steps[ $step .. $#steps ], 'COMMIT')
		{
			eval { $zombie->query($query) };
		}
		eval { $zombie->quit };
		ok(nothing_prepared(), 'it prepares nothing');
		is(revenue(), ++$truth, 'and counts for nothing');
	}
}

# The new epoch is known, and the one who opened it died before it did more: a
# row inserted by hand plays this part. The worker rolls back the leftovers.
sql(q(CALL revenue_sink.recover('s', 'orphan', NULL)));
sql(join("\n", map { /gset/ ? $_ : "$_;" } map { s/:'job'/'orphan'/r } @steps));
is(sql(q(SELECT state FROM revenue_sink.prepared)), 'in doubt', 'a batch is held');
sql(q(INSERT INTO revenue_sink.epoch (sink_id, job, writer, epoch, opened_at)
	SELECT id, 'orphan', NULL, 2, now() FROM revenue_sink.sink_catalog));
wait_until('the worker has rolled back the leftovers', \&nothing_prepared);
is(revenue(), $truth, 'it counts for nothing');
is(sql(q(SELECT problem FROM revenue_sink.check('s'))), '', 'check() finds nothing');

done_testing();
