# Without shared_preload_libraries every call that writes says which line to add.
# Readers don't need the library, and nothing is lost if it is left out for a
# while.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

my $node = new_node('preload');
my $hint = qr/HINT:.*shared_preload_libraries = 'revenue_sink'/;

create_sink($node, 'postgres');
is($node->safe_psql('postgres', q(
CREATE DATABASE fresh;
SELECT revenue_sink.apply('s', 'order-7', 'evt-9f3', '2024-03-01 10:01+00', 65))),
	'applied', 'with the library preloaded, apply() works');

$node->append_conf('postgresql.conf', q(shared_preload_libraries = ''));
$node->restart;

my ($ret, undef, $stderr) = $node->psql('fresh', 'CREATE EXTENSION revenue_sink');
is($ret, 0, 'CREATE EXTENSION works, for a copy that is to be read');
like($stderr, qr/WARNING:.*\n.*\n$hint/, 'the warning says which line to add');

foreach my $sql (
	q(SELECT revenue_sink.apply('s', 'order-7', 'evt-9f3', '2024-03-01 10:01+00', 65)),
	q(SELECT revenue_sink.apply('s', ARRAY['o'], '{e}', '{2024-03-01 10:01+00}', '{1}')),
	q(SELECT revenue_sink.apply('s', '[]'::jsonb)),
	q(INSERT INTO order_events VALUES ('o', 'e', '2024-03-01 10:01+00', 1)),
	q(SELECT revenue_sink.upsert('s', '{2024-03-01 10:01+00}', '{1}')),
	q(SELECT revenue_sink.store_offsets('s', 'orders', '{0}', '{1}')),
	q(SELECT revenue_sink.begin_batch('s', 'job', 'writer', 1, 0)),
	q(CALL revenue_sink.open_writer('s', 'job', 'writer')),
	q(CALL revenue_sink.recover('s', 'job', NULL)),
	q(SELECT revenue_sink.merge('s')),
	q(SELECT revenue_sink.expire('s')),
	q(SELECT * FROM revenue_sink.check('s')),
	q(SELECT revenue_sink.create_sink('t', 't_fact', 't_events')))
{
	($ret, undef, $stderr) = $node->psql('postgres', $sql);
	isnt($ret, 0, "fails: $sql");
	like($stderr, $hint, 'the error says which line to add');
}

is($node->safe_psql('postgres', q(
SELECT sum(revenue), sum(events) FROM fact_revenue_1m;
SELECT revenue_sink.seen('s', 'order-7', 'evt-9f3'), revenue_sink.seen('s', 'order-7', 'evt-9f4');
SELECT sink, problem IS NULL FROM revenue_sink.sink;
SELECT sink, seen_events, index_state IS NULL FROM revenue_sink.stat_sink;
SELECT count(*) FROM revenue_sink.offsets('s'))), "65|1\nt|f\ns|t\ns|1|t\n0", 'readers read');

$node->append_conf('postgresql.conf', q(shared_preload_libraries = 'revenue_sink'));
$node->restart;
is($node->safe_psql('postgres', q(
SELECT revenue_sink.apply('s', 'order-7', 'evt-9f3', '2024-03-01 10:01+00', 65);
SELECT sum(revenue) FROM fact_revenue_1m;
SELECT problem FROM revenue_sink.check('s'))), "duplicate\n65",
	'with the line added, nothing is lost');

done_testing();
