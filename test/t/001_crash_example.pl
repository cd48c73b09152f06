# The traced example, in which the server really crashes.
#
# Order 7 is paid at 10:01 in two parts, 40 and 25. The minute says 65, and the
# next offset to read is committed with it. Then the server dies while the next
# event's row is written and its transaction is open. Whatever is delivered again
# afterwards, the minute says 65.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

my $node = new_node('example');
create_sink($node, 'postgres');

my $minute = q(
SELECT coalesce(sum(revenue), 0) || ' of ' || coalesce(sum(events), 0)
FROM fact_revenue_1m WHERE minute = '2024-03-01 10:01+00');
my $offset = q(SELECT next_offset FROM revenue_sink.offsets('s', 'orders'));

sub apply_sql
{
	my ($event, $time, $amount) = @_;

	return "SELECT revenue_sink.apply('s', 'order-7', '$event', '$time+00', $amount)";
}

my $first  = apply_sql('evt-9f2', '2024-03-01 10:01:12', 40);
my $second = apply_sql('evt-9f3', '2024-03-01 10:01:48', 25);
my $third  = apply_sql('evt-9f4', '2024-03-01 10:02:03', 12.5);
my $store  = q(SELECT revenue_sink.store_offsets('s', 'orders', '{0}', '{%d}'));

# Apply events and store the next offset in one transaction.
sub batch
{
	my ($next, @events) = @_;

	return $node->safe_psql('postgres', join(";\n",
		'BEGIN', @events, '\o /dev/null', sprintf($store, $next), 'COMMIT'));
}

is(batch(42, $first), 'applied', 'the first part arrives');
is($node->safe_psql('postgres', $minute), '40 of 1', 'the minute says 40');

# The row is written, and nothing is committed: nobody sees anything of it.
my $writer = $node->background_psql('postgres', on_error_stop => 0);
$writer->query_safe('BEGIN');
is($writer->query_safe($second), 'applied', 'evt-9f3 arrives');
$writer->query_safe(sprintf($store, 43));
is($node->safe_psql('postgres', "$minute; $offset"), "40 of 1\n42",
	'before its commit, minute and offset are as they were');
$writer->query_safe('COMMIT');
is($node->safe_psql('postgres', "$minute; $offset"), "65 of 2\n43",
	'with its commit, minute and offset move together');

# The server crashes after the row of evt-9f4 is written and before its commit.
$writer->query_safe('BEGIN');
is($writer->query_safe($third), 'applied', 'evt-9f4 arrives');
$writer->query_safe(sprintf($store, 44));
kill_server($node);
$writer->{run}->finish;
$node->start;

is($node->safe_psql('postgres', "$minute; $offset"), "65 of 2\n43",
	'after the crash, minute and offset are those of the last commit');
is($node->safe_psql('postgres', q(
SELECT revenue_sink.seen('s', 'order-7', 'evt-9f3'),
       revenue_sink.seen('s', 'order-7', 'evt-9f4'))), 't|f',
	'evt-9f3 is seen, evt-9f4 is not');

# The processor goes back further than it must.
is(batch(44, $second, $third), "duplicate\napplied",
	'replay: evt-9f3 is a duplicate, evt-9f4 is applied');
is($node->safe_psql('postgres', "$minute; $offset"), "65 of 2\n44",
	'the minute says 65 as before');
is($node->safe_psql('postgres',
	q(SELECT revenue FROM fact_revenue_1m WHERE minute = '2024-03-01 10:02+00')),
	'12.5', 'the next minute counts evt-9f4 once');

# The source itself sends the event once more, with another offset.
is(batch(45, $second), 'duplicate', 'evt-9f3 comes once more from the source and is a duplicate');
is($node->safe_psql('postgres', "$minute; $offset"), "65 of 2\n45",
	'the minute still says 65');

# The answers are the same after a merge and an orderly restart.
$node->safe_psql('postgres', q(SELECT revenue_sink.merge('s')));
$node->restart;
is($node->safe_psql('postgres', "$minute; $second"), "65 of 2\nduplicate",
	'after a merge and a restart: 65, and evt-9f3 is a duplicate');
is($node->safe_psql('postgres', q(SELECT problem FROM revenue_sink.check('s'))),
	'', 'check() finds nothing');

done_testing();
