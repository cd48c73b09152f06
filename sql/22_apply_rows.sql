--
-- apply_rows(): events as one value in the format of COPY BINARY.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS revenue_sink;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
\set SHOW_CONTEXT always
SELECT revenue_sink.create_sink('s', on_bad_event => 'reject', dedup_window => '1 hour', max_future => '10000 days');
-- The same events go to a second sink as arrays, for comparison.
SELECT revenue_sink.create_sink('arrays', 'fact_arrays', 'in_arrays', on_bad_event => 'reject', dedup_window => '1 hour',
	max_future => '10000 days');
CREATE TABLE event (call int, position int, order_id text, event_id text, event_time timestamptz, amount numeric, group_key text);
-- A field, a row of four or five fields, and the rows of a call.
CREATE FUNCTION field(bytes bytea) RETURNS bytea LANGUAGE sql AS $$
	SELECT coalesce(int4send(octet_length(bytes)) || bytes, '\xffffffff') $$;
CREATE FUNCTION as_row(e event, with_group boolean) RETURNS bytea LANGUAGE sql AS $$
	SELECT int2send(CASE WHEN with_group THEN 5 ELSE 4 END::int2) || field(textsend(e.order_id)) || field(textsend(e.event_id)) ||
		field(timestamptz_send(e.event_time)) || field(numeric_send(e.amount)) ||
		CASE WHEN with_group THEN field(textsend(e.group_key)) ELSE '' END $$;
CREATE FUNCTION framed(rows bytea) RETURNS bytea LANGUAGE sql AS $$
	SELECT '\x5047434f50590aff0d0a00'::bytea || int4send(0) || int4send(0) || rows || int2send(-1::int2) $$;
CREATE FUNCTION rows_of(sent int) RETURNS bytea LANGUAGE sql AS $$
	SELECT framed(coalesce(string_agg(as_row(e, group_key IS NOT NULL OR position % 2 = 0), '' ORDER BY position), ''))
	FROM event AS e WHERE call = sent $$;
-- Send a call of events to both sinks: the answers of the one, and how they differ
-- from those of the other.
CREATE FUNCTION send(sent int) RETURNS TABLE (answers text, difference text) LANGUAGE plpgsql AS $$
DECLARE
	a record;
	b record;
BEGIN
	SELECT * INTO a FROM revenue_sink.apply_rows('s', rows_of(sent));
	SELECT * INTO b FROM revenue_sink.apply('arrays', ARRAY(SELECT order_id FROM event WHERE call = sent ORDER BY position),
		ARRAY(SELECT event_id FROM event WHERE call = sent ORDER BY position),
		ARRAY(SELECT event_time FROM event WHERE call = sent ORDER BY position),
		ARRAY(SELECT amount FROM event WHERE call = sent ORDER BY position),
		ARRAY(SELECT group_key FROM event WHERE call = sent ORDER BY position));
	answers := a::text;
	difference := CASE WHEN a <> b THEN format('%s as arrays', b) END;
	RETURN NEXT;
END $$;

-- All six answers in one call: two events are in a prepared transaction, others
-- are before the horizon.
INSERT INTO event SELECT 1, i, 'o', 'e' || i, '2024-03-01 10:00+00'::timestamptz + i * interval '1 minute', i, NULL FROM generate_series(1, 4) AS i;
SELECT * FROM send(1);
SELECT revenue_sink.merge('s') > 0 AND revenue_sink.merge('arrays') > 0 AS merged;
INSERT INTO event VALUES (2, 1, 'o', 'new', '2024-03-01 12:00+00', 1, 'g');
SELECT * FROM send(2);
SELECT revenue_sink.expire('s') > 0 AND revenue_sink.expire('arrays') > 0 AS expired;
INSERT INTO event VALUES (3, 1, 'o', 'held', '2024-03-01 12:01+00', 8, NULL), (3, 2, 'o', 'held too', '2024-03-01 12:02+00', 16, 'g');
BEGIN;
SELECT * FROM send(3);
PREPARE TRANSACTION 'held';
INSERT INTO event VALUES
	(4, 1, 'o', 'e1', '2024-03-01 10:01+00', 1, NULL), (4, 2, NULL, 'null', '2024-03-01 12:03+00', 1, NULL),
	(4, 3, 'o', 'held too', '2024-03-01 12:02+00', 16, 'g'), (4, 4, 'o', 'fresh', '2024-03-01 12:03+00', 32, 'g'),
	(4, 5, 'o', 'new', '2024-03-01 12:00+00', 1.0, 'g'), (4, 6, 'o', 'new', '2024-03-01 12:00+00', 2, 'g'),
	(4, 7, 'o', 'fresh', '2024-03-01 12:03+00', 32, 'g'), (4, 8, 'o', 'held', '2024-03-01 12:01+00', 9, NULL),
	(4, 9, 'o', 'nan', '2024-03-01 12:03+00', 'NaN', 'g'), (4, 10, 'o', 'infinite', '2024-03-01 12:03+00', '-Infinity', ''),
	(4, 11, 'o', NULL, '2024-03-01 12:03+00', 1, 'g'), (4, 12, 'o', 'no time', NULL, 1, 'g'),
	(4, 13, 'o', 'no amount', '2024-03-01 12:03+00', NULL, 'g'), (4, 14, 'o', 'late', '2024-03-01 09:03+00', 1, 'g'),
	(4, 15, 'o', 'never', 'infinity', 1, 'g'), (4, 16, '', 'empty', '2024-03-01 12:03+00', 1, 'g'),
	(4, 17, repeat('x', 1025), 'long', '2024-03-01 12:03+00', 1, 'g');
SELECT * FROM send(4);
COMMIT PREPARED 'held';
SELECT revenue_sink.merge('s') > 0 AND revenue_sink.merge('arrays') > 0 AS merged;
SELECT * FROM send(4);

-- Amounts of all sizes and scales. The same event as arrays is a duplicate.
INSERT INTO event SELECT 5, n, 'a' || n, 'e', '2024-03-01 12:04+00', a, NULL
FROM unnest('{0,0.00,1,-1,0.01,-0.01,9999.9999,10000,-10000.00010000,0.0001,0.00001,0.5000,1.10,100000000,12345678901234567890.123456789,
	-99999999999999999999,1e20,1e-20,1e90,-1e99,0.000000000000000000000000000000000001,1.000000000000000000000000000000000000000000000000000000000000000000000000000000000}'::numeric[])
	WITH ORDINALITY AS u (a, n);
SELECT * FROM send(5);
SELECT revenue_sink.merge('s') > 0 AND revenue_sink.merge('arrays') > 0 AS merged;
SELECT a.duplicate FROM (SELECT array_agg(order_id ORDER BY position) AS o, array_agg(event_id ORDER BY position) AS e,
	array_agg(event_time ORDER BY position) AS t, array_agg(amount ORDER BY position) AS a FROM event WHERE call = 5) AS v,
	revenue_sink.apply('s', v.o, v.e, v.t, v.a) AS a;
-- Amounts in forms that numeric_send() doesn't write, though numeric_recv() takes
-- them: 1 with zeros before it, 1.0000 with zeros behind it, 1.2345 of which two
-- decimals are said to be hidden, 0 with a sign, and 0 in three digits.
SELECT revenue_sink.apply_rows('s', framed(string_agg(int2send(4::int2) || field(textsend('form')) || field(textsend(n::text)) ||
	field(timestamptz_send('2024-03-01 12:05+00')) || field(a), '' ORDER BY n)))
FROM unnest('{"\\x000200010000000000000001","\\x000200000000000400010000","\\x000200000000000200010929","\\x0000000540000002","\\x0003000100000001000000000000"}'::bytea[]) WITH ORDINALITY AS u (a, n);
SELECT revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 12:05+00';
SELECT applied, duplicate FROM revenue_sink.apply('s', '{form,form,form,form,form}'::text[], '{1,2,3,4,5}'::text[],
	array_fill('2024-03-01 12:05+00'::timestamptz, '{5}'), '{1,1,1.23,0,0}'::numeric[]);

-- Calls of exactly one portion, of one event more, and of several.
INSERT INTO event SELECT n, i, 'many' || n, i::text, '2024-03-01 12:06+00', i, 'g' || i % 3
FROM unnest('{16199,16200,16201,50000}'::int[]) AS n, generate_series(1, n) AS i;
SELECT n, send.* FROM unnest('{16199,16200,16201,50000}'::int[]) AS n, send(n) ORDER BY n;
SELECT n, send.* FROM unnest('{16199,16200,16201,50000}'::int[]) AS n, send(n) ORDER BY n;
-- Both sinks have counted the same, to the last decimal.
SELECT minute, group_key, left(revenue::text, 40) AS revenue, events FROM fact_revenue_1m WHERE minute > '2024-03-01 12:05+00' ORDER BY 1, 2;
SELECT minute, group_key, revenue::text, events FROM fact_revenue_1m WHERE minute <> '2024-03-01 12:05+00'
EXCEPT SELECT minute, group_key, revenue::text, events FROM fact_arrays;
SELECT minute, group_key, revenue::text, events FROM fact_arrays
EXCEPT SELECT minute, group_key, revenue::text, events FROM fact_revenue_1m;
SELECT reason, order_id, event_id, event_time, amount, group_key FROM revenue_sink.dead_letter WHERE sink = 's'
EXCEPT SELECT reason, order_id, event_id, event_time, amount, group_key FROM revenue_sink.dead_letter WHERE sink = 'arrays';
SELECT count(*) FROM revenue_sink.dead_letter WHERE sink = 's';
SELECT * FROM revenue_sink.check('s');

-- What COPY writes: a value that has been a file, and one with an extension of the
-- header and a flag that may be ignored.
DO $$ BEGIN
	EXECUTE format('COPY (SELECT order_id, event_id, event_time, amount, group_key FROM event WHERE call = 50000) TO %L (FORMAT binary)',
		current_setting('data_directory') || '/regress_rows');
END $$;
SELECT * FROM revenue_sink.apply_rows('s', pg_read_binary_file('regress_rows'));
COPY (SELECT) TO PROGRAM 'rm regress_rows';
SELECT * FROM revenue_sink.apply_rows('s', '\x5047434f50590aff0d0a00'::bytea || '\x00000001' || int4send(3) || '\xabcdef' ||
	substr(rows_of(1), 20));
SELECT * FROM revenue_sink.apply_rows(rows => framed(''), sink => 's');

--
-- Damaged values: each says where, and leaves nothing.
--
CREATE FUNCTION state_of(rows bytea) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM revenue_sink.apply_rows('s', rows);
	RETURN 'none';
EXCEPTION WHEN OTHERS THEN
	RETURN sqlstate;
END $$;
INSERT INTO event SELECT 6, i, 'damaged', i::text, '2024-03-01 12:07+00', 1.5, 'g' FROM generate_series(1, 3) AS i;
SELECT revenue_sink.alter_sink('s', on_bad_event => 'error');
-- cut off after each byte
SELECT state_of(substr(rows_of(6), 1, n)) AS state, count(*)
FROM generate_series(0, octet_length(rows_of(6)) - 1) AS n GROUP BY 1 ORDER BY 1;
SELECT revenue_sink.seen('s', 'damaged', '1');
-- a bad row behind a portion of good ones
SELECT state_of(framed(string_agg(as_row(e, true), '') || int2send(3::int2))) FROM event AS e WHERE call = 16201;
\set damaged 'SELECT revenue_sink.apply_rows(''s'', '
:damaged NULL);
\echo SQLSTATE :SQLSTATE
:damaged '');
\echo SQLSTATE :SQLSTATE
:damaged 'PGCOPY');
:damaged set_byte(rows_of(6), 12, 1));
:damaged '\x5047434f50590aff0d0a00'::bytea || int4send(0) || int4send(-1) || '\xffff');
:damaged '\x5047434f50590aff0d0a00'::bytea || int4send(0) || int4send(100) || '\xffff');
:damaged rows_of(6) || '\x00');
:damaged framed(int2send(3::int2)));
:damaged framed(int2send(6::int2)));
:damaged framed(int2send(-2::int2)));
:damaged framed(int2send(4::int2) || int4send(-2)));
:damaged framed(int2send(4::int2) || int4send(2147483647) || 'order'));
:damaged framed(int2send(4::int2) || field('o') || field('e') || field('\x0000')));
:damaged framed(int2send(4::int2) || field('o') || field('e') || field('\x7ffffffffffffffe') || field(numeric_send(1))));
\echo SQLSTATE :SQLSTATE
:damaged framed(int2send(4::int2) || field('o') || field('e') || field(timestamptz_send('2024-03-01 12:07+00')) || field('\x00')));
\echo SQLSTATE :SQLSTATE
:damaged framed(int2send(4::int2) || field('o') || field('e') || field(timestamptz_send('2024-03-01 12:07+00')) || field('\x0001000000000000ffff')));
:damaged framed(int2send(4::int2) || field('o') || field('e') || field(timestamptz_send('2024-03-01 12:07+00')) || field('\x00010000000000002711')));
:damaged framed(int2send(4::int2) || field('o') || field('e') || field(timestamptz_send('2024-03-01 12:07+00')) || field(numeric_send(1) || '\x00')));
-- text that no database can hold
SELECT state_of(framed(as_row(ROW(7, 1, 'o', 'e', '2024-03-01 12:07+00', 1, NULL), false) || int2send(4::int2) || field('a\000b') || '\x0000'));
-- A bad event has its position, as in the other forms of a call.
:damaged framed(as_row(ROW(7, 1, 'o', 'e', '2024-03-01 12:07+00', 1, NULL), false) || as_row(ROW(7, 1, 'o', 'f', '2024-03-01 12:07+00', 'NaN', NULL), false)));
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.seen('s', 'o', 'e');
-- Any byte may be another one: that is an error, or another event.
BEGIN;
SELECT state, count(*) FROM (SELECT state_of(set_byte(rows_of(6), n, get_byte(rows_of(6), n) # b)) AS state
	FROM generate_series(0, octet_length(rows_of(6)) - 1) AS n, unnest('{1,128,255}'::int[]) AS b) AS v
WHERE state NOT IN ('none', '22003', '22008', '22021', '22P03', '22P04') GROUP BY 1;
ROLLBACK;
SELECT revenue_sink.seen('s', 'damaged', '1');
-- Others are refused as by apply().
SELECT revenue_sink.apply_rows('none', framed(''));
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.apply_rows(NULL, framed(''));
BEGIN READ ONLY;
SELECT revenue_sink.apply_rows('s', framed(''));
ROLLBACK;
SELECT revenue_sink.create_sink('t', 'fact_t', 'in_t', mode => 'totals');
SELECT revenue_sink.apply_rows('t', framed(''));
\echo SQLSTATE :SQLSTATE

-- A batch, a savepoint, a rollback.
BEGIN;
SELECT * FROM send(6);
SAVEPOINT one;
SELECT applied, duplicate FROM revenue_sink.apply_rows('s', framed(as_row(ROW(7, 1, 'sub', 'e', '2024-03-01 12:07+00', 1, NULL), false)));
ROLLBACK TO one;
SELECT applied, duplicate FROM revenue_sink.apply_rows('s', framed(as_row(ROW(7, 1, 'sub', 'e', '2024-03-01 12:07+00', 1, NULL), false)));
COMMIT;
SELECT revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 12:07+00' ORDER BY group_key;
SELECT * FROM revenue_sink.check('s');
SELECT revenue_sink.drop_sink(sink) FROM (VALUES ('s'), ('arrays'), ('t')) AS v (sink);
DROP FUNCTION rows_of, framed, as_row, field, send, state_of;
DROP TABLE event;
