# A subscriber's copy. Replication brings the rows of a sink one by one, merges
# and expiry of the publisher included. The worker and callers leave the copy
# alone, so the subscription never fails; the copy reads like the sink, and
# becomes a sink as soon as the subscription is dropped. This is the way to move
# to another server.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

my $publisher = new_node('publisher', streaming => 'logical', conf => q(
revenue_sink.worker_interval = '20ms'
));
my @copies;

sub sql
{
	my ($node, $sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# The result of a query, or the error that it ends with.
sub look
{
	my ($node, $sql) = @_;

	return join '', ($node->psql('postgres', $sql))[ 1, 2 ];
}

# A server with the publisher's schema and empty tables.
sub new_copy
{
	my ($name, %params) = @_;
	my $node   = new_node($name, conf => q(
revenue_sink.worker_interval = '100ms'
wal_retrieve_retry_interval = '100ms'
), start => 0);
	my $schema = PostgreSQL::Test::Utils::tempdir() . '/schema.sql';

	$node->append_conf('postgresql.conf', q(shared_preload_libraries = '')) if $params{bare};
	$node->start;
	system_or_bail('pg_dump', '-s', '-d', $publisher->connstr('postgres'), '-f', $schema,
		'--no-publications', '--no-subscriptions');
	system_or_bail('psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-f', $schema);
	push @copies, $node;
	return $node;
}

sub subscribe
{
	my ($node, $name, $options) = @_;
	my $connstr = $publisher->connstr . ' dbname=postgres';

	sql($node, qq(
SET client_min_messages = warning;
CREATE SUBSCRIPTION $name CONNECTION '$connstr' PUBLICATION every WITH (copy_data = true$options)));
	return;
}

# Wait until all tables are synchronized, and all committed rows have arrived.
sub catch_up
{
	my ($node, $name) = @_;

	$node->wait_for_subscription_sync($publisher, $name);
	return;
}

sub problem
{
	my ($node, $sink) = @_;

	return sql($node, "SELECT problem FROM revenue_sink.sink WHERE sink = '$sink'");
}

sub wait_until_whole
{
	my ($node, $name) = @_;

	$node->poll_query_until('postgres', qq(
SELECT bool_and(problem = 'the sink is a copy, written by subscription "$name"; the copy is whole') FROM revenue_sink.sink))
	  or die "the copy of $name is never whole";
	return;
}

# Wait until the worker has looked at its sinks so often.
sub let_work
{
	my ($node, $rounds) = @_;
	my $last = '';

	wait_until('the worker has had its rounds', sub {
		my $now = sql($node, q(
SELECT max(state_change) FROM pg_stat_activity WHERE backend_type = 'revenue_sink worker'));

		$rounds-- if $now ne '' && $now ne $last;
		$last = $now;
		return $rounds < 0;
	});
	return;
}

# What readers see of both sinks
sub facts
{
	my ($node) = @_;

	return look($node, q(
SELECT 's', minute, group_key, revenue, events FROM fact_revenue_1m
UNION ALL SELECT 't', minute, group_key, revenue, events FROM totals_fact
ORDER BY 1, 2, 3;
SELECT * FROM revenue_sink.offsets('s') ORDER BY 1, 2;
SELECT * FROM revenue_sink.offsets('t') ORDER BY 1, 2));
}

# Errors of the apply workers and of those that copy tables
sub apply_errors
{
	my ($node) = @_;
	my $log = slurp_file($node->logfile);

	return join '', sql($node, 'SELECT * FROM pg_stat_subscription_stats WHERE apply_error_count + sync_error_count > 0'),
	  $log =~ /^.*ERROR: .*\n(?=.*CONTEXT:  (?:processing remote data|COPY ))/mg;
}

# A copy that has all tables except one, whose rows wait for a lock of a prepared
# transaction.
sub copy_lacking
{
	my ($name, $table, $gid) = @_;
	my $node = new_copy($name);

	sql($node, qq(
BEGIN;
LOCK TABLE revenue_sink.$table IN SHARE MODE;
PREPARE TRANSACTION '$gid'));
	subscribe($node, 'sub', '');
	$node->poll_query_until('postgres', q(
SELECT count(*) FILTER (WHERE srsubstate <> 'r') = 1 AND count(*) > 10 FROM pg_subscription_rel))
	  or die 'the other tables are never synchronized';
	return $node;
}

# ----------------------------------------------------------------------
# The stream: event n comes n seconds after the first one, and its amount is n
# cents. A batch has a hundred events, of which the writer sends some twice.

my $number = 0;
my $next   = 0;

# Send one batch with the events from..to; returns the six counts, or nothing if
# the batch was there already.
sub batch
{
	my ($node, $epoch, $from, $to) = @_;

	$number++;
	return sql($node, qq(
\\set QUIET on
BEGIN;
SELECT revenue_sink.begin_batch('s', 'job', 'w', $epoch, $number) AS begun \\gset
\\if :begun
SELECT a.* FROM (SELECT
	array_agg('order-' || n / 3 ORDER BY n) AS orders, array_agg('evt-' || n ORDER BY n) AS events,
	array_agg('2024-03-01 10:00+00'::timestamptz + n * interval '1 second' ORDER BY n) AS times,
	array_agg(n * 0.01 ORDER BY n) AS amounts, array_agg('shop-' || n % 3 ORDER BY n) AS groups
	FROM generate_series($from, $to - 1) n) x, revenue_sink.apply('s', orders, events, times, amounts, groups) a;
SELECT revenue_sink.store_offsets('s', 'orders', '{0}', '{$to}') \\gset
\\endif
COMMIT;
BEGIN;
SELECT revenue_sink.upsert('t', '{2024-03-01 10:00+00}', '{$to}', '{shop}', $to) \\gset
SELECT revenue_sink.store_offsets('t', 'orders', '{0}', '{$to}') \\gset
COMMIT));
}

# Send so many more batches, each with the last earlier events once more.
sub stream
{
	my ($node, $epoch, $batches) = @_;

	foreach (1 .. $batches)
	{
		my $from = $next > 20 ? $next - 20 : 0;

		is(batch($node, $epoch, $from, $next + 100), '100|' . ($next - $from) . '|0|0|0|0', "batch at offset $next");
		$next += 100;
	}
	return;
}

# The totals of the first events of the stream.
sub truth
{
	my ($events) = @_;
	my %sum;

	foreach my $n (0 .. $events - 1)
	{
		my $sum = $sum{ 1709287200 + 60 * int($n / 60) . '|shop-' . $n % 3 } //= [ 0, 0 ];
		$sum->[0] += $n;
		$sum->[1]++;
	}
	return join("\n", map { "$_|$sum{$_}[0]|$sum{$_}[1]" } sort keys %sum);
}

create_sink($publisher, 'postgres', more => q(dedup_window => '10 minutes'));
create_sink($publisher, 'postgres', sink => 't', more => q('totals_fact', 'totals_events', mode => 'totals'));
sql($publisher, 'CREATE PUBLICATION every FOR ALL TABLES');
my $epoch = sql($publisher, q(CALL revenue_sink.open_writer('s', 'job', 'w')));
stream($publisher, $epoch, 10);

# Prepare a transaction with an event of which a second copy is deferred. (A
# subscription can't be made meanwhile: it waits, too.)
sub hold
{
	my ($name) = @_;
	my $event = "'s', '$name', 'e-1', '2024-03-01 10:36+00', 1, 'held'";

	return sql($publisher, qq(
SET client_min_messages = error;
BEGIN;
SELECT revenue_sink.apply($event) \\gset
PREPARE TRANSACTION '$name';
SELECT revenue_sink.apply($event)));
}

is(sql($publisher, q(SELECT revenue_sink.apply('s', 'order-333', 'evt-999', '2024-03-01 10:20+00', 1))), 'conflict',
	'an event becomes a dead letter');

# ----------------------------------------------------------------------
# A copy is made while the stream goes on.

my $copy = new_copy('copy');
subscribe($copy, 'sub', '');
stream($publisher, $epoch, 1);
catch_up($copy, 'sub');
is(hold('first'), 'deferred', 'another event is deferred');
stream($publisher, $epoch, 1);
catch_up($copy, 'sub');
wait_until_whole($copy, 'sub');
like(slurp_file($copy->logfile), qr/sink "$_" is a whole copy/, "the worker says so of sink $_") foreach qw(s t);
is(facts($copy), facts($publisher), 'the copy reads like the sink');

# The worker looks more often than a sink at rest skips rounds.
let_work($copy, 15);
is(sql($copy, q(
SELECT order_id, event_id FROM revenue_sink.deferred;
SELECT count(*) FROM fact_revenue_1m WHERE group_key = 'held')), "first|e-1\n0",
	'a deferred event is not settled in the copy');

my $copied = qr/ERROR:  55000: sink "[st]" cannot be used in this database\nDETAIL:  The sink is a copy, written by subscription "sub"; the copy is whole\.\nHINT:  .*DROP SUBSCRIPTION/;
foreach my $call (
	q(SELECT revenue_sink.apply('s', 'o', 'e', '2024-03-01 10:20+00', 1)),
	q(SELECT revenue_sink.apply('s', ARRAY['o'], '{e}', '{2024-03-01 10:20+00}', '{1}')),
	q(SELECT revenue_sink.apply('s', '[]'::jsonb)),
	q(SELECT revenue_sink.apply_each('s', ARRAY['o'], '{e}', '{2024-03-01 10:20+00}', '{1}')),
	q(INSERT INTO order_events VALUES ('o', 'e', '2024-03-01 10:20+00', 1)),
	q(INSERT INTO totals_events VALUES ('2024-03-01 10:20+00', 'g', 1, 1)),
	"COPY order_events FROM STDIN (FORMAT csv);\no,e,2024-03-01 10:20+00,1,\n\\.",
	q(SELECT revenue_sink.upsert('t', '{2024-03-01 10:20+00}', '{1}')),
	q(SELECT revenue_sink.store_offsets('s', 'orders', '{0}', '{1}')),
	qq(SELECT revenue_sink.begin_batch('s', 'job', 'w', $epoch, 100)),
	q(SELECT revenue_sink.pre_commit('s')),
	q(CALL revenue_sink.open_writer('s', 'job', 'w')),
	q(CALL revenue_sink.recover('s', 'job', NULL)),
	q(CALL revenue_sink.commit_checkpoint('s', 'job', 1)),
	q(SELECT revenue_sink.merge('s')),
	q(SELECT revenue_sink.merge('t')),
	q(SELECT revenue_sink.expire('s')),
	q(SELECT * FROM revenue_sink.check('s')),
	q(SELECT revenue_sink.alter_sink('s', '2 days')),
	q(SELECT revenue_sink.adopt_sink('s')))
{
	like(error_of($copy, 'postgres', $call), $copied, 'refused: ' . ($call =~ s/\n.*//sr));
}
my $looks = q(
SELECT revenue_sink.seen('s', 'order-333', 'evt-999'), revenue_sink.seen('s', 'order-333', 'evt-998'),
	revenue_sink.seen('s', 'first', 'e-1');
SELECT sink, seen_events, watermark AT TIME ZONE 'UTC' FROM revenue_sink.stat_sink ORDER BY sink;
SELECT sink, reason, order_id FROM revenue_sink.dead_letter;
SELECT sink, job, writer, epoch, last_number FROM revenue_sink.writer;
SELECT sink, owner, mode, fact, ingest, bucket, dedup_window, max_future, late_policy, on_bad_event
FROM revenue_sink.sink ORDER BY sink);
is(look($copy, $looks), look($publisher, $looks), 'the other views read alike, too');

# The prepared transaction is committed, and the deferred event is settled where
# the sink is at home; then events expire, the ledger is folded, and settings
# change.
sql($publisher, "COMMIT PREPARED 'first'");
$publisher->poll_query_until('postgres', 'SELECT count(*) = 0 FROM revenue_sink.deferred') or die 'not settled';
is(sql($publisher, q(SELECT revenue, events FROM fact_revenue_1m WHERE group_key = 'held')), '1|1',
	'the deferred event is settled as a duplicate');
stream($publisher, $epoch, 8);
$publisher->poll_query_until('postgres', q(
SELECT (SELECT expired > 0 FROM revenue_sink.sink_state WHERE sink_id = 1)
	AND (SELECT count(*) < 5 FROM revenue_sink.ledger WHERE sink_id = 1)
	AND (SELECT sum(unmerged_deltas) = 0 FROM revenue_sink.stat_sink)))
  or die 'nothing expires, or nothing is folded';
sql($publisher, q(SELECT revenue_sink.alter_sink('s', dedup_window => '11 minutes')));
catch_up($copy, 'sub');
is(facts($copy), facts($publisher), 'the facts of the copy have followed');
is(look($copy, $looks), look($publisher, $looks), 'the other views of the copy have followed');
is(problem($copy, 's'), 'the sink is a copy, written by subscription "sub"; the copy is whole', 'the copy is still whole');

# ----------------------------------------------------------------------
# The move. A batch was prepared and committed; a deferred event waits for a
# transaction that stays behind.

my $gid = sql($publisher, q(
\set QUIET on
CALL revenue_sink.open_writer('s', 'job', 'w2') \gset
BEGIN;
SELECT revenue_sink.begin_batch('s', 'job', 'w2', :epoch, 1) \gset
SELECT revenue_sink.apply('s', 'prepared', 'e-1', '2024-03-01 10:36+00', 5, 'prepared') \gset
SELECT revenue_sink.pre_commit('s') AS gid \gset
PREPARE TRANSACTION :'gid';
CALL revenue_sink.commit_prepared(:'gid') \gset
\echo :gid));
is(hold('second'), 'deferred', 'an event is deferred again');
catch_up($copy, 'sub');
is(sql($copy, "SELECT revenue_sink.outcome('$gid')"), 'committed', 'outcome() in the copy');
is(apply_errors($copy), '', 'the subscription has never failed');

# In one session, the sink is a copy before the subscription is dropped, and a
# sink after.
is(sql($copy, q(
SELECT problem FROM revenue_sink.sink WHERE sink = 's';
SET client_min_messages = warning;
DROP SUBSCRIPTION sub;
SELECT problem IS NULL FROM revenue_sink.sink WHERE sink = 's';
SELECT revenue_sink.apply('s', 'order-666', 'evt-1999', '2024-03-01 10:33:19+00', 19.99, 'shop-1');
SELECT revenue_sink.apply('s', 'prepared', 'e-1', '2024-03-01 10:36+00', 5, 'prepared'))),
	qq(the sink is a copy, written by subscription "sub"; the copy is whole\nt\nduplicate\nduplicate),
	'the copy is a sink at once, and knows the earlier events');
is(sql($copy, "SELECT revenue_sink.outcome('$gid'); CALL revenue_sink.commit_prepared('$gid')"), "committed\ncommitted",
	'a committed batch stays committed');
is(sql($copy, "BEGIN; SELECT revenue_sink.begin_batch('s', 'job', 'w', $epoch, $number); COMMIT"), 'f',
	'the last batch is known');

# The stream goes on at the new server, from its offsets and from earlier ones.
my $moved = $next;
is(sql($copy, q(SELECT next_offset FROM revenue_sink.offsets('s'))), $next, 'the offset to continue from');
my $opened = sql($copy, q(CALL revenue_sink.open_writer('s', 'job', 'w')));
cmp_ok($opened, '>', $epoch, 'the new epoch is higher');
like(error_of($copy, 'postgres', "SELECT revenue_sink.begin_batch('s', 'job', 'w', $epoch, $number + 1)"), qr/ERROR:  RS001:/,
	'the earlier epoch is fenced off');
is(batch($copy, $opened, $next - 300, $next), '0|300|0|0|0|0', 'a replay counts nothing');
stream($copy, $opened, 5);
$copy->poll_query_until('postgres', 'SELECT count(*) = 0 FROM revenue_sink.deferred') or die 'not settled';
my $others = "\n1709289360|held|200|2\n1709289360|prepared|500|1";
is(differences($copy, 'postgres', truth => truth($next) . $others), '', 'the totals are the truth');
is(sql($copy, qq(
SELECT problem FROM revenue_sink.check('t');
SELECT revenue FROM totals_fact;
SELECT revenue_sink.upsert('t', '{2024-03-01 10:00+00}', '{1}', '{shop}', $next - 1);
SELECT revenue FROM totals_fact)), "$next\n1\n$next", 'the totals of the other sink, too');
is(sql($copy, q(
SELECT revenue_sink.create_sink('u', 'u_fact', 'u_events');
SELECT revenue_sink.apply('u', 'o', 'e', '2024-03-01 10:00+00', 1);
SELECT problem FROM revenue_sink.check('u'))), "\napplied", 'another sink is made beside these');
is(apply_errors($copy), '', 'there was no error to the end');
$copy->stop;

# The publisher is not affected.
$next = $moved;
sql($publisher, "ROLLBACK PREPARED 'second'");
is(differences($publisher, 'postgres', truth => truth($next) . $others), '', 'the publisher is unchanged');

# ----------------------------------------------------------------------
# The subscription is dropped in the middle of the initial synchronization: the
# copy of one table waits for a lock.

my $partial = copy_lacking('partial', 'epoch', 'lock');
let_work($partial, 15);
is(problem($partial, 's'), 'the sink is a copy, written by subscription "sub"', 'a copy that is not whole');
sql($partial, 'SET client_min_messages = warning; DROP SUBSCRIPTION sub');
my $asleep = 'the sink has not arrived whole: the rows of table "revenue_sink.epoch" have not arrived';
is(problem($partial, $_), $asleep, "what sink $_ lacks") foreach qw(s t);
sql($partial, "ROLLBACK PREPARED 'lock'");
let_work($partial, 15);
is(problem($partial, 's'), $asleep, 'the sink stays asleep');
like(error_of($partial, 'postgres', q(SELECT revenue_sink.apply('s', 'o', 'e', '2024-03-01 10:20+00', 1))),
	qr/ERROR:  55000: sink "s" cannot be used in this database\nDETAIL:  The sink has not arrived whole: .*epoch.*\nHINT:  .*adopt_sink/,
	'the sink refuses calls');
isnt(sql($partial, 'SELECT count(*) FROM fact_revenue_1m'), '0', 'readers may look at what there is');
$partial->stop;

# The subscription is dropped as before, but the late table has already come, from
# a later commit than the others: if the sink were taken in like this, its offsets
# would skip events.
my $torn = copy_lacking('torn', 'committed_offset', 'late');
sql($torn, q(
BEGIN;
LOCK TABLE revenue_sink.seen_1, revenue_sink.ledger IN SHARE MODE;
PREPARE TRANSACTION 'behind'));
my $before = $next;
stream($publisher, $epoch, 1);
sql($torn, "ROLLBACK PREPARED 'late'");
$torn->poll_query_until('postgres', q(
SELECT srsubstate = 'f' FROM pg_subscription_rel WHERE srrelid = 'revenue_sink.committed_offset'::regclass))
  or die 'the late table is never copied';
let_work($torn, 5);
sql($torn, q(
SET client_min_messages = warning;
DROP SUBSCRIPTION sub;
ROLLBACK PREPARED 'behind'));
let_work($torn, 15);
isnt(problem($torn, 's'), '', 'a sink of which one table is ahead of the others stays asleep')
  or diag("offsets $next, events $before");
$torn->stop;

# ----------------------------------------------------------------------
# The subscription sends values in their binary form: the names of views and
# tables come as numbers, which are valid only on the publisher.

my $binary = new_copy('binary');
subscribe($binary, 'sub', ', binary = true');
stream($publisher, $epoch, 1);
catch_up($binary, 'sub');
wait_until_whole($binary, 'sub');
sql($publisher, q(SELECT revenue_sink.alter_sink('s', dedup_window => '12 minutes')));
stream($publisher, $epoch, 1);
catch_up($binary, 'sub');
is(facts($binary), facts($publisher), 'binary: the copy reads like the sink');
is(look($binary, $looks), look($publisher, $looks), 'binary: the other views read alike, too');
is(look($binary, q(SELECT problem FROM revenue_sink.sink WHERE sink = 's')), 'the sink is a copy, written by subscription "sub"; the copy is whole', 'binary: it says that it is a copy');
sql($binary, 'SET client_min_messages = warning; DROP SUBSCRIPTION sub');
is(look($binary, 'SELECT problem FROM revenue_sink.sink ORDER BY sink'), "\n", 'binary: it becomes a sink');
is(error_of($binary, 'postgres', q(
INSERT INTO order_events VALUES ('order-666', 'evt-1999', '2024-03-01 10:33:19+00', 19.99, 'shop-1'))), '',
	'binary: it can be written to');
is(error_of($binary, 'postgres', q(
DO $$ BEGIN ASSERT revenue_sink.apply('s', 'order-666', 'evt-1999', '2024-03-01 10:33:19+00', 19.99, 'shop-1') = 'duplicate'; END $$;
DO $$ BEGIN ASSERT (SELECT count(*) = 0 FROM revenue_sink.check('s')); END $$;
DO $$ BEGIN ASSERT (SELECT count(*) = 0 FROM revenue_sink.check('t')); END $$)), '', 'binary: all is well with it');
is(apply_errors($binary), '', 'binary: the subscription has never failed');
$binary->stop;

# ----------------------------------------------------------------------
# A copy that is only read needs no preloaded library; later it may become a sink.

my $bare = new_copy('bare', bare => 1);
subscribe($bare, 'sub', '');
stream($publisher, $epoch, 1);
catch_up($bare, 'sub');
is(facts($bare), facts($publisher), 'not preloaded: the copy reads like the sink');
is(look($bare, $looks), look($publisher, $looks), 'not preloaded: the other views read alike, too');
is(problem($bare, 's'), 'the sink is a copy, written by subscription "sub"', 'not preloaded: it says that it is a copy');
like(error_of($bare, 'postgres', q(SELECT revenue_sink.apply('s', 'o', 'e', '2024-03-01 10:20+00', 1))),
	qr/HINT:.*shared_preload_libraries = 'revenue_sink'/, 'not preloaded: calls are refused');
stream($publisher, $epoch, 1);
catch_up($bare, 'sub');
is(apply_errors($bare), '', 'not preloaded: the subscription has never failed');

# With the library preloaded, the copy becomes whole.
$bare->append_conf('postgresql.conf', q(shared_preload_libraries = 'revenue_sink'));
$bare->restart;
wait_until_whole($bare, 'sub');
stream($publisher, $epoch, 1);
catch_up($bare, 'sub');

# The subscription is dropped without the library: the sink is at home after a
# restart with the library.
$bare->append_conf('postgresql.conf', q(shared_preload_libraries = ''));
$bare->restart;
sql($bare, 'SET client_min_messages = warning; DROP SUBSCRIPTION sub');
is(sql($bare, 'SELECT problem FROM revenue_sink.sink'), "\n", 'dropped without the library');
$bare->append_conf('postgresql.conf', q(shared_preload_libraries = 'revenue_sink'));
$bare->restart;
$opened = sql($bare, q(CALL revenue_sink.open_writer('s', 'job', 'w')));
is(batch($bare, $opened, $next - 300, $next), '0|300|0|0|0|0', 'preloaded: a replay counts nothing');
is(differences($bare, 'postgres', truth => truth($next) . $others), '', 'preloaded: the totals are the truth');
$bare->stop;

# If no worker has ever seen a copy whole, only its owner can say that it is.
my $late = new_copy('late', bare => 1);
subscribe($late, 'sub', '');
catch_up($late, 'sub');
stream($publisher, $epoch, 2);
catch_up($late, 'sub');
sql($late, 'SET client_min_messages = warning; DROP SUBSCRIPTION sub');
$late->append_conf('postgresql.conf', q(shared_preload_libraries = 'revenue_sink'));
$late->restart;
like(error_of($late, 'postgres', q(SELECT revenue_sink.apply('s', 'o', 'e', '2024-03-01 10:20+00', 1))),
	qr/ERROR:  55000: .*\nDETAIL:  The sink has not arrived whole: the sink came by a subscription .*\nHINT:  .*adopt_sink/,
	'never seen whole: calls are refused');
like(error_of($late, 'postgres', q(SELECT revenue_sink.adopt_sink('s'))), qr/WARNING: .*may not be whole\nDETAIL:  The sink came by a subscription/,
	'never seen whole: adopt_sink() takes it in');
is(sql($late, q(SELECT problem FROM revenue_sink.sink WHERE sink = 's')), '', 'never seen whole: it is a sink');
$opened = sql($late, q(CALL revenue_sink.open_writer('s', 'job', 'w')));
is(sql($late, q(SELECT revenue_sink.adopt_sink('t'))), '', 'never seen whole: adopt_sink() takes in the other sink, too');
is(batch($late, $opened, $next - 300, $next), '0|300|0|0|0|0', 'never seen whole: a replay counts nothing');
is(differences($late, 'postgres', truth => truth($next) . $others), '', 'never seen whole: the totals are the truth');

# ----------------------------------------------------------------------
# A sink's own server becomes a subscriber: its tables are emptied, and filled
# anew. The copy isn't whole, and no sink, before all tables are.

is(sql($late, q(
DO $$
DECLARE
	name text;
BEGIN
	FOR name IN SELECT oid::regclass FROM pg_class
		WHERE relnamespace = 'revenue_sink'::regnamespace AND relkind = 'r'
	LOOP
		EXECUTE 'TRUNCATE ' || name;
	END LOOP;
END $$;
BEGIN;
LOCK TABLE revenue_sink.seen_1 IN SHARE MODE;
PREPARE TRANSACTION 'lock')), '', 'again: the tables are emptied');
subscribe($late, 'again', '');
$late->poll_query_until('postgres', q(
SELECT count(*) FILTER (WHERE srsubstate <> 'r') = 1 AND count(*) > 10 FROM pg_subscription_rel))
  or die 'the other tables are never synchronized';
let_work($late, 15);
is(problem($late, 's'), 'the sink is a copy, written by subscription "again"', 'again: a copy that is not whole');
sql($late, q(
SET client_min_messages = warning;
DROP SUBSCRIPTION again;
ROLLBACK PREPARED 'lock'));
like(error_of($late, 'postgres', q(SELECT revenue_sink.apply('s', 'order-666', 'evt-1999', '2024-03-01 10:33:19+00', 19.99, 'shop-1'))),
	qr/ERROR:  55000: .*\nDETAIL:  The sink has not arrived whole: .*seen_1/, 'again: it is no sink without its table');

done_testing();
