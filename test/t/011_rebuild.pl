# The index is built again, and must have every row: rows of unfinished
# transactions, rows in a new file, rows that came past the extension. Nor may the
# horizon be forgotten.
#
# This is small and step by step; other tests do the same in mid-stream.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

my $node = new_node('rebuild', conf => q(
revenue_sink.worker_interval = '1h'
autovacuum = off
));
create_sink($node, 'postgres', more => "dedup_window => '1 hour', max_future => '10000 days'");
my $seen = sink_table($node, 'postgres', 'seen');

sub apply
{
	my ($time, @events) = @_;

	return join ' ', split /\n/, $node->safe_psql('postgres', join '', map {
		qq(SELECT revenue_sink.apply('s', 'o', '$_', '2024-03-01 $time+00', 1);)
	} @events);
}

sub counted
{
	return $node->safe_psql('postgres', q(
SELECT coalesce(sum(events), 0) || ' counted, ' ||
  (SELECT deferred_events FROM
    (SELECT count(*) AS deferred_events FROM revenue_sink.deferred WHERE sink = 's') d) || ' deferred'
FROM fact_revenue_1m;
SELECT problem FROM revenue_sink.check('s')));
}

# Transactions were prepared before a crash: their events are neither forgotten
# nor taken for counted.
$node->safe_psql('postgres', q(
BEGIN;
SELECT revenue_sink.apply('s', 'o', 'rolled back', '2024-03-01 10:00+00', 1);
PREPARE TRANSACTION 'one';
BEGIN;
SELECT revenue_sink.apply('s', 'o', 'committed', '2024-03-01 10:00+00', 1);
PREPARE TRANSACTION 'two'));
is(apply('10:00', 'plain'), 'applied', 'an event beside two prepared ones');
kill_server($node);
$node->start;
is(apply('10:00', 'plain', 'rolled back', 'committed'), 'duplicate deferred deferred',
	'after a crash the prepared ones are still undecided');
is(counted(), '1 counted, 2 deferred', 'the prepared events are not counted');
$node->safe_psql('postgres', q(
ROLLBACK PREPARED 'one';
COMMIT PREPARED 'two';
SELECT revenue_sink.merge('s')));
is(counted(), '3 counted, 0 deferred', 'each event counts once when its transaction has ended');
is(apply('10:00', 'plain', 'rolled back', 'committed'), 'duplicate duplicate duplicate',
	'each event is known');

# The table gets a new file: the old addresses lead nowhere, or to other rows.
$node->safe_psql('postgres', q(
SELECT revenue_sink.apply('s', 'o', 'gone ' || i, '2024-03-01 09:00+00', 1)
FROM generate_series(1, 20) i));
is(apply('10:00', map { "new $_" } 1 .. 5), join(' ', ('applied') x 5), 'five more events');
$node->safe_psql('postgres', "VACUUM FULL $seen");
is(apply('10:00', 'plain', map { "new $_" } 1 .. 5), join(' ', ('duplicate') x 6),
	'the events are known after VACUUM FULL');
is($node->safe_psql('postgres', q(SELECT problem FROM revenue_sink.check('s'))), '',
	'check() finds nothing');

# After the index has been built, rows come into the table past the extension, as
# a restore brings them.
$node->safe_psql('postgres', q(
SELECT count(revenue_sink.apply('s', 'o', 'small ' || i, '2024-03-01 10:00+00', 1))
FROM generate_series(1, 1500) i));
$node->safe_psql('postgres', qq(
CREATE TABLE saved AS SELECT * FROM $seen;
TRUNCATE $seen));
is(apply('10:00', 'first'), 'applied', 'an event in an empty table');
$node->safe_psql('postgres', qq(INSERT INTO $seen SELECT * FROM saved));
my $answers = q(
SELECT revenue_sink.apply('s', 'o', 'small ' || i, '2024-03-01 10:00+00', 1) AS answer, count(*)
FROM generate_series(%d, 1500) i GROUP BY 1);
is($node->safe_psql('postgres', sprintf($answers, 1001)), 'duplicate|500',
	'rows that came past the extension are found');
$node->safe_psql('postgres', qq(
TRUNCATE $seen;
INSERT INTO $seen SELECT * FROM saved));
is($node->safe_psql('postgres', sprintf($answers, 1)), 'duplicate|1500',
	'such rows are found right after TRUNCATE, too');


# The same happens while somebody looks at the rows that are there so far, as the
# worker may.
$node->safe_psql('postgres', "TRUNCATE $seen");
my $restore = $node->background_psql('postgres');
$restore->query_safe("BEGIN; INSERT INTO $seen SELECT * FROM saved ORDER BY ctid LIMIT 1");
is(apply('10:00', 'first'), 'applied', 'an event in the middle of a restore');
$restore->query_safe("INSERT INTO $seen SELECT * FROM saved ORDER BY ctid OFFSET 1; COMMIT");
$restore->quit;
is($node->safe_psql('postgres', sprintf($answers, 1)), 'duplicate|1500',
	'all rows of the restore are found');

# Packing makes few rows of many and loses no event.
my $rows = $node->safe_psql('postgres', qq(
SELECT count(revenue_sink.apply('s', 'o', 'tiny ' || i, '2024-03-01 10:00+00', 1))
FROM generate_series(1, 1500) i;
SELECT count(*) FROM $seen));
$rows =~ s/.*\n//;
$node->append_conf('postgresql.conf', q(revenue_sink.worker_interval = '100ms'));
$node->reload;
ok($node->poll_query_until('postgres', "SELECT count(*) < $rows / 4 FROM $seen"),
	'small rows are packed');
$answers =~ s/small/tiny/;
is($node->safe_psql('postgres', sprintf($answers, 1)), 'duplicate|1500', 'all packed events are known');
kill_server($node);
$node->append_conf('postgresql.conf', q(revenue_sink.worker_interval = '1h'));
$node->start;
is($node->safe_psql('postgres', sprintf($answers, 1)), 'duplicate|1500', 'all packed events are known after a crash');

# The clock is behind the numbers in the tables, as after a restart on another
# machine: the last offset and the last total win all the same.
$node->safe_psql('postgres', q(
SELECT revenue_sink.create_sink('t', 'fact_t', 'events_t', mode => 'totals');
SELECT revenue_sink.upsert('t', ARRAY['2024-03-01 10:01+00', '2024-03-01 10:02+00']::timestamptz[], ARRAY[1, 1]);
SELECT revenue_sink.merge('t');
SELECT revenue_sink.upsert('t', ARRAY['2024-03-01 10:02+00']::timestamptz[], ARRAY[2]);
SELECT revenue_sink.store_offsets('s', 'source', ARRAY[0], ARRAY[1000])));
my ($versions, $totals) = split /,/, $node->safe_psql('postgres',
	q(SELECT format('revenue_sink.delta_%s,revenue_sink.total_%s', id, id) FROM revenue_sink.sink_catalog WHERE name = 't'));
$node->safe_psql('postgres', "UPDATE $_ SET sequence = sequence + 1000000000000")
  foreach $versions, $totals, 'revenue_sink.committed_offset';
$node->restart;
is($node->safe_psql('postgres', q(
\o /dev/null
SELECT revenue_sink.upsert('t', ARRAY['2024-03-01 10:01+00', '2024-03-01 10:02+00']::timestamptz[], ARRAY[3, 4]);
SELECT revenue_sink.store_offsets('s', 'source', ARRAY[0], ARRAY[500]);
\o
SELECT string_agg(revenue::text, ' ' ORDER BY minute) FROM fact_t;
SELECT next_offset FROM revenue_sink.offsets('s', 'source'))), "3 4\n500", 'the last one wins');

# Events before the horizon stay late.
is(apply('12:00', 'later'), 'applied', 'an event raises the watermark');
$node->safe_psql('postgres', q(SELECT revenue_sink.expire('s')));
is(apply('10:00', 'plain', 'never seen'), 'late late', 'events before the horizon are late');

# The worker's first round would find the horizon, so the worker is made to wait.
$node->safe_psql('postgres', q(
BEGIN;
LOCK TABLE revenue_sink.deferred_event IN SHARE MODE;
PREPARE TRANSACTION 'worker waits'));
kill_server($node);
$node->start;
is(apply('10:00', 'plain', 'never seen'), 'late late', 'they are late after a crash, too');
is(apply('12:00', 'later'), 'duplicate', 'an event after the horizon is known');
$node->safe_psql('postgres', q(ROLLBACK PREPARED 'worker waits'));

$node->stop;
done_testing();
