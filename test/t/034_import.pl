# What is imported stays right whatever the worker does with it, and through crashes,
# a dump, a standby that takes over, and imports that don't fit into memory.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

# In 3 MB, sealing begins at some 60,500 events, and the index has room for some
# 240,000.
my $node = new_node('import', streaming => 1, conf => q(
revenue_sink.dedup_memory = '3MB'
revenue_sink.worker_interval = '20ms'
autovacuum = off
));
my $dir = PostgreSQL::Test::Utils::tempdir();
create_sink($node, 'postgres');
my %table = map { $_ => sink_table($node, 'postgres', $_) } qw(seen slice);

sub sql
{
	my ($sql, $where) = @_;

	return ($where // $node)->safe_psql('postgres', $sql);
}

# The SQL of a call of a function with the events from .. to - 1, which are spread
# over the hours from a time on; the result is the counts of applied, duplicate,
# deferred, conflict, late and rejected.
sub call_of
{
	my ($function, $from, $to, %p) = @_;

	return sprintf(q(SELECT concat_ws('|', applied, duplicate, deferred, conflict, late, rejected)
FROM (SELECT array_agg('o' || i / 3), array_agg('e' || i), array_agg('%s'::timestamptz + i %% 10000 * interval '1 second'), array_agg(1.0)
	FROM generate_series(%d, %d - 1) i) AS a (o, e, t, m), revenue_sink.%s('%s', o, e, t, m)),
		$p{at} // '2024-03-01 10:00+00', $from, $to, $function, $p{sink} // 's');
}

sub remember { return call_of('import_seen', @_) }
sub feed     { return call_of('apply', @_) }

# The totals of those events; with events or without.
sub totals
{
	my ($n, $events, %p) = @_;

	return sprintf(q(SELECT revenue_sink.import_totals('%s', array_agg(m), array_agg(r), NULL, %s)
FROM (SELECT date_trunc('minute', '2024-03-01 10:00+00'::timestamptz + i %% 10000 * interval '1 second'), sum(1.0), count(*)
	FROM generate_series(0, %d - 1) i GROUP BY 1) AS t (m, r, e)), $p{sink} // 's', $events ? 'array_agg(e)' : 'NULL', $n);
}

my $seen = "SELECT seen_events FROM revenue_sink.stat_sink WHERE sink = 's'";
my $times = q(SELECT coalesce(watermark::text, 'none'), coalesce(horizon::text, 'none') FROM revenue_sink.stat_sink WHERE sink = 's');
my $facts = 'SELECT sum(revenue), sum(events), count(*) FROM fact_revenue_1m';
my $check = "SELECT problem FROM revenue_sink.check('s')";
my $own = qr/ERROR:  55000: sink "s" has events of its own\n/;

sub refuses
{
	my ($name, $where) = @_;

	like(error_of($where // $node, 'postgres', remember(1, 2)), $own, "$name: no seen events can be imported");
	like(error_of($where // $node, 'postgres', totals(1)), $own, "$name: no totals can be imported");
	return;
}

# A crash in the middle of an import leaves nothing; then it is repeated.
my $n = 150_000;
my $session = $node->background_psql('postgres');
$session->query_safe('BEGIN');
$session->query_safe(totals($n, 1));
is($session->query_safe(remember(0, 10_000)), '10000|0|0|0|0|0', 'an import begins');
kill_server($node);
eval { $session->quit };
$node->start;
is(sql($facts), '||0', 'after the crash no total is there');
is(sql($seen), '0', 'and no event');

# In the first calls events come one by one, and are packed.
is(sql(totals($n, 1)), 167, 'totals are imported');
sql(join(";\n", map { remember($_, $_ + 1) } 0 .. 1_999));
wait_until('small rows are packed', sub { sql("SELECT count(*) FROM $table{seen} WHERE events > 0") < 1_200 });
for (my $from = 2_000; $from < $n; $from += 10_000)
{
	sql(remember($from, $from + 10_000 > $n ? $n : $from + 10_000));
}
wait_until('many events are sealed', sub { sql("SELECT sum(events) > 80000 FROM $table{slice}") eq 't' });
is(sql($facts), "$n.0|$n|167", 'the fact view shows the totals');
is(sql($seen), $n, 'each event is remembered once');
is(sql($times), 'none|none', 'none of this moves the watermark');
is(sql(remember(0, $n)), "0|$n|0|0|0|0", 'imported again, all are known');
is(sql(totals($n, 1)), 167, 'the totals are set once more');
is(sql($check), '', 'check() finds nothing');
kill_server($node);
$node->start;
is(sql(remember(0, $n)), "0|$n|0|0|0|0", 'after a crash all are known');
is(sql($facts), "$n.0|$n|167", 'and the totals are there');

# A dump of what is imported so far. In a restored database the import goes on.
sub restore
{
	my ($db, @more) = @_;

	sql("CREATE DATABASE $db");
	system_or_bail('pg_dump', '-d', $node->connstr('postgres'), '-Fc', '-f', "$dir/$db", @more);
	system_or_bail('pg_restore', '--exit-on-error', '-d', $node->connstr($db), "$dir/$db");
	return;
}

restore('half');
is($node->safe_psql('half', remember(0, $n + 10)), "10|$n|0|0|0|0", 'in a restored database the import goes on');
is($node->safe_psql('half', $facts), "$n.0|$n|167", 'and the totals are there');
is($node->safe_psql('half', feed(0, 10)), '0|10|0|0|0|0', 'imported events are duplicates');
is($node->safe_psql('half', $check), '', 'check() finds nothing there');

# Own events that come one by one are not packed with imported ones.
$node->safe_psql('half', join(";\n", map { remember($_, $_ + 1, at => '2024-03-01 20:20+00') } 200_000 .. 201_000));
$node->safe_psql('half', join(";\n", map { feed($_, $_ + 1, at => '2024-03-01 20:20+00') } 210_000 .. 211_199));
wait_until('small rows are packed', sub {
	$node->safe_psql('half', "SELECT count(*) > 0 FROM $table{seen} WHERE oldest > '-infinity' AND events > 1") eq 't' });
is($node->safe_psql('half', "SELECT sum(events) FROM $table{seen} WHERE oldest > '-infinity'"), 1_200,
	'own events are known from imported ones');
is($node->safe_psql('half', $check), '', 'check() finds nothing there');

# Without the totals that don't say how many events they have, it isn't whole.
sql("SELECT revenue_sink.create_sink('t', 'fact_t', 'events_t')");
is(sql(totals(100, 0, sink => 't')), 2, 'totals without a number of events');
my $total_t = sql("SELECT revenue_sink.relation_of('t', 'total')");
restore('torn', "--exclude-table-data=$total_t");
is($node->safe_psql('torn', "SELECT problem FROM revenue_sink.sink WHERE sink = 't'"),
	'the sink has not arrived whole: 2 totals were imported without a number of events, but 0 are there',
	'a restored sink without these totals says so');
sql("SELECT revenue_sink.drop_sink('t')");

# The standby shows what is imported, and takes no import.
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby, 'replay', $node->lsn('flush'));
is(sql($facts, $standby), "$n.0|$n|167", 'a standby shows the totals');
like(error_of($standby, 'postgres', remember(0, 1)), qr/ERROR:  25006: /, 'a standby takes no seen events');
like(error_of($standby, 'postgres', totals(1)), qr/ERROR:  25006: /, 'a standby takes no totals');

# The first event of its own; the imported ones expire with time.
is(sql(feed(0, 5)), '0|5|0|0|0|0', 'imported events are duplicates');
is(sql($times), 'none|none', 'which doesn\'t move the watermark, either');
is(sql(remember($n, $n + 1)), '1|0|0|0|0|0', 'so there can be more of the import');
is(sql(feed($n + 1, $n + 2)), '1|0|0|0|0|0', 'the first event of its own');
refuses('from then on');
kill_server($node);
$node->start;
refuses('after a crash');
wait_until('it is merged', sub { sql('SELECT unmerged_deltas FROM revenue_sink.stat_sink') == 0 });
is(sql($facts), ($n + 1) . '.0|' . ($n + 1) . '|167', 'it is added to the imported total');
is(sql($check), '', 'check() finds nothing');
is(sql(feed(0, 10, at => '2024-03-03 12:00+00')), '0|0|0|10|0|0', 'what contradicts an imported event is a conflict');
is(sql(feed($n + 2, $n + 3, at => '2024-03-02 11:00+00')), '1|0|0|0|0|0', 'time passes');
wait_until('the horizon is up', sub { sql("SELECT horizon > '2024-03-01 10:59+00' FROM revenue_sink.stat_sink") eq 't' });
is(sql(feed(0, 5)), '0|0|0|0|5|0', 'an imported event behind the horizon is late');
is(sql($check), '', 'check() finds nothing');
is(sql(feed($n + 3, $n + 4, at => '2024-03-04 11:00+00')), '1|0|0|0|0|0', 'time passes again');
wait_until('all but the newest have expired', sub { sql($seen) == 1 });
refuses('when its first events have expired');
restore('later');
like(error_of($node, 'later', remember(1, 2)), $own, 'a restored sink has events of its own, too');
is($node->safe_psql('later', $check), '', 'check() finds nothing there');

# The standby takes over.
$node->wait_for_catchup($standby, 'replay', $node->lsn('flush'));
$standby->promote;
refuses('after a promotion', $standby);
is(sql(feed(0, 5), $standby), '0|0|0|0|5|0', 'after a promotion the horizon is known');
is(sql($check, $standby), '', 'check() finds nothing');
$standby->stop;

# An import in one transaction that needs more memory than there is. As the
# transaction is unfinished, nothing of it can be sealed meanwhile.
sql("SELECT revenue_sink.drop_sink('s')");
create_sink($node, 'postgres');
my $big = 600_000;
is(sql('BEGIN; ' . join('; ', map { remember($_, $_ + 100_000) } map { $_ * 100_000 } 0 .. 5) . '; ' . totals($big)
		. "; SELECT index_state FROM revenue_sink.stat_sink; COMMIT"), "100000|0|0|0|0|0\n" x 6 . "167\noverflowed", 'an import that doesn\'t fit into memory');
is(sql(remember(0, $big)), "0|$big|0|0|0|0", 'all of it is known');
kill_server($node);
$node->start;
is(sql(feed(0, $big)), "0|$big|0|0|0|0", 'after a crash, too');
is(sql($check), '', 'check() finds nothing');
is(sql('SELECT sum(revenue), sum(events) FROM fact_revenue_1m'), "$big.0|", 'the totals are there');

done_testing();
