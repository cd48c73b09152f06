--
-- Every refusal: its text, its SQLSTATE, and that the call leaves nothing behind.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS revenue_sink;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
\set SHOW_CONTEXT never
SELECT revenue_sink.create_sink('s', dedup_window => '1000 days');
SELECT revenue_sink.create_sink('t', 'totals_fact', 'totals', mode => 'totals');
SELECT revenue_sink.create_sink('r', 'rejecting_fact', 'rejecting', dedup_window => '1000 days', on_bad_event => 'reject');

--
-- The sink
--
SELECT revenue_sink.apply(NULL, 'o', 'e', '2024-03-01 10:01:00+00', 1);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.apply('nobody', 'o', 'e', '2024-03-01 10:01:00+00', 1);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.apply('nobody', '{}'::jsonb);
SELECT revenue_sink.apply('nobody', '{}'::text[], '{}'::text[], '{}'::timestamptz[], '{}'::numeric[]);
SELECT revenue_sink.apply('t', 'o', 'e', '2024-03-01 10:01:00+00', 1);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.apply('t', '{}'::jsonb);
SELECT revenue_sink.apply('t', '{}'::text[], '{}'::text[], '{}'::timestamptz[], '{}'::numeric[]);
SELECT revenue_sink.upsert('s', '{}', '{}');
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.upsert('nobody', '{}', '{}');
SELECT revenue_sink.upsert(NULL, '{}', '{}');
SELECT revenue_sink.seen('t', 'o', 'e');
SELECT revenue_sink.seen('nobody', 'o', 'e');
SELECT revenue_sink.seen(NULL, 'o', 'e');
SELECT revenue_sink.merge('nobody');
SELECT revenue_sink.expire('nobody');
SELECT revenue_sink.merge(NULL);
SELECT revenue_sink.expire(NULL);
SELECT * FROM revenue_sink.check('nobody');
SELECT * FROM revenue_sink.check(NULL);
SELECT * FROM revenue_sink.offsets('nobody');
SELECT * FROM revenue_sink.offsets(NULL);
SELECT revenue_sink.store_offsets('nobody', 's', '{0}', '{1}');
SELECT revenue_sink.begin_batch('nobody', 'j', 'w', 1, 1);
CALL revenue_sink.open_writer('nobody', 'j', 'w');
CALL revenue_sink.recover('nobody', 'j', NULL);

--
-- Bad events through the function for one event: column, value and hint of the
-- error
--
SELECT revenue_sink.apply('s', NULL, 'e', '2024-03-01 10:01:00+00', 1);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.apply('s', '', 'e', '2024-03-01 10:01:00+00', 1);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.apply('s', 'x' || repeat('o', 1024), 'e', '2024-03-01 10:01:00+00', 1);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.apply('s', 'o', NULL, '2024-03-01 10:01:00+00', 1);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.apply('s', 'o', '', '2024-03-01 10:01:00+00', 1);
SELECT revenue_sink.apply('s', 'o', 'x' || repeat('e', 1024), '2024-03-01 10:01:00+00', 1);
SELECT revenue_sink.apply('s', 'o', 'e', NULL, 1);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.apply('s', 'o', 'e', 'infinity', 1);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.apply('s', 'o', 'e', '-infinity', 1);
SELECT revenue_sink.apply('s', 'o', 'e', '2999-01-01 00:00:00+00', 1);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.apply('s', 'o', 'e', '2024-03-01 10:01:00+00', NULL::numeric);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.apply('s', 'o', 'e', '2024-03-01 10:01:00+00', 'NaN'::numeric);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.apply('s', 'o', 'e', '2024-03-01 10:01:00+00', 'Infinity'::numeric);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.apply('s', 'o', 'e', '2024-03-01 10:01:00+00', '-Infinity'::numeric);
-- The sum of two of the largest numerics would be a number that nobody can read.
\set VERBOSITY sqlstate
SELECT revenue_sink.apply('s', 'o', 'e', '2024-03-01 10:01:00+00', '1e100'::numeric);
SELECT revenue_sink.apply('s', 'o', 'e', '2024-03-01 10:01:00+00', '-9e131071'::numeric);
\set VERBOSITY default
SELECT substr(:'LAST_ERROR_MESSAGE', 1, 100) AS message;
BEGIN;
SELECT revenue_sink.apply('s', 'o', 'e', '2024-03-01 10:01:00+00', '1e99'::numeric);
ROLLBACK;
SELECT revenue_sink.apply('s', 'o', 'e', '2024-03-01 10:01:00+00', 1, repeat('g', 1025));
\echo SQLSTATE :SQLSTATE
-- These events lie on both sides of max_future, which is five minutes.
SELECT revenue_sink.apply('s', 'o', 'soon', now() + interval '4 minutes', 1);
DO $$
BEGIN
	PERFORM revenue_sink.apply('s', 'o', 'later', now() + interval '6 minutes', 1);
EXCEPTION WHEN datetime_field_overflow THEN
	RAISE NOTICE '%: %', SQLSTATE, SQLERRM;
END $$;

-- The event's bucket would start before the first timestamp.
SELECT revenue_sink.create_sink('weeks', 'weeks', 'week_events', bucket => '7 days');
SELECT revenue_sink.apply('weeks', 'o', 'e', '4714-11-24 00:00:00+00 BC', 1);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.drop_sink('weeks');

--
-- A bad event in a call: the error names its position, and no event of the call
-- is applied, not even one of an earlier slice.
--
SELECT revenue_sink.apply('s', ARRAY['a', 'b', NULL], ARRAY['1', '1', '1'],
	ARRAY(SELECT '2024-03-01 10:01:00+00'::timestamptz FROM generate_series(1, 3)), ARRAY[1, 2, 3]);
SELECT revenue_sink.apply('s', ARRAY['a', 'b', 'c'], ARRAY['1', '', '1'],
	ARRAY(SELECT '2024-03-01 10:01:00+00'::timestamptz FROM generate_series(1, 3)), ARRAY[1, 2, NULL]);
SELECT revenue_sink.apply('s', ARRAY(SELECT i::text FROM generate_series(1, 40000) AS i), ARRAY(SELECT '1' FROM generate_series(1, 40000)),
	ARRAY(SELECT '2024-03-01 10:01:00+00'::timestamptz FROM generate_series(1, 40000)),
	ARRAY(SELECT CASE WHEN i = 39999 THEN 'NaN'::numeric ELSE 1 END FROM generate_series(1, 40000) AS i));
SELECT revenue_sink.seen('s', 'a', '1'), revenue_sink.seen('s', '1', '1');
-- The array arguments themselves are bad.
SELECT revenue_sink.apply('s', NULL::text[], ARRAY['1'], ARRAY['2024-03-01 10:01:00+00']::timestamptz[], ARRAY[1.0]);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.apply('s', ARRAY['a'], NULL::text[], ARRAY['2024-03-01 10:01:00+00']::timestamptz[], ARRAY[1.0]);
SELECT revenue_sink.apply('s', ARRAY['a'], ARRAY['1'], NULL::timestamptz[], ARRAY[1.0]);
SELECT revenue_sink.apply('s', ARRAY['a'], ARRAY['1'], ARRAY['2024-03-01 10:01:00+00']::timestamptz[], NULL::numeric[]);
SELECT revenue_sink.apply('s', ARRAY['a', 'b'], ARRAY['1'], ARRAY['2024-03-01 10:01:00+00']::timestamptz[], ARRAY[1.0]);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.apply('s', ARRAY['a'], ARRAY['1'], '{}'::timestamptz[], ARRAY[1.0]);
SELECT revenue_sink.apply('s', ARRAY['a'], ARRAY['1'], ARRAY['2024-03-01 10:01:00+00']::timestamptz[], ARRAY[1.0, 2.0, 3.0]);
SELECT revenue_sink.apply('s', ARRAY['a'], ARRAY['1'], ARRAY['2024-03-01 10:01:00+00']::timestamptz[], ARRAY[1.0], '{}');
SELECT revenue_sink.apply('s', ARRAY[['a'], ['b']], ARRAY['1', '2'],
	ARRAY(SELECT '2024-03-01 10:01:00+00'::timestamptz FROM generate_series(1, 2)), ARRAY[1, 2]);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.apply('s', ARRAY['a', 'b'], ARRAY['1', '2'],
	ARRAY(SELECT '2024-03-01 10:01:00+00'::timestamptz FROM generate_series(1, 2)), ARRAY[[[1], [2]]]);
SELECT revenue_sink.apply('s', ARRAY['a'], ARRAY['1'], ARRAY['2024-03-01 10:01:00+00']::timestamptz[], ARRAY[1], ARRAY[['g']]);
-- Bad arrays are an error even under 'reject', and even if they are empty.
SELECT revenue_sink.apply('r', '{}'::text[], NULL::text[], '{}'::timestamptz[], '{}'::numeric[]);
SELECT revenue_sink.apply('r', '{a}'::text[], '{}'::text[], '{}'::timestamptz[], '{}'::numeric[]);

--
-- Bad events in jsonb: the context of the error names the position and the key.
--
\set SHOW_CONTEXT errors
SELECT revenue_sink.apply('s', NULL::jsonb);
SELECT revenue_sink.apply('s', 'null'::jsonb);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.apply('s', '3'::jsonb);
SELECT revenue_sink.apply('s', '"text"'::jsonb);
SELECT revenue_sink.apply('s', '[1]'::jsonb);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.apply('s', '[{"order_id": "j", "event_id": "1", "event_time": "2024-03-01 10:02Z", "amount": 1}, []]'::jsonb);
SELECT revenue_sink.apply('s', '[null]'::jsonb);
SELECT revenue_sink.apply('s', '{}'::jsonb);
SELECT revenue_sink.apply('s', '[{"order_id": "j", "event_id": "1", "event_time": "2024-03-01 10:02Z", "amount": 1}, {"event_id": "1"}]'::jsonb);
SELECT revenue_sink.apply('s', '{"order_id": "j", "event_id": "1", "event_time": "2024-03-01 10:02Z"}'::jsonb);
SELECT revenue_sink.apply('s', '{"order_id": "j", "event_id": "1", "event_time": "yesterday-ish", "amount": 1}'::jsonb);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.apply('s', '[{"order_id": "j", "event_id": "1", "event_time": "2024-03-01 10:02Z", "amount": 1},
	{"order_id": "j", "event_id": "1", "event_time": "2024-03-01 10:02Z", "amount": "12,50"}]'::jsonb);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.apply('s', '{"order_id": {"id": 1}, "event_id": "1", "event_time": "2024-03-01 10:02Z", "amount": 1}'::jsonb);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.apply('s', '{"order_id": "j", "event_id": true, "event_time": "2024-03-01 10:02Z", "amount": 1}'::jsonb);
SELECT revenue_sink.apply('s', '{"order_id": "j", "event_id": "1", "event_time": "2024-03-01 10:02Z", "amount": [1]}'::jsonb);
SELECT revenue_sink.apply('s', '{"order_id": "j", "event_id": "1", "event_time": "infinity", "amount": 1}'::jsonb);
SELECT revenue_sink.apply('s', '{"order_id": "j", "event_id": "1", "event_time": "2024-03-01 10:02Z", "amount": "NaN"}'::jsonb);
\set SHOW_CONTEXT never
SELECT revenue_sink.seen('s', 'j', '1');

--
-- INSERT and COPY: the error names the position in the statement, across slices;
-- rows that a COPY took in before the bad row are gone with it.
--
INSERT INTO order_events VALUES ('i', '1', '2024-03-01 10:03:00+00', 1), ('i', '2', NULL, 1);
\echo SQLSTATE :SQLSTATE
INSERT INTO order_events (order_id, event_id, event_time) VALUES ('i', '1', '2024-03-01 10:03:00+00');
INSERT INTO order_events SELECT CASE WHEN i < 25000 THEN i::text ELSE '' END, 'i', '2024-03-01 10:03:00+00', 1
FROM generate_series(1, 30000) AS i;
INSERT INTO order_events VALUES ('i', '1', '2024-03-01 10:03:00+00', 'abc');
COPY order_events FROM STDIN;
i	1	2024-03-01 10:03:00+00	1	\N
i	2	2024-03-01 10:03:00+00	NaN	\N
\.
COPY order_events FROM STDIN;
i	1	2024-03-01 10:03:00+00	1	\N
i	2	not a time	1	\N
\.
COPY order_events FROM STDIN (FORMAT csv);
i,1,2024-03-01 10:03:00+00
\.
SELECT count(*) AS rows_of_order_i FROM fact_revenue_1m WHERE minute = '2024-03-01 10:03:00+00';
SELECT revenue_sink.seen('s', 'i', '1'), revenue_sink.seen('s', '1', 'i');

--
-- With session_replication_role = replica triggers don't fire: rows are refused,
-- not lost.
--
SET session_replication_role = replica;
INSERT INTO order_events VALUES ('rep', '1', '2024-03-01 10:04:00+00', 1);
\echo SQLSTATE :SQLSTATE
WITH i AS (INSERT INTO order_events VALUES ('rep', '1', '2024-03-01 10:04:00+00', 1)) SELECT 1;
\copy order_events FROM /dev/null
INSERT INTO totals VALUES ('2024-03-01 10:04:00+00', '', 1, 1);
SELECT revenue_sink.apply('s', 'rep', '2', '2024-03-01 10:04:00+00', 1);
RESET session_replication_role;
-- The view was renamed; one of its triggers is dropped or disabled; the trigger's
-- function stands on another relation.
ALTER VIEW order_events RENAME TO e;
INSERT INTO e VALUES ('rep', '1', '2024-03-01 10:04:00+00', 1);
ALTER VIEW e RENAME TO order_events;
BEGIN;
DROP TRIGGER revenue_sink_statement ON order_events;
INSERT INTO order_events VALUES ('rep', '3', '2024-03-01 10:04:00+00', 1);
\echo SQLSTATE :SQLSTATE
ROLLBACK;
BEGIN;
UPDATE pg_trigger SET tgenabled = 'D' WHERE tgname = 'revenue_sink_statement' AND tgrelid = 'order_events'::regclass;
ALTER VIEW order_events SET (security_barrier = false);
INSERT INTO order_events VALUES ('rep', '3', '2024-03-01 10:04:00+00', 1);
COMMIT;
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.seen('s', 'rep', '1') AS "1", revenue_sink.seen('s', 'rep', '2') AS "2", revenue_sink.seen('s', 'rep', '3') AS "3";
CREATE VIEW other AS SELECT 1 AS a;
CREATE TRIGGER t INSTEAD OF INSERT ON other FOR EACH ROW EXECUTE FUNCTION revenue_sink.ingest();
INSERT INTO other VALUES (1);
\echo SQLSTATE :SQLSTATE
DROP VIEW other;
CREATE TABLE other (a int);
CREATE TRIGGER t BEFORE UPDATE ON other FOR EACH ROW EXECUTE FUNCTION revenue_sink.ingest();
INSERT INTO other VALUES (1);
UPDATE other SET a = 2;
DROP TABLE other;
SELECT revenue_sink.ingest();

--
-- Read-only transactions
--
BEGIN READ ONLY;
SAVEPOINT a;
SELECT revenue_sink.apply('s', 'ro', '1', '2024-03-01 10:05:00+00', 1);
\echo SQLSTATE :SQLSTATE
ROLLBACK TO a;
SELECT revenue_sink.apply('s', '[]'::jsonb);
ROLLBACK TO a;
INSERT INTO order_events VALUES ('ro', '1', '2024-03-01 10:05:00+00', 1);
\echo SQLSTATE :SQLSTATE
ROLLBACK TO a;
SELECT revenue_sink.upsert('t', '{2024-03-01 10:05:00+00}', '{1}');
ROLLBACK TO a;
SELECT revenue_sink.store_offsets('s', 'src', '{0}', '{1}');
ROLLBACK TO a;
SELECT revenue_sink.merge('s');
ROLLBACK TO a;
SELECT revenue_sink.expire('s');
ROLLBACK TO a;
SELECT revenue_sink.create_sink('ro', 'rof', 'roi');
ROLLBACK TO a;
SELECT revenue_sink.alter_sink('s');
ROLLBACK TO a;
SELECT revenue_sink.drop_sink('s');
ROLLBACK TO a;
-- Functions that only read work in a read-only transaction.
SELECT revenue_sink.seen('s', 'ro', '1');
SELECT * FROM revenue_sink.offsets('s');
SELECT * FROM revenue_sink.check('s');
SELECT count(*) FROM revenue_sink.stat_sink;
COMMIT;

--
-- Nothing of all this has stayed behind, except for the two good events.
--
SELECT order_id, event_id FROM (VALUES ('o', 'soon'), ('rep', '2'), ('o', 'e'), ('ro', '1')) AS v (order_id, event_id)
WHERE revenue_sink.seen('s', order_id, event_id) ORDER BY 1;
SELECT sum(revenue) AS revenue, sum(events) AS events FROM fact_revenue_1m;
SELECT applied, duplicate, deferred, conflict, late, rejected, seen_events, unmerged_deltas FROM revenue_sink.stat_sink WHERE sink = 's';
SELECT * FROM revenue_sink.check('s');
SELECT count(*) FROM revenue_sink.dead_letter;

--
-- With on_bad_event 'reject', bad events become dead letters with a reason, and
-- the other events count. A replay adds no dead letters.
--
PREPARE replay AS SELECT * FROM revenue_sink.apply('r',
	ARRAY['good', NULL, '', repeat('o', 1025), 'x', 'x', 'x', 'x', 'x', 'x', 'x', 'x', 'x', 'x', 'x', 'x'],
	ARRAY['1', '1', '1', '1', NULL, '', repeat('e', 1025), '1', '2', '3', '4', '5', '6', '7', '8', '9'],
	ARRAY['2024-03-01 10:01:00+00', '2024-03-01 10:01:00+00', '2024-03-01 10:01:00+00', '2024-03-01 10:01:00+00', '2024-03-01 10:01:00+00',
		'2024-03-01 10:01:00+00', '2024-03-01 10:01:00+00', NULL, 'infinity', '-infinity', '2999-01-01 00:00:00+00', '2024-03-01 10:01:00+00',
		'2024-03-01 10:01:00+00', '2024-03-01 10:01:00+00', '2024-03-01 10:01:00+00', '2024-03-01 10:01:00+00']::timestamptz[],
	ARRAY[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, NULL, 'NaN', 'Infinity', '-Infinity', 1]::numeric[],
	ARRAY['', '', '', '', '', '', '', '', '', '', '', 'g', '', '', '', repeat('g', 1025)]);
PREPARE letters AS SELECT reason, left(order_id, 5) AS order_id, left(event_id, 5) AS event_id, event_time, amount, left(group_key, 5) AS group_key
	FROM revenue_sink.dead_letter WHERE sink = 'r' ORDER BY reason, order_id, event_id, event_time, amount;
EXECUTE replay;
EXECUTE letters;
EXECUTE replay;
EXECUTE replay;
SELECT count(*) FROM revenue_sink.dead_letter WHERE sink = 'r';
-- The deprecated view of version 1.0 has the same rows.
SELECT count(*) > 0 AS there, count(*) = count(d.sink) AS same FROM revenue_sink.rejected_event r
	LEFT JOIN revenue_sink.dead_letter d ON (r.sink, r.reason, r.rejected_at) = (d.sink, d.reason, d.arrived_at)
	AND (r.order_id, r.event_id, r.event_time, r.amount, r.group_key) IS NOT DISTINCT FROM (d.order_id, d.event_id, d.event_time, d.amount, d.group_key);
SELECT count(*) FROM revenue_sink.dead_letter_event WHERE sink_id > 0;
SELECT revenue, events FROM rejecting_fact;
-- The same bad event comes twice in one call, and once with another amount.
SELECT * FROM revenue_sink.apply('r', ARRAY['', '', ''], ARRAY['2', '2', '2'],
	ARRAY(SELECT '2024-03-01 10:01:00+00'::timestamptz FROM generate_series(1, 3)), ARRAY[1, 1.0, 2]);
SELECT order_id, event_id, amount FROM revenue_sink.dead_letter WHERE event_id = '2' AND order_id = '' ORDER BY amount;
-- Bad events come through the other doors.
SELECT revenue_sink.apply('r', 'o', 'one', NULL, 1);
SELECT * FROM revenue_sink.apply('r', '[{}, {"order_id": "o", "event_id": "json", "event_time": "2024-03-01 10:01Z", "amount": 2}]'::jsonb);
INSERT INTO rejecting VALUES ('o', 'insert', '2024-03-01 10:01:00+00', NULL), ('o', 'insert2', '2024-03-01 10:01:00+00', 4);
COPY rejecting FROM STDIN;
o	copy	2024-03-01 10:01:00+00	NaN	\N
o	copy2	2024-03-01 10:01:00+00	8	\N
\.
SELECT reason, order_id, event_id FROM revenue_sink.dead_letter
WHERE sink = 'r' AND (order_id = 'o' OR order_id IS NULL) ORDER BY reason, order_id, event_id;
SELECT revenue, events FROM rejecting_fact;
-- A value that can't be read as an event is an error all the same.
SELECT revenue_sink.apply('r', '{"order_id": "o", "event_id": "1", "event_time": "x", "amount": 1}'::jsonb);
-- A rejected event counts when it comes back corrected.
SELECT revenue_sink.apply('r', 'x', '1', '2024-03-01 10:01:00+00', 16);
SELECT revenue, events FROM rejecting_fact;
-- Dead letters are as transactional as events.
BEGIN;
SELECT revenue_sink.apply('r', '', 'rolled back', '2024-03-01 10:01:00+00', 1);
SELECT count(*) FROM revenue_sink.dead_letter WHERE event_id = 'rolled back';
ROLLBACK;
SELECT count(*) FROM revenue_sink.dead_letter WHERE event_id = 'rolled back';
SELECT applied, duplicate, deferred, conflict, late, rejected, seen_events FROM revenue_sink.stat_sink WHERE sink = 'r';
SELECT * FROM revenue_sink.check('r');

--
-- Only the server's configuration changes these settings, and their prefix is
-- reserved.
--
SET revenue_sink.dedup_memory = '1GB';
SET revenue_sink.worker_interval = '1s';
SET revenue_sink.nonsense = 1;

SELECT revenue_sink.drop_sink(sink) FROM unnest('{r,s,t}'::text[]) AS sink;
