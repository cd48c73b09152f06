--
-- Every door through which events come in, and the six counts of a call's answer.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS revenue_sink;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SELECT revenue_sink.create_sink('s', dedup_window => '1000 days');
PREPARE fact AS SELECT minute, left(group_key, 8) AS group_key, revenue, events FROM fact_revenue_1m f ORDER BY minute, f.group_key;

--
-- Arrays
--
SELECT * FROM revenue_sink.apply('s', ARRAY['a', 'b', 'c'], ARRAY['1', '1', '1'],
	ARRAY['2024-03-01 10:01:00+00', '2024-03-01 10:01:59.999999+00', '2024-03-01 10:02:00+00']::timestamptz[],
	ARRAY[10, 2.50, 7]);
EXECUTE fact;
-- Events that come again are duplicates. A new event among them counts.
SELECT * FROM revenue_sink.apply('s', ARRAY['a', 'b', 'c', 'd'], ARRAY['1', '1', '1', '1'],
	ARRAY['2024-03-01 10:01:00+00', '2024-03-01 10:01:59.999999+00', '2024-03-01 10:02:00+00',
		'2024-03-01 10:02:30+00']::timestamptz[],
	ARRAY[10, 2.50, 7, 1]);
EXECUTE fact;
-- An empty call is fine.
SELECT * FROM revenue_sink.apply('s', '{}'::text[], '{}'::text[], '{}'::timestamptz[], '{}'::numeric[]);
SELECT * FROM revenue_sink.apply('s', '{}'::text[], '{}'::text[], '{}'::timestamptz[], '{}'::numeric[], '{}'::text[]);
-- Arguments are given by name, arrays don't start at 1, and an event's two ids
-- are told apart.
SELECT * FROM revenue_sink.apply(sink => 's', order_id => '[5:7]={a,ab,a1}', event_id => '{1a,1,11}',
	amount => '[0:2]={1,1,1}', event_time => ARRAY(SELECT '2024-03-01 10:03:00+00'::timestamptz FROM generate_series(1, 3)));
-- An event comes several times in one call: the first one counts. An event with
-- the same ids and another payload is a conflict, and the first event stands.
SELECT * FROM revenue_sink.apply('s', ARRAY['t', 't', 't', 't', 't'], ARRAY['1', '1', '1', '1', '1'],
	ARRAY['2024-03-01 10:04:00+00', '2024-03-01 10:04:00+00', '2024-03-01 10:04:01+00', '2024-03-01 10:04:00+00',
		'2024-03-01 10:04:00+00']::timestamptz[],
	ARRAY[5, 5.00, 5, 6, 5], ARRAY['', NULL, '', '', 'x']);
SELECT minute, revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 10:04:00+00';
-- Events conflict with an event that was counted before; each of them becomes a
-- dead letter only once.
SELECT * FROM revenue_sink.apply('s', ARRAY['t', 't', 't'], ARRAY['1', '1', '1'],
	ARRAY['2024-03-01 10:04:00+00', '2024-03-01 10:04:00+00', '2024-03-01 10:04:00+00']::timestamptz[],
	ARRAY[7, 6, 5]);
SELECT sink, reason, order_id, event_id, event_time, amount, group_key, arrived_at IS NOT NULL AS at
FROM revenue_sink.dead_letter ORDER BY order_id, event_id, event_time, amount, group_key;

-- Amounts may be negative (refunds) or zero.
SELECT * FROM revenue_sink.apply('s', ARRAY['r', 'r', 'r'], ARRAY['1', '2', '3'],
	ARRAY['2024-03-01 10:05:00+00', '2024-03-01 10:05:10+00', '2024-03-01 10:06:10+00']::timestamptz[],
	ARRAY[10, -12.75, 0]);
SELECT minute, revenue, events FROM fact_revenue_1m
WHERE minute >= '2024-03-01 10:05:00+00' ORDER BY minute;

-- Group keys NULL and '' are the same; every other key is a group of its own.
SELECT * FROM revenue_sink.apply('s', ARRAY['g', 'g', 'g', 'g', 'g'], ARRAY['1', '2', '3', '4', '5'],
	ARRAY(SELECT '2024-03-01 10:07:00+00'::timestamptz FROM generate_series(1, 5)),
	ARRAY[1, 2, 4, 8, 16], ARRAY['', NULL, 'EUR', 'eur', 'EUR']);
SELECT group_key, revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 10:07:00+00' ORDER BY 1;

-- Ids may be as long as the limit of 1024 bytes, and they may be odd.
SELECT * FROM revenue_sink.apply('s', ARRAY[repeat('x', 1024), ' ', E'tab\t', 'quote''"\'], ARRAY[repeat('y', 1024), ' ', E'\n', '{}'],
	ARRAY(SELECT '2024-03-01 10:08:00+00'::timestamptz FROM generate_series(1, 4)), ARRAY[1, 1, 1, 1], ARRAY[repeat('z', 1024), '', '', '']);
SELECT revenue_sink.seen('s', repeat('x', 1024), repeat('y', 1024)), revenue_sink.seen('s', 'quote''"\', '{}'),
	revenue_sink.seen('s', repeat('x', 1024), repeat('y', 1023)), revenue_sink.seen('s', 'x', NULL);

--
-- One row
--
SELECT revenue_sink.apply('s', 'one', '1', '2024-03-01 10:09:00+00', 3);
SELECT revenue_sink.apply('s', 'one', '1', '2024-03-01 10:09:00+00', 3.000);
SELECT revenue_sink.apply('s', 'one', '1', '2024-03-01 10:09:00+00', 3, NULL);
SELECT revenue_sink.apply('s', 'one', '1', '2024-03-01 10:09:00+00', 3, 'group');
SELECT revenue_sink.apply('s', 'one', '2', '2024-03-01 10:09:00+00', 4, 'group');
SELECT revenue_sink.apply(sink => 's', event_id => '3', order_id => 'one', amount => -1, event_time => '2024-03-01 10:09:00+00');
SELECT group_key, revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 10:09:00+00' ORDER BY 1;

--
-- jsonb
--
SELECT * FROM revenue_sink.apply('s', '{"order_id": "j", "event_id": "1", "event_time": "2024-03-01T10:10:00Z", "amount": 1.10}');
-- Ids may be numbers, amounts may be strings, unknown keys are ignored, and a
-- group key may be null or absent.
SELECT * FROM revenue_sink.apply('s', '[
	{"order_id": "j", "event_id": "1", "event_time": "2024-03-01 11:10:00+01", "amount": "1.1", "group_key": null},
	{"order_id": 17, "event_id": 2, "event_time": "2024-03-01T10:10:30Z", "amount": "1e2", "currency": "EUR"},
	{"order_id": "17", "event_id": "2", "event_time": "2024-03-01T10:10:30Z", "amount": 100},
	{"order_id": "j", "event_id": "3", "event_time": "2024-03-01T10:10:31Z", "amount": 0.000000001, "group_key": "EUR"},
	{"order_id": "j", "event_id": "3", "event_time": "2024-03-01T10:10:31Z", "amount": 5, "group_key": "EUR"},
	{"order_id": "j", "event_id": "4", "event_time": "2024-03-01T10:10:31Z", "amount": 5, "group_key": 9}]');
SELECT group_key, revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 10:10:00+00' ORDER BY 1;
SELECT * FROM revenue_sink.apply('s', '[]'::jsonb);

--
-- INSERT
--
INSERT INTO order_events VALUES ('i', '1', '2024-03-01 10:11:00+00', 1), ('i', '2', '2024-03-01 10:11:00+00', 1),
	('i', '1', '2024-03-01 10:11:00+00', 1);
-- The command tag counts all rows that were taken in, duplicates included.
\set QUIET off
INSERT INTO order_events VALUES ('i', '1', '2024-03-01 10:11:00+00', 1), ('i', '3', '2024-03-01 10:11:00+00', 1);
\set QUIET on
SELECT revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 10:11:00+00';
-- Columns may come in another order, or be left out.
INSERT INTO order_events (amount, event_time, event_id, group_key, order_id) VALUES (2, '2024-03-01 10:12:00+00', '1', 'EUR', 'i12');
INSERT INTO order_events (amount, event_time, event_id, order_id) VALUES (3, '2024-03-01 10:12:00+00', '2', 'i12');
-- RETURNING gives the rows back, whatever the answer to each event is.
INSERT INTO order_events VALUES ('i12', '2', '2024-03-01 10:12:00+00', 3), ('i12', '3', '2024-03-01 10:12:00+00', 4)
RETURNING *, amount * 2 AS twice;
-- This is the form that drivers send for "insert or ignore".
INSERT INTO order_events VALUES ('i12', '3', '2024-03-01 10:12:00+00', 4), ('i12', '4', '2024-03-01 10:12:00+00', 5)
ON CONFLICT DO NOTHING;
SELECT group_key, revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 10:12:00+00' ORDER BY 1;
-- INSERT .. SELECT has more rows than a slice, and is sent twice.
INSERT INTO order_events
SELECT 'sel-' || i, 'e', '2024-03-01 10:13:00+00'::timestamptz + i * interval '1 millisecond', 0.01
FROM generate_series(1, 20000) AS i;
INSERT INTO order_events
SELECT 'sel-' || i, 'e', '2024-03-01 10:13:00+00'::timestamptz + i * interval '1 millisecond', 0.01
FROM generate_series(10001, 30000) AS i;
SELECT minute, revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 10:13:00+00';
-- A query without rows inserts nothing, and the columns' defaults are null.
INSERT INTO order_events SELECT * FROM order_events;
-- CTEs write: two on one view, and one in a SELECT. PostgreSQL decides on the
-- order of the triggers; each event counts once.
WITH a AS (INSERT INTO order_events VALUES ('cte', '1', '2024-03-01 10:14:00+00', 1) RETURNING order_id),
	b AS (INSERT INTO order_events VALUES ('cte', '2', '2024-03-01 10:14:00+00', 2), ('cte', '1', '2024-03-01 10:14:00+00', 1) RETURNING order_id)
SELECT (SELECT count(*) FROM a) AS a, (SELECT count(*) FROM b) AS b;
WITH a AS (INSERT INTO order_events VALUES ('cte', '3', '2024-03-01 10:14:00+00', 4))
INSERT INTO order_events VALUES ('cte', '4', '2024-03-01 10:14:00+00', 8);
SELECT revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 10:14:00+00';
-- One statement writes to two sinks.
SELECT revenue_sink.create_sink('s2', 'fact2', 'events2', dedup_window => '1000 days');
WITH a AS (INSERT INTO order_events VALUES ('two', '1', '2024-03-01 10:15:00+00', 1))
INSERT INTO events2 VALUES ('two', '1', '2024-03-01 10:15:00+00', 2);
SELECT 's' AS sink, revenue FROM fact_revenue_1m WHERE minute = '2024-03-01 10:15:00+00'
UNION ALL SELECT 's2', revenue FROM fact2 ORDER BY 1;
-- A prepared statement writes, as drivers use it.
PREPARE ins AS INSERT INTO order_events VALUES ($1, $2, $3, $4, $5);
EXECUTE ins('prep', '1', '2024-03-01 10:16:00+00', 1.5, NULL);
EXECUTE ins('prep', '1', '2024-03-01 10:16:00+00', 1.5, NULL);
EXECUTE ins('prep', '2', '2024-03-01 10:16:00+00', 1.5, NULL);
SELECT revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 10:16:00+00';
-- The ingest view takes only INSERT.
UPDATE order_events SET amount = 1;
\echo SQLSTATE :SQLSTATE
DELETE FROM order_events;
\echo SQLSTATE :SQLSTATE
UPDATE fact_revenue_1m SET revenue = 1;
INSERT INTO fact_revenue_1m VALUES ('2024-03-01 10:16:00+00', '', 1, 1);
INSERT INTO order_events VALUES ('i', '1', '2024-03-01 10:11:00+00', 1) ON CONFLICT (order_id) DO UPDATE SET amount = 1;

--
-- COPY: text, csv, binary
--
\set QUIET off
COPY order_events FROM STDIN;
c	1	2024-03-01 10:17:00+00	1.25	\N
c	2	2024-03-01 10:17:01+00	2	EUR
c	1	2024-03-01 10:17:00+00	1.25	\N
\.
COPY order_events (event_id, order_id, amount, event_time) FROM STDIN (FORMAT csv, HEADER);
event_id,order_id,amount,event_time
2,c,2,2024-03-01T10:17:01Z
3,"c",-0.25,2024-03-01T10:17:02Z
4,"with ""quote"", comma",1,2024-03-01T10:17:02Z
\.
-- COPY takes no rows at all.
COPY order_events FROM STDIN;
\.
\set QUIET on
SELECT group_key, revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 10:17:00+00' ORDER BY 1;
SELECT reason, order_id, event_id, group_key FROM revenue_sink.dead_letter WHERE order_id = 'c' ORDER BY event_id;
SELECT revenue_sink.seen('s', 'with "quote", comma', '4');
-- The client writes a binary file and reads it; the server touches no file.
\getenv abs_builddir PG_ABS_BUILDDIR
\set file :abs_builddir '/results/02_apply.bin'
COPY (SELECT 'bin-' || i, 'e', '2024-03-01 10:18:00+00'::timestamptz + i * interval '2 milliseconds', i * 0.01, NULL::text
	FROM generate_series(1, 25000) AS i) TO STDOUT (FORMAT binary) \g :file
\set copy_binary '\\copy order_events FROM ' :'file' ' (FORMAT binary)'
:copy_binary
:copy_binary
SELECT revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 10:18:00+00';
SELECT sum(i * 0.01) AS expected, count(*) FROM generate_series(1, 25000) AS i;

--
-- The six counts add up, for each call and for all calls.
--
SELECT applied + duplicate + deferred + conflict + late + rejected AS given FROM revenue_sink.apply('s',
	ARRAY(SELECT 'sum-' || i / 3 FROM generate_series(1, 9000) AS i), ARRAY(SELECT (i % 2)::text FROM generate_series(1, 9000) AS i),
	ARRAY(SELECT '2024-03-01 10:19:00+00'::timestamptz FROM generate_series(1, 9000)), ARRAY(SELECT 1.0 + i % 5 FROM generate_series(1, 9000) AS i));
SELECT revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 10:19:00+00';
SELECT sum(amount), count(*) FROM (SELECT DISTINCT ON (i / 3, i % 2) 1.0 + i % 5 AS amount
	FROM generate_series(1, 9000) AS i ORDER BY i / 3, i % 2, i) AS first;
SELECT sink, applied = (SELECT sum(events) FROM fact_revenue_1m) AS applied, applied = seen_events AS seen,
	duplicate > 0 AS duplicate, deferred, conflict > 0 AS conflict, late, rejected
FROM revenue_sink.stat_sink WHERE sink = 's';
SELECT * FROM revenue_sink.check('s');
SELECT revenue_sink.merge('s') > 0 AS merged;
SELECT revenue_sink.merge('s');
EXECUTE fact;
SELECT * FROM revenue_sink.check('s');
SELECT revenue_sink.drop_sink('s');
SELECT revenue_sink.drop_sink('s2');

--
-- Buckets have a fixed length, counted from 1970-01-01 UTC, also before 2000 and
-- 1970.
--
CREATE FUNCTION buckets(bucket interval) RETURNS TABLE (event_time timestamptz, minute timestamptz) LANGUAGE plpgsql AS $$
DECLARE
	i int := 0;
BEGIN
	PERFORM revenue_sink.create_sink('b', 'bucket_fact', 'bucket_events', bucket => bucket, dedup_window => '10000000 days');
	FOREACH event_time IN ARRAY ARRAY['4713-01-01 00:00:00 BC', '0001-12-31 23:59:59.999999 BC', '1969-12-31 23:59:59.999999', '1970-01-01',
		'1970-01-01 00:00:00.000001', '1970-01-08', '1999-12-31 23:59:59.999999', '2000-01-01', '2024-02-29 12:34:56.789']::timestamptz[]
	LOOP
		i := i + 1;
		PERFORM revenue_sink.apply('b', 'o', i::text, event_time, i, i::text);
		SELECT f.minute INTO STRICT minute FROM bucket_fact f WHERE group_key = i::text;
		RETURN NEXT;
	END LOOP;
	PERFORM revenue_sink.drop_sink('b');
END $$;
SELECT * FROM buckets('1 minute');
SELECT * FROM buckets('7 minutes');
SELECT * FROM buckets('1 day');
SELECT * FROM buckets('7 days');
SELECT * FROM buckets('0.25 seconds');
SELECT * FROM buckets('1 microsecond');
DROP FUNCTION buckets;
-- The session's time zone doesn't change the buckets.
SELECT revenue_sink.create_sink('b', 'bucket_fact', 'bucket_events', bucket => '1 day');
SET timezone = 'America/New_York';
SELECT revenue_sink.apply('b', 'o', '1', '2024-03-10 23:30:00', 1);
SELECT revenue_sink.apply('b', 'o', '2', '2024-03-11 19:30:00', 2);
SET timezone = 'UTC';
SELECT minute, revenue FROM bucket_fact ORDER BY minute;
SELECT revenue_sink.drop_sink('b');
