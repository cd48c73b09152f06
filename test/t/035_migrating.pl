# The statements of docs/migrating.md, run as the page shows them, while processors
# write and the server is killed: at the end each event counts once.
#
# The page is in the folder docs beside the folder test, or in DOCS.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

my $file = ($ENV{DOCS} // "$FindBin::RealBin/../../docs") . '/migrating.md';
-r $file or die "$file is missing: copy docs to where test is, or set DOCS";
my $page = slurp_file($file);
my %snippet;
$snippet{$1} = $2 while $page =~ /^<!-- 035_migrating\.pl: ([^\n]+) -->\n```sql\n(.*?)^```$/msg;
is(scalar(() = $page =~ /```sql/g), scalar(keys %snippet), 'each statement of the page has a name');
my %shown = %snippet;

# A statement of the page
sub page
{
	my ($name) = @_;

	delete $shown{$name};
	return $snippet{$name} // die "the page has no \"$name\"";
}

my $node = new_node('migrating', conf => q(
revenue_sink.worker_interval = '50ms'
));
$node->safe_psql('postgres', 'CREATE ROLE payments; CREATE ROLE reports');

# The stream: some hundred events an hour for two days, of which each tenth is there
# twice in a row.
sub topic_of
{
	my ($db) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, q(
SET client_min_messages = warning;
CREATE EXTENSION revenue_sink;
CREATE TABLE topic AS
SELECT row_number() OVER (ORDER BY i, copy) AS position, 'order-' || i / 3 AS order_id, 'event-' || i AS event_id,
	timestamptz '2024-03-01 00:00+00' + i * interval '20 seconds' AS event_time,
	(i % 90 - 5) + 0.25 AS amount, 'shop-' || i % 3 AS shop, i % 3 AS partition
FROM generate_series(0, 8639) i, generate_series(0, CASE WHEN i % 10 = 0 THEN 1 ELSE 0 END) copy));
	return;
}

# Events of the topic, as the arguments of a call
sub arrays_of
{
	my ($from, $to) = @_;

	return "FROM (SELECT array_agg(order_id), array_agg(event_id), array_agg(event_time), array_agg(amount), array_agg(shop) "
	  . "FROM topic WHERE position >= $from AND position < $to) AS a (o, e, t, m, s)";
}

# The old processor writes events to the old tables.
sub old_write
{
	my ($db, $from, $to) = @_;

	return $node->safe_psql($db, old_sql($from, $to));
}

sub old_sql
{
	my ($from, $to) = @_;

	return page('old writer') . qq(
SELECT format('EXECUTE write_batch(%L, %L, %L, %L, %L)', o, e, t, m, s) @{[ arrays_of($from, $to) ]} \\gexec
);
}

# The new processor writes events to the sink; returns applied, duplicate and late.
sub new_write
{
	my ($db, $from, $to) = @_;

	return $node->safe_psql($db, "SELECT concat_ws('|', applied, duplicate, late) "
		  . arrays_of($from, $to) . ", revenue_sink.apply('orders', o, e, t, m, s)");
}

# What the fact view has too much (>) or too little (<) of the topic's events up to a
# position; the event that ends the import has no revenue.
sub differences_of
{
	my ($db, $to, $column) = @_;

	return $node->safe_psql($db, qq(
WITH truth AS (SELECT date_trunc('minute', event_time, 'UTC') AS minute, shop, sum(amount) AS revenue, count(*) AS events
	FROM (SELECT DISTINCT order_id, event_id, event_time, amount, shop FROM topic WHERE position < $to) AS t GROUP BY 1, 2),
facts AS (SELECT minute, $column AS shop, revenue, events - coalesce((minute = m AND $column = s)::int, 0) AS events FROM revenue_by_minute,
	(SELECT date_trunc('minute', event_time, 'UTC') AS m, group_key AS s FROM migration) AS end_of_import)
SELECT '<', * FROM (SELECT * FROM truth EXCEPT SELECT * FROM facts) AS t UNION ALL
SELECT '>', * FROM (SELECT * FROM facts EXCEPT SELECT * FROM truth) AS f));
}

# How many sessions wait for a lock
sub waiting
{
	return $node->safe_psql('postgres',
		q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND wait_event_type = 'Lock'));
}

# Hold a lock, so that what needs it stops there; and kill the server then.
sub kill_at
{
	my ($db, $lock, $sql, $name) = @_;
	my $holder = $node->background_psql($db);
	my $session = $node->background_psql($db, on_error_stop => 0);

	$holder->query_safe("BEGIN; $lock");
	$session->query_until(qr/begun/, "\\echo begun\n$sql\n");
	wait_until($name, sub { waiting() == 1 });
	kill_server($node);
	eval { $_->quit } foreach $holder, $session;
	$node->start;
	return;
}

# ----------------------------------------------------------------------
# From a table of seen events and a table of totals

topic_of('shop');
my $db = 'shop';

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql($db, $sql);
}

sql(page('tables'));
old_write($db, 1, 9001);
sql(page('create'));

# The server is killed when the totals are imported and seen events are not.
kill_at($db, 'LOCK TABLE seen IN ACCESS EXCLUSIVE MODE', page('import'), 'all totals are imported');
is(sql('SELECT count(*) > 5000 FROM new_revenue'), 't', 'after the crash the totals are there');
is(sql("SELECT seen_events FROM revenue_sink.stat_sink"), 0, 'and no seen events');
old_write($db, 9001, 9101);
sql('CALL import_orders()');
is(sql("SELECT seen_events > 4000 FROM revenue_sink.stat_sink"), 't', 'seen events of a day are imported');

# Processors go on: a late event comes to an old minute, among others.
sql("UPDATE topic SET event_time = '2024-03-01 00:00:30+00' WHERE position = 9103");
old_write($db, 9101, 9201);

# The server is killed in the middle of the switch, when an event that ends the
# import is there already.
my ($first, $rest) = split(/^(?=ALTER TABLE seen)/m, page('switch'));
kill_at($db, 'LOCK TABLE seen IN ACCESS SHARE MODE', "$first$rest", 'the switch waits for a reader');
is(sql("SELECT count(*) FROM new_revenue WHERE minute >= '2024-03-02 01:00+00'") > 0, 1, 'after the crash the import is there');
is(sql("SELECT sum(events) < (SELECT count(*) FROM seen) FROM new_revenue"), 't', 'and the switch is not');
old_write($db, 9201, 9251);

# One processor has an open transaction when the tables are locked; a second one comes
# later. Meanwhile a reader goes on.
my $open = $node->background_psql($db);
my $late = $node->background_psql($db, on_error_stop => 0);
my $switch = $node->background_psql($db);
$open->query_safe('BEGIN');
$open->query_safe(old_sql(9251, 9301));
$switch->query_until(qr/begun/, "\\echo begun\n" . page('switch') . "\\echo switched\n");
wait_until('the switch waits for the open transaction', sub { waiting() == 1 });
$late->query_until(qr/begun/, "\\echo begun\n" . old_sql(9301, 9351));
wait_until('the second processor waits for the switch', sub { waiting() == 2 });
is(sql('SELECT count(*) > 0 FROM revenue_by_minute'), 't', 'readers go on');
$open->query_safe('COMMIT');
$switch->query_until(qr/switched/, "\n");
$switch->quit;
$open->quit;
$late->query('SELECT');
like($late->{stderr}, qr/ERROR:  relation "seen" does not exist|ERROR:  cannot write to the fact view/,
	'the second processor fails');
$late->quit;

# The event that ends the import
sql(q(CREATE TABLE migration AS SELECT event_time, shop AS group_key FROM old_seen ORDER BY event_time DESC LIMIT 1));
sql(page('grant'));
is(sql("SET ROLE payments; SELECT applied FROM revenue_sink.apply('orders', '{}'::text[], '{}', '{}', '{}')"), 0, 'processors may write to the sink');
is(sql('SET ROLE reports; SELECT count(*) > 0 FROM revenue_by_minute'), 't', 'reports may read the fact view');
is(differences_of($db, 9301, 'group_key'), '', 'the fact view has what the old tables had');
like(error_of($node, $db, "SELECT revenue_sink.import_totals('orders', '{}', '{}')"), qr/ERROR:  55000: /, 'the import has ended');

# Processors begin where their last transaction had been committed, and a little
# before. One begins by mistake with the start of the topic.
is(new_write($db, 9231, 9351), '46|74|0', 'events that were in flight are counted, others are duplicates');
is(new_write($db, 9001, 9351), '0|349|1', 'then all of them are duplicates, but for one that was late');
my ($applied, $duplicate, $too_late) = split(/\|/, new_write($db, 1, 9001));
is($applied, 0, 'none of the old events counts once more');
cmp_ok($too_late, '>', 3000, 'old ones are late');
is($duplicate + $too_late, 9000, 'and the others are duplicates');
is(new_write($db, 9351, 9505), '140|14|0', 'the end of the topic');
sql(page('rename'));
is(differences_of($db, 10_000, 'shop'), '', 'each event of the topic counts once');
my $compared = sql(page('compare'));
unlike($compared, qr/problem|revenue counts/, 'check() finds nothing');
is(scalar(() = $compared =~ /^.*\|shop-\d\|/mg), sql(q(SELECT count(DISTINCT (date_trunc('minute', event_time, 'UTC'), shop)) FROM
	(SELECT event_time, shop FROM topic WHERE position >= 9301 UNION ALL SELECT event_time, group_key FROM migration) AS t
	WHERE event_time > (SELECT min(event_time) FROM topic WHERE position >= 9301) - interval '1 minute')),
	'the comparison shows what came after the switch');
kill_server($node);
$node->start;
sql(page('drop'));
is(differences_of($db, 10_000, 'shop'), '', 'after a crash, without the old tables, each event counts once');

# ----------------------------------------------------------------------
# From a table that was only appended to

topic_of('appended');
$db = 'appended';
sql(page('log'));
my $append = 'INSERT INTO order_log (order_id, event_id, event_time, amount, shop) '
  . 'SELECT order_id, event_id, event_time, amount, shop FROM topic WHERE position >= %d AND position < %d ORDER BY position';
sql(sprintf($append, 1, 9001));
sql(sprintf($append, 8000, 8101));
sql("INSERT INTO order_log (order_id, event_id, event_time, amount, shop) SELECT order_id, event_id, event_time, amount + 1, 'other' "
	. 'FROM topic WHERE position = 8500');
sql(page('log views'));
sql(page('create'));
sql(page('import'));
sql(sprintf($append, 9001, 9101));
my $of_log = page('switch');
$of_log =~ s/^LOCK TABLE.*\n/page('log lock')/me;
$of_log =~ s/^(ALTER .*\n)+/page('log renames')/me;
kill_at($db, 'LOCK TABLE order_log IN ACCESS SHARE MODE', $of_log, 'the switch waits for a reader');
sql(sprintf($append, 9101, 9151));
sql($of_log);
sql(q(CREATE TABLE migration AS SELECT event_time, shop AS group_key FROM old_seen ORDER BY event_time DESC LIMIT 1));
like(error_of($node, $db, sprintf($append, 9151, 9201)), qr/ERROR:  42P01: relation "order_log" does not exist/,
	'appended: the old processor fails');
is(new_write($db, 9101, 9505), '322|82|0', 'appended: the new processor goes on');
is(differences_of($db, 10_000, 'group_key'), '', 'appended: each event counts once');
is(sql("SELECT problem FROM revenue_sink.check('orders')"), '', 'appended: check() finds nothing');

# ----------------------------------------------------------------------
# From nothing but a topic

topic_of('topic');
$db = 'topic';
sql(page('topic create'));
sql('CREATE TABLE migration (event_time timestamptz, group_key text); INSERT INTO migration VALUES (NULL, NULL)');

# A writer of a partition writes batches of 500 positions, until "to".
sub consume
{
	my ($partition, $to) = @_;
	my ($epoch) = sql("CALL revenue_sink.open_writer('orders', 'job', 'p$partition')");
	my ($at) = map { /^$partition\|(\d+)$/ ? $1 : () } split(/\n/, sql(page('topic position')));
	my $number = 0;

	for ($at //= 1; $at < $to; $at = $at + 500 > $to ? $to : $at + 500)
	{
		my $end = $at + 500 > $to ? $to : $at + 500;

		$number++;
		sql(qq(BEGIN; SELECT revenue_sink.begin_batch('orders', 'job', 'p$partition', $epoch, $number);
SELECT applied @{[ arrays_of($at, "$end AND partition = $partition") ]}, revenue_sink.apply('orders', o, e, t, m, s);
SELECT revenue_sink.store_offsets('orders', 'orders', '{$partition}', '{$end}'); COMMIT;));
	}
	return;
}

# Partition 2 stays far behind the others for a while.
consume(0, 9505);
consume(2, 1001);
my $unfinished = $node->background_psql($db);
my $epoch = sql("CALL revenue_sink.open_writer('orders', 'job', 'p1')");
$unfinished->query_safe("BEGIN; SELECT revenue_sink.begin_batch('orders', 'job', 'p1', $epoch, 1)");
$unfinished->query_safe("SELECT applied @{[ arrays_of(1, '5000 AND partition = 1') ]}, revenue_sink.apply('orders', o, e, t, m, s)");
kill_server($node);
eval { $unfinished->quit };
$node->start;
consume($_, 9505) foreach 0 .. 2;
is(sql(page('topic position')), "0|9505\n1|9505\n2|9505", 'topic: all partitions are read');
is(sql(page('topic check')), '', 'topic: no dead letter, and check() finds nothing');
is(differences_of($db, 10_000, 'group_key'), '', 'topic: each event counts once');
sql(page('topic window'));
is(new_write($db, 9001, 9505), '0|504|0', 'topic: events of the window are known');

is(join(', ', sort keys %shown), '', 'each statement of the page was run');
done_testing();
