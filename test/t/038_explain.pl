# explain_event() where an event isn't found in the index: in sealed slices, past the
# memory bound, on a standby, without the library preloaded; and through a crash and a
# promotion. What it can't know there, it says.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

# In 8 MB, sealing begins at some 161,000 events.
my $node = new_node('explain', streaming => 1, conf => q(
revenue_sink.dedup_memory = '8MB'
revenue_sink.worker_interval = '20ms'
track_commit_timestamp = on
autovacuum = off
));
create_sink($node, 'postgres');
my $seen  = sink_table($node, 'postgres', 'seen');
my $slice = sink_table($node, 'postgres', 'slice');

sub sql
{
	my ($sql, $where) = @_;

	return ($where // $node)->safe_psql('postgres', $sql);
}

# Facts, gids and details of an event, a line each; of the detail all but
# what the copy has.
sub known_of
{
	my ($id, $where) = @_;

	return sql("SELECT fact, gid, regexp_replace(detail, '(; )?event_time [^;]*(; )?', '') FROM revenue_sink.explain_event('s', 'o', '$id')", $where);
}

# Apply the events from .. to - 1, one per second.
sub feed
{
	my ($from, $to) = @_;

	return "SELECT applied, duplicate, deferred FROM (SELECT array_agg('o'::text), array_agg('e' || i), "
	  . "array_agg('2024-03-01 10:00+00'::timestamptz + i * interval '1 ms'), array_agg(1::numeric) "
	  . "FROM generate_series($from, $to - 1) i) AS a (o, e, t, m), revenue_sink.apply('s', o, e, t, m)";
}

# A prepared batch with the event, among others of a call that is not small, and a copy
# that waits for the batch; returns its gid.
sub prepare
{
	my ($number, $id) = @_;
	my $gid = sql(qq(
\\set QUIET on
\\o /dev/null
BEGIN;
SELECT revenue_sink.begin_batch('s', 'job', 'w', 1, $number);
SELECT revenue_sink.apply('s', array_agg('o'::text), array_agg(concat('$id', nullif(i, 0))),
	array_agg('2024-03-01 12:00+00'::timestamptz), array_agg(1::numeric)) FROM generate_series(0, 999) i;
SELECT revenue_sink.pre_commit('s') AS gid \\gset
PREPARE TRANSACTION :'gid';
SELECT revenue_sink.apply('s', 'o', '$id', '2024-03-01 12:00+00', 1);
\\o
\\echo :gid));

	return $gid;
}

# With commit timestamps, the time of the transaction is known.
my $before = sql('SELECT clock_timestamp()');
is(sql("SELECT revenue_sink.apply('s', 'o', 'first', '2024-03-01 10:00+00', 1)"), 'applied', 'an event is applied');
is(sql("SELECT fact, since BETWEEN '$before' AND clock_timestamp(), detail FROM revenue_sink.explain_event('s', 'o', 'first')"),
	'counted|t|it came in at this time at the latest; event_time 2024-03-01 10:00:00+00', 'a commit timestamp');

# Events of sealed slices are found, and nobody knows when they came in.
my $n = 200_000;
is(sql(feed(0, $n)), "$n|0|0", 'many events are applied');
ok($node->poll_query_until('postgres', "SELECT sum(events) > 100000 FROM $slice"), 'most of them are sealed');
ok($node->poll_query_until('postgres', 'SELECT seen_bytes_hot > 0 AND seen_bytes_filters > 0 AND seen_bytes_fences > 0 FROM revenue_sink.stat_sink'),
	'memory is used for each of the three kinds');
is(known_of('e0'), 'counted||when it came in is not known', 'an event of a sealed slice');
is(sql('SELECT count(*) FROM generate_series(0, ' . ($n - 1) . ", 333) i WHERE NOT EXISTS (SELECT FROM revenue_sink.explain_event('s', 'o', 'e' || i) WHERE fact = 'counted')"),
	'0', 'events of all slices are counted');

# A standby
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
sql("CALL revenue_sink.open_writer('s', 'job', 'w', epoch => 1)");

# While somebody has called merge() and not committed, the worker writes no row anew.
my $holder = $node->background_psql('postgres');
$holder->query_safe(q(BEGIN; SELECT revenue_sink.merge('s')));
my $gid = prepare(1, 'held');
my $waits = 'batch 1 of writer "w" of job "job", prepared and in doubt';
is(known_of('held'), "unfinished|$gid|claimed by $waits\ndeferred|$gid|waits for $waits", 'a prepared batch, and a copy that waits for it');
sql("SELECT revenue_sink.apply('s', 'o', 'first', '2024-03-01 10:00+00', 2)");
sql("BEGIN; SELECT revenue_sink.begin_batch('s', 'job', 'w', 1, 2), revenue_sink.apply('s', 'o', 'batch', '2024-03-01 12:00+00', 1); COMMIT");
is(known_of('batch'), 'counted||batch 2 of writer "w" of job "job"', 'a batch that is committed');
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
is(sql('SELECT count(*) FROM generate_series(0, ' . ($n - 1) . ", 3337) i WHERE NOT revenue_sink.seen('s', 'o', 'e' || i)", $standby), '0',
	'standby: seen() knows events of sealed slices');
is(sql("SELECT revenue_sink.seen('s', 'o', 'e-1'), revenue_sink.seen('s', 'o', 'held')", $standby), 'f|f', 'standby: seen() knows no other ones');
is(known_of('e0', $standby), 'counted||when it came in is not known', 'standby: an event of a sealed slice');
like(known_of('first', $standby), qr/^counted\|\|when it came in is not known\ndead letter\|\|conflict, not resolved$/,
	'standby: a counted event, and a conflict with it');
is(known_of('batch', $standby), 'counted||batch 2 of writer "w" of job "job"', 'standby: a batch that is committed');
is(known_of('never', $standby), 'not counted||the sink has not counted such an event, and none has expired', 'standby: an event that nobody has sent');
$waits = 'batch 1 of writer "w" of job "job", which is open or prepared; a standby can\'t tell, and has no gid';
is(known_of('held', $standby), "unfinished||claimed by $waits\ndeferred||waits for $waits", 'standby: a prepared batch');

$holder->query_safe('COMMIT');
$holder->quit;

# Who is without the library preloaded reads the tables, too.
$node->append_conf('postgresql.conf', q(shared_preload_libraries = ''));
$node->restart;
is(known_of('e0'), 'counted||when it came in is not known', 'not preloaded: an event of a sealed slice');
$waits = 'batch 1 of writer "w" of job "job", prepared and in doubt';
is(known_of('held'), "unfinished|$gid|claimed by $waits\ndeferred|$gid|waits for $waits", 'not preloaded: a prepared batch');
is(known_of('never'), 'not counted||the sink has not counted such an event, and none has expired', 'not preloaded: an event that nobody has sent');

# After a crash, with memory for hardly any event: those that are past it, too.
$node->append_conf('postgresql.conf', q(
shared_preload_libraries = 'revenue_sink'
revenue_sink.dedup_memory = '3MB'
));
kill_server($node);
$node->start;
is(known_of('held'), "unfinished|$gid|claimed by $waits\ndeferred|$gid|waits for $waits", 'after a crash: a prepared batch');
ok($node->poll_query_until('postgres', "SELECT sum(events) < 61000 FROM $seen"), 'what fits has been sealed');
$holder = $node->background_psql('postgres');
$holder->query_safe(q(BEGIN; SELECT revenue_sink.merge('s')));
sql(feed(1_000_000, 1_160_000));
is(sql('SELECT index_state FROM revenue_sink.stat_sink'), 'overflowed', 'there are more events than the memory holds');
my $other = prepare(3, 'past');
$waits = 'batch 3 of writer "w" of job "job", prepared and in doubt';
is(known_of('past'), "unfinished|$other|claimed by $waits\ndeferred|$other|waits for $waits", 'past the memory: a prepared batch');
$waits = 'batch 1 of writer "w" of job "job", prepared and in doubt';
is(known_of('held'), "unfinished|$gid|claimed by $waits\ndeferred|$gid|waits for $waits", 'past the memory: another prepared batch');
is(sql("SELECT count(*) FROM generate_series(1000000, 1159999, 1000) i WHERE NOT EXISTS (SELECT FROM revenue_sink.explain_event('s', 'o', 'e' || i) WHERE fact = 'counted')"),
	'0', 'past the memory: events are counted');
is(sql('SELECT index_state FROM revenue_sink.stat_sink'), 'overflowed', 'there still are');
$holder->query_safe('COMMIT');
$holder->quit;
sql("CALL revenue_sink.commit_prepared('$other')");
is(sql("SELECT fact FROM revenue_sink.explain_event('s', 'o', 'past') LIMIT 1"), 'counted', 'past the memory: the batch commits');

# The standby takes over: now it knows the gid.
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
kill_server($node);
$standby->append_conf('postgresql.conf', q(revenue_sink.dedup_memory = '8MB'));
$standby->promote;
$waits = 'batch 1 of writer "w" of job "job", prepared and in doubt';
is(known_of('held', $standby), "unfinished|$gid|claimed by $waits\ndeferred|$gid|waits for $waits", 'promoted: a prepared batch');
sql("CALL revenue_sink.rollback_prepared('$gid')", $standby);
ok($standby->poll_query_until('postgres', 'SELECT count(*) = 0 FROM revenue_sink.deferred'), 'promoted: the copy is settled');
is(known_of('held', $standby) =~ s/(it came in|when it came in) .*//r, "counted||\nsettled||a copy that was deferred has the answer 'applied'",
	'promoted: the copy counts');
is(known_of('e0', $standby), 'counted||when it came in is not known', 'promoted: an event of a sealed slice');
is(sql("SELECT problem FROM revenue_sink.check('s')", $standby), '', 'promoted: check() finds nothing');

done_testing();
