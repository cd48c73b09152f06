--
-- explain_event() says what a sink knows of one event: whether it is counted, who has
-- claimed it and not finished yet, and which copies wait or are dead letters.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS revenue_sink;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
\set SHOW_CONTEXT never
SELECT revenue_sink.create_sink('s', on_bad_event => 'reject', dedup_window => '1 hour');
SELECT revenue_sink.create_sink('t', 't_fact', 't_in', mode => 'totals');
CREATE FUNCTION pay(id text, at time, amount numeric DEFAULT 1, group_key text DEFAULT '') RETURNS text LANGUAGE sql AS $$
	SELECT revenue_sink.apply('s', 'o', id, '2024-03-01 00:00:00+00'::timestamptz + at::interval, amount, group_key) $$;
SELECT clock_timestamp() AS started \gset
-- Times of the clock and gids differ from run to run: is the time one of this test's,
-- and is the gid that of the last batch?
PREPARE explain(text) AS SELECT fact, since BETWEEN :'started' AND clock_timestamp() AS since, late_by,
	replace(gid, current_setting('test.gid'), 'THE GID') AS gid, detail
FROM revenue_sink.explain_event('s', 'o', $1);
SET test.gid = 'none';

-- Imported totals may contain events that nobody has told the sink of.
SELECT revenue_sink.create_sink('i', 'i_fact', 'i_in');
SELECT revenue_sink.import_totals('i', '{2024-03-01 10:00+00}', '{3}', NULL, '{2}');
SELECT applied FROM revenue_sink.import_seen('i', '{o}', '{one}', '{2024-03-01 10:00+00}', '{1}');
SELECT id, fact, detail FROM unnest('{one,two}'::text[]) AS id, revenue_sink.explain_event('i', 'o', id);
SELECT applied FROM revenue_sink.import_seen('i', '{o}', '{two}', '{2024-03-01 10:00+00}', '{2}');
SELECT id, fact, detail FROM unnest('{one,three}'::text[]) AS id, revenue_sink.explain_event('i', 'o', id);
SELECT revenue_sink.drop_sink('i');

-- Nobody has sent it.
EXECUTE explain('never');

-- It is counted, by a call of its own; of such a call nobody keeps the time.
SELECT pay('call', '10:00');
EXECUTE explain('call');
SELECT revenue_sink.explain_event('s', 'o2', 'call');
-- Of several events the row has the first and the last time.
SELECT applied FROM revenue_sink.apply('s', '{o,o}'::text[], '{two,three}'::text[],
	'{2024-03-01 10:05+00,2024-03-01 10:10+00}'::timestamptz[], '{1,1}'::numeric[]);
EXECUTE explain('two');

-- It is counted by a batch, here in a savepoint of it, and before that by this very
-- transaction.
CALL revenue_sink.open_writer('s', 'job', 'w', epoch => 1);
BEGIN;
SELECT revenue_sink.begin_batch('s', 'job', 'w', 1, 1);
SELECT pay('batch', '10:00');
SAVEPOINT one;
SELECT pay('savepoint', '10:01'), pay('batch', '10:00', 2);
EXECUTE explain('savepoint');
EXECUTE explain('batch');
ROLLBACK TO one;
EXECUTE explain('savepoint');
SELECT pay('savepoint', '10:02');
COMMIT;
EXECUTE explain('batch');
SELECT since = (SELECT last_batch_at FROM revenue_sink.writer WHERE sink = 's' AND writer = 'w') AS at_the_end_of_the_batch
FROM revenue_sink.explain_event('s', 'o', 'batch');

-- A prepared batch has claimed it, and copies wait for that batch.
BEGIN;
SELECT revenue_sink.begin_batch('s', 'job', 'w', 1, 2);
SAVEPOINT one;
SELECT pay('held', '10:00');
RELEASE one;
SELECT pay('other', '10:00');
SELECT revenue_sink.pre_commit('s') AS gid \gset
PREPARE TRANSACTION :'gid';
SET test.gid = :'gid';
SELECT pay('held', '10:00'), pay('held', '10:00', 2, 'web');
EXECUTE explain('held');
SELECT fact, since = prepared_at AS since FROM revenue_sink.explain_event('s', 'o', 'other'), revenue_sink.prepared WHERE prepared.gid = :'gid';
-- The batch is rolled back: the first copy counts as soon as it is settled.
CALL revenue_sink.rollback_prepared(:'gid');
EXECUTE explain('held');
EXECUTE explain('other');
SELECT revenue_sink.merge('s') > 0;
EXECUTE explain('held');
EXECUTE explain('other');
SELECT since = (SELECT max(settled_at) FROM revenue_sink.settled WHERE sink = 's' AND event_id = 'held') AS settled_at
FROM revenue_sink.explain_event('s', 'o', 'held') WHERE fact = 'settled';

-- A prepared transaction that is no batch; and it commits.
BEGIN;
SELECT pay('by hand', '10:00');
PREPARE TRANSACTION 'by hand';
SELECT pay('by hand', '10:00');
EXECUTE explain('by hand');
COMMIT PREPARED 'by hand';
EXECUTE explain('by hand');
SELECT revenue_sink.merge('s') > 0;
EXECUTE explain('by hand');

-- Bad events and conflicts are dead letters; each is there once.
SELECT pay('call', '10:00', 5, 'web'), pay('call', '10:00', 5, 'web'), pay('call', '10:00', 'NaN'), pay('bad', NULL);
EXECUTE explain('call');
EXECUTE explain('bad');
SELECT revenue_sink.apply('s', NULL, 'no order', '2024-03-01 10:00+00', 1), revenue_sink.apply('s', 'o', '', '2024-03-01 10:00+00', 1);
SELECT fact, since IS NOT NULL AS since, detail FROM revenue_sink.explain_event('s', NULL, 'no order');
EXECUTE explain('');
SELECT fact, detail FROM revenue_sink.explain_event('s', 'o', repeat('x', 2000));
SELECT fact, detail FROM revenue_sink.explain_event('s', 'o', NULL);

-- Ids are only data, and settings of the session decide nothing but the time zone.
SET standard_conforming_strings = off;
SET search_path = pg_temp;
SET backslash_quote = on;
CREATE TEMPORARY TABLE sink_state (sink_id int, horizon timestamptz, expired bigint);
SELECT fact FROM revenue_sink.explain_event('s', $$it's$$, $$\'); DROP TABLE x; -- %s %d$$);
RESET search_path;
RESET standard_conforming_strings;
RESET backslash_quote;
SELECT revenue_sink.apply('s', $$it's$$, $$a\b %s$$, '2024-03-01 10:00+00', 1), revenue_sink.apply('s', $$it's$$, $$a\b %s$$, '2024-03-01 10:00+00', 2);
SET timezone = 'Asia/Tokyo';
SELECT fact, detail FROM revenue_sink.explain_event('s', $$it's$$, $$a\b %s$$);
SET timezone = 'UTC';

-- What has expired is unknown, and a copy that comes late says by how much it is late.
SET test.gid = 'none';
CREATE TEMPORARY TABLE done AS SELECT revenue_sink.begin_batch('s', 'job', 'w', 1, 3), pay('later', '12:00');
SELECT revenue_sink.expire('s') > 0;
SELECT horizon FROM revenue_sink.stat_sink WHERE sink = 's';
EXECUTE explain('later');
EXECUTE explain('never');
EXECUTE explain('call');
SELECT pay('call', '10:00'), pay('never', '11:00');
EXECUTE explain('call');
EXECUTE explain('never');
-- The horizon goes on, and with it the time by which the copy is late.
CREATE TEMPORARY TABLE again AS SELECT revenue_sink.begin_batch('s', 'job', 'w', 1, 4), pay('last', '12:30');
SELECT revenue_sink.expire('s') >= 0;
SELECT fact, late_by FROM revenue_sink.explain_event('s', 'o', 'never');

-- Somebody decides on dead letters: the event that was counted stays so, although it is
-- behind the horizon, and the decisions outlive the dead letters.
CREATE VIEW decided AS SELECT event_id, letter FROM revenue_sink.dead_letter WHERE sink = 's' AND reason = 'late';
SELECT revenue_sink.resolve('s', 'count', ARRAY(SELECT letter FROM decided WHERE event_id = 'never'), 'paid indeed'),
	revenue_sink.resolve('s', 'discard', ARRAY(SELECT letter FROM decided WHERE event_id = 'call'));
PREPARE decided(text) AS SELECT fact, since BETWEEN :'started' AND clock_timestamp() AS since, late_by,
	replace(regexp_replace(detail, ' at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?\+00', ' at THE TIME'), current_user, 'THE USER') AS detail
FROM revenue_sink.explain_event('s', 'o', $1);
EXECUTE decided('never');
EXECUTE decided('call');
SELECT revenue_sink.expire('s') >= 0;
EXECUTE decided('never');
DELETE FROM revenue_sink.dead_letter_event WHERE letter IN (SELECT letter FROM revenue_sink.dead_letter WHERE sink = 's');
EXECUTE decided('never');
EXECUTE decided('call');
DROP VIEW decided;

-- It is late for a bucket that has been removed, which the policy 'apply' doesn't change.
SELECT revenue_sink.alter_sink('s', late_policy => 'apply', retain => '1 hour');
SELECT revenue_sink.expire('s') >= 0;
SELECT retained_from FROM revenue_sink.stat_sink WHERE sink = 's';
SELECT pay('removed', '11:20'), pay('before', '11:30');
EXECUTE explain('removed');
EXECUTE explain('before');

-- It is only looked at: a read-only transaction may ask.
BEGIN READ ONLY;
EXECUTE explain('last');
COMMIT;

-- Errors
SELECT revenue_sink.explain_event('nothing', 'o', 'e');
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.explain_event(NULL, 'o', 'e');
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.explain_event('t', 'o', 'e');
\echo SQLSTATE :SQLSTATE

-- SELECT on the fact view suffices; whoever watches statistics sees no event.
CREATE ROLE regress_rsink_support;
CREATE ROLE regress_rsink_watcher IN ROLE pg_monitor;
SET ROLE regress_rsink_support;
SELECT revenue_sink.explain_event('s', 'o', 'last');
\echo SQLSTATE :SQLSTATE
SET ROLE regress_rsink_watcher;
SELECT revenue_sink.explain_event('s', 'o', 'last');
\echo SQLSTATE :SQLSTATE
RESET ROLE;
GRANT SELECT ON fact_revenue_1m TO regress_rsink_support;
SET ROLE regress_rsink_support;
SELECT fact, late_by, detail FROM revenue_sink.explain_event('s', 'o', 'last');
SELECT fact, late_by, detail FROM revenue_sink.explain_event('s', 'o', 'removed');
RESET ROLE;
REVOKE SELECT ON fact_revenue_1m FROM regress_rsink_support;
DROP ROLE regress_rsink_support, regress_rsink_watcher;
SELECT * FROM revenue_sink.check('s');
SELECT revenue_sink.drop_sink('s'), revenue_sink.drop_sink('t');
DROP FUNCTION pay;
DROP TABLE done, again, sink_state;
RESET test.gid;
DEALLOCATE ALL;
