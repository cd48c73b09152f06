--
-- apply_each(): the answer to each event, in the order of the events; and the view
-- settled, which has the answers to the events that were deferred.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS revenue_sink;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SELECT revenue_sink.create_sink('s', on_bad_event => 'reject', dedup_window => '1 hour', max_future => '10000 days');
-- The same events go to a second sink by apply(), for comparison.
SELECT revenue_sink.create_sink('counts', 'fact_counts', 'in_counts', on_bad_event => 'reject', dedup_window => '1 hour',
	max_future => '10000 days');
CREATE TABLE event (call int, position int, order_id text, event_id text, event_time timestamptz, amount numeric, group_key text);
-- Send a call of events to both sinks: the answers of the one, and how they differ
-- from the counts of the other.
CREATE FUNCTION send(sent int) RETURNS TABLE (answers text, difference text) LANGUAGE plpgsql AS $$
DECLARE
	order_ids text[] = ARRAY(SELECT order_id FROM event WHERE call = sent ORDER BY position);
	event_ids text[] = ARRAY(SELECT event_id FROM event WHERE call = sent ORDER BY position);
	times timestamptz[] = ARRAY(SELECT event_time FROM event WHERE call = sent ORDER BY position);
	amounts numeric[] = ARRAY(SELECT amount FROM event WHERE call = sent ORDER BY position);
	groups text[] = ARRAY(SELECT group_key FROM event WHERE call = sent ORDER BY position);
	words text[] = revenue_sink.apply_each('s', order_ids, event_ids, times, amounts, groups);
BEGIN
	answers := array_to_string(words, ' ', 'NULL');
	SELECT string_agg(format('%s %s instead of %s', n, word, n_of_apply), ', ') INTO difference
	FROM revenue_sink.apply('counts', order_ids, event_ids, times, amounts, groups) AS c,
		LATERAL (VALUES ('applied', c.applied), ('duplicate', c.duplicate), ('deferred', c.deferred), ('conflict', c.conflict),
			('late', c.late), ('rejected', c.rejected)) AS v (word, n_of_apply),
		LATERAL (SELECT count(*) AS n FROM unnest(words) AS w WHERE w = word) AS x
	WHERE n <> n_of_apply;
	IF cardinality(words) <> cardinality(order_ids) THEN
		difference := concat_ws(', ', difference, format('%s events, %s answers', cardinality(order_ids), cardinality(words)));
	END IF;
	RETURN NEXT;
END $$;

-- All six answers in one call: two events are in a prepared transaction, others
-- are before the horizon.
INSERT INTO event SELECT 1, i, 'o', 'e' || i, '2024-03-01 10:00+00'::timestamptz + i * interval '1 minute', i, NULL FROM generate_series(1, 4) AS i;
SELECT * FROM send(1);
SELECT revenue_sink.merge('s') > 0 AND revenue_sink.merge('counts') > 0 AS merged;
INSERT INTO event VALUES (2, 1, 'o', 'new', '2024-03-01 12:00+00', 1, 'g');
SELECT * FROM send(2);
SELECT revenue_sink.expire('s') > 0 AND revenue_sink.expire('counts') > 0 AS expired;
INSERT INTO event VALUES (3, 1, 'o', 'held', '2024-03-01 12:01+00', 8, NULL), (3, 2, 'o', 'held too', '2024-03-01 12:02+00', 16, 'g');
BEGIN;
SELECT * FROM send(3);
PREPARE TRANSACTION 'held';
INSERT INTO event VALUES
	(4, 1, 'o', 'e1', '2024-03-01 10:01+00', 1, NULL), (4, 2, NULL, 'null', '2024-03-01 12:03+00', 1, NULL),
	(4, 3, 'o', 'held too', '2024-03-01 12:02+00', 16, 'g'), (4, 4, 'o', 'fresh', '2024-03-01 12:03+00', 32, 'g'),
	(4, 5, 'o', 'new', '2024-03-01 12:00+00', 1.0, 'g'), (4, 6, 'o', 'new', '2024-03-01 12:00+00', 2, 'g'),
	(4, 7, 'o', 'fresh', '2024-03-01 12:03+00', 32, 'g'), (4, 8, 'o', 'held', '2024-03-01 12:01+00', 9, NULL),
	(4, 9, 'o', 'nan', '2024-03-01 12:03+00', 'NaN', 'g'), (4, 10, 'o', 'fresh', '2024-03-01 12:04+00', 32, 'g'),
	(4, 11, 'p', 'fresh', '2024-03-01 12:03+00', 64, 'g'), (4, 12, 'o', 'e2', '2024-03-01 10:01+00', 64, 'g');
SELECT * FROM send(4);
SELECT order_id, event_id, amount FROM revenue_sink.deferred WHERE sink = 's' ORDER BY event_id;
-- A copy of it all, which finds what the first one left.
SELECT * FROM send(4);
ROLLBACK PREPARED 'held';
SELECT revenue_sink.merge('s') > 0 AND revenue_sink.merge('counts') > 0 AS merged;
SELECT sink, order_id, event_id, answer, settled_at <= clock_timestamp() AND settled_at > stats_since AS at
FROM revenue_sink.settled JOIN revenue_sink.stat_sink USING (sink) ORDER BY sink, event_id, answer;
-- Both sinks have counted the same, under the same words, though by other calls.
SELECT * FROM fact_revenue_1m ORDER BY minute, group_key;
SELECT * FROM fact_revenue_1m EXCEPT SELECT * FROM fact_counts;
SELECT sink, applied, duplicate, deferred, conflict, late, rejected, seen_events FROM revenue_sink.stat_sink ORDER BY sink;
SELECT reason, order_id, event_id, amount FROM revenue_sink.dead_letter WHERE sink = 's' ORDER BY reason, event_id, amount;
SELECT reason, order_id, event_id, amount FROM revenue_sink.dead_letter WHERE sink = 's'
EXCEPT SELECT reason, order_id, event_id, amount FROM revenue_sink.dead_letter WHERE sink = 'counts';

-- Each answer is that of the event at its position, in a call of several portions.
INSERT INTO event SELECT 5, i, 'many', CASE i % 5 WHEN 1 THEN 'x' || i - 1 WHEN 2 THEN 'x' || i - 2 WHEN 3 THEN '' ELSE 'x' || i END,
	CASE WHEN i % 5 = 4 THEN '2024-03-01 10:00+00'::timestamptz ELSE '2024-03-01 12:05+00' END, CASE i % 5 WHEN 2 THEN 2 ELSE 1 END, NULL
FROM generate_series(0, 49999) AS i;
SELECT left(answers, 100) AS answers, md5(answers) = md5((SELECT string_agg(a, ' ')
	FROM (SELECT 'applied duplicate conflict rejected late' FROM generate_series(1, 10000)) AS u (a))) AS right, difference FROM send(5);
-- Chance decides, and the sinks agree.
SELECT setseed(0.225);
INSERT INTO event SELECT 6 + i / 100, i % 100, 'r' || (random() * 20)::int, 'e' || (random() * 3)::int, '2024-03-01 12:06+00',
	CASE WHEN random() < 0.9 THEN 1 WHEN random() < 0.5 THEN 2 END, CASE WHEN random() < 0.1 THEN 'g' END FROM generate_series(0, 999) AS i;
SELECT sum(cardinality(string_to_array(s.answers, ' '))) AS answers, string_agg(s.difference, ', ') AS difference
FROM generate_series(6, 15) AS call, send(call) AS s;
SELECT * FROM fact_revenue_1m EXCEPT SELECT * FROM fact_counts;
SELECT count(DISTINCT (applied, duplicate, deferred, conflict, late, rejected)) FROM revenue_sink.stat_sink;

--
-- Arguments: as those of apply()
--
SELECT revenue_sink.apply_each('s', '{}', '{}', '{}', '{}') = '{}' AS empty, revenue_sink.apply_each('s', '{}', '{}', '{}', '{}', '{}') = '{}' AS empty;
SELECT revenue_sink.apply_each(sink => 's', order_id => '[5:7]={a,ab,a1}', event_id => '{1a,1,11}', amount => '[0:2]={1,1,1}',
	event_time => ARRAY(SELECT '2024-03-01 12:07+00'::timestamptz FROM generate_series(1, 3)));
SELECT pg_typeof(a), array_ndims(a), array_lower(a, 1), a[1], a = ARRAY['duplicate', 'applied'], hashtext(a[1]) = hashtext('duplicate') AS text
FROM revenue_sink.apply_each('s', '{a,b}', '{1a,1}', '{2024-03-01 12:07+00,2024-03-01 12:07+00}', '{1,1}') AS a;
SELECT revenue_sink.apply_each(NULL, '{}', '{}', '{}', '{}');
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.apply_each('none', '{}', '{}', '{}', '{}');
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.apply_each('s', NULL, '{}', '{}', '{}');
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.apply_each('s', '{a}', '{1}', '{2024-03-01 12:07+00}', '{1,2}');
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.apply_each('s', '{a}', '{{1}}', '{2024-03-01 12:07+00}', '{1}');
\echo SQLSTATE :SQLSTATE
-- More answers than an array has room for are refused before anything is done.
SELECT revenue_sink.apply_each('s', a, a, a::timestamptz[], a::numeric[]) FROM array_fill(NULL::text, '{70000000}') AS a;
\echo SQLSTATE :SQLSTATE
-- A bad event fails the call as a whole.
SELECT revenue_sink.alter_sink('s', on_bad_event => 'error');
SELECT revenue_sink.apply_each('s', '{a,b}', '{whole,""}', '{2024-03-01 12:07+00,2024-03-01 12:07+00}', '{1,1}');
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.seen('s', 'a', 'whole');
BEGIN READ ONLY;
SELECT revenue_sink.apply_each('s', '{}', '{}', '{}', '{}');
ROLLBACK;
SELECT revenue_sink.create_sink('t', 'fact_t', 'in_t', mode => 'totals');
SELECT revenue_sink.apply_each('t', '{}', '{}', '{}', '{}');
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.merge('t');

--
-- Beside the answers: accepted events go into a table of the user's own in the
-- same transaction, by one statement, which calls the function once.
--
CREATE TABLE payment (order_id text, event_id text, amount numeric);
PREPARE pay(text[], text[], timestamptz[], numeric[]) AS
	WITH e AS (SELECT * FROM unnest($1, $2, $4, revenue_sink.apply_each('s', $1, $2, $3, $4)) AS u (order_id, event_id, amount, answer)),
		kept AS (INSERT INTO payment SELECT order_id, event_id, amount FROM e WHERE answer = 'applied')
	SELECT * FROM e;
BEGIN;
EXECUTE pay('{b,a,b}', '{2,1a,2}', '{2024-03-01 12:08+00,2024-03-01 12:07+00,2024-03-01 12:08+00}', '{5,1,5}');
SAVEPOINT one;
EXECUTE pay('{c}', '{2}', '{2024-03-01 12:08+00}', '{6}');
ROLLBACK TO one;
EXECUTE pay('{c}', '{2}', '{2024-03-01 12:08+00}', '{7}');
COMMIT;
BEGIN;
EXECUTE pay('{d}', '{2}', '{2024-03-01 12:08+00}', '{9}');
ROLLBACK;
SELECT * FROM payment;
SELECT revenue_sink.seen('s', 'c', '2') AS c, revenue_sink.seen('s', 'd', '2') AS d;

--
-- The view settled: one row per copy that was deferred, with its final answer
--
PREPARE settled AS SELECT order_id, event_id, answer FROM revenue_sink.settled WHERE sink = 's' AND order_id = 'd' ORDER BY event_id, answer;
CREATE FUNCTION hold(id text, amount numeric DEFAULT 1) RETURNS text[] LANGUAGE sql AS $$
	SELECT revenue_sink.apply_each('s', ARRAY['d'], ARRAY[id], ARRAY['2024-03-01 12:09+00'::timestamptz], ARRAY[amount]) $$;
BEGIN;
SELECT hold('commits');
PREPARE TRANSACTION 'commits';
BEGIN;
SELECT hold('rolls back');
PREPARE TRANSACTION 'rolls back';
BEGIN;
SELECT hold('waits');
PREPARE TRANSACTION 'waits';
-- Copies come by every door; one of them is another event of the same name.
SELECT hold('commits'), hold('commits', 2), hold('rolls back'), hold('waits');
SELECT revenue_sink.apply('s', 'd', 'rolls back', '2024-03-01 12:09+00', 1);
INSERT INTO order_events VALUES ('d', 'rolls back', '2024-03-01 12:09+00', 3);
-- A copy whose own transaction is rolled back, or a savepoint in it, has no answer.
BEGIN;
SELECT hold('rolls back');
ROLLBACK;
BEGIN;
SAVEPOINT one;
SELECT hold('commits');
ROLLBACK TO one;
COMMIT;
-- While all transactions are unfinished, nothing is settled.
SELECT revenue_sink.merge('s') >= 0 AS merged;
EXECUTE settled;
COMMIT PREPARED 'commits';
ROLLBACK PREPARED 'rolls back';
-- The answers are there if, and only if, the settling commits.
BEGIN;
SELECT revenue_sink.merge('s') > 0 AS merged;
EXECUTE settled;
ROLLBACK;
EXECUTE settled;
SELECT count(*) FROM revenue_sink.deferred WHERE sink = 's';
BEGIN;
SAVEPOINT one;
SELECT revenue_sink.merge('s') > 0 AS merged;
ROLLBACK TO one;
SELECT revenue_sink.merge('s') > 0 AS merged;
COMMIT;
EXECUTE settled;
SELECT event_id FROM revenue_sink.deferred WHERE sink = 's';
-- Settled once, never again. What waits gets its answer when its time has come.
SELECT revenue_sink.merge('s') >= 0 AS merged;
COMMIT PREPARED 'waits';
SELECT revenue_sink.merge('s') >= 0 AS merged, revenue_sink.merge('s') AS again;
EXECUTE settled;
SELECT count(*) FROM revenue_sink.deferred WHERE sink = 's';
SELECT reason, event_id, amount FROM revenue_sink.dead_letter WHERE sink = 's' AND order_id = 'd' ORDER BY event_id;
-- What this very transaction has deferred, too; and events as long as can be.
BEGIN;
SELECT revenue_sink.apply_each('s', ARRAY[repeat('x', 1024)], ARRAY[repeat('y', 1024)], '{2024-03-01 12:09+00}', '{1}');
PREPARE TRANSACTION 'long';
BEGIN;
SELECT revenue_sink.apply_each('s', ARRAY[repeat('x', 1024)], ARRAY[repeat('y', 1024)], '{2024-03-01 12:09+00}', '{1}');
SELECT revenue_sink.merge('s') >= 0 AS merged;
COMMIT;
ROLLBACK PREPARED 'long';
SELECT revenue_sink.merge('s') >= 0 AS merged;
SELECT answer, length(order_id) AS order_id, length(event_id) AS event_id FROM revenue_sink.settled
WHERE sink = 's' AND order_id = repeat('x', 1024) AND event_id = repeat('y', 1024);
-- Very many of them, which are settled in several portions, each once.
BEGIN;
SELECT count(*) FROM unnest(revenue_sink.apply_each('s', ARRAY(SELECT 'm' FROM generate_series(1, 40000)),
	ARRAY(SELECT i::text FROM generate_series(1, 40000) AS i), array_fill('2024-03-01 12:09+00'::timestamptz, '{40000}'),
	array_fill(1::numeric, '{40000}'))) AS answer WHERE answer = 'applied';
PREPARE TRANSACTION 'many';
SELECT count(*) FROM unnest(revenue_sink.apply_each('s', ARRAY(SELECT 'm' FROM generate_series(1, 40000)),
	ARRAY(SELECT i::text FROM generate_series(1, 40000) AS i), array_fill('2024-03-01 12:09+00'::timestamptz, '{40000}'),
	array_fill(1::numeric, '{40000}'))) AS answer WHERE answer = 'deferred';
COMMIT PREPARED 'many';
SELECT revenue_sink.merge('s') > 40000 AS merged;
SELECT answer, count(*), count(DISTINCT event_id) FROM revenue_sink.settled WHERE sink = 's' AND order_id = 'm' GROUP BY 1;

SELECT * FROM revenue_sink.check('s');
-- A sink that is dropped leaves no answers behind.
SELECT revenue_sink.drop_sink(sink) FROM (VALUES ('s'), ('counts'), ('t')) AS v (sink);
SELECT count(*) FROM revenue_sink.settled_event;
DROP FUNCTION send, hold;
DROP TABLE event, payment;
