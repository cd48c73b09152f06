--
-- Mode 'totals': the processor keeps the sums, and sends a sum again when it has
-- changed.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS revenue_sink;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
\set SHOW_CONTEXT never
SELECT revenue_sink.create_sink('t', 'totals', 'total_events', mode => 'totals');
CREATE FUNCTION put(at time, revenue numeric, version bigint DEFAULT NULL, group_key text DEFAULT '') RETURNS bigint LANGUAGE sql AS $$
	SELECT revenue_sink.upsert('t', ARRAY['2024-03-01 00:00:00+00'::timestamptz + at::interval], ARRAY[revenue], ARRAY[group_key], version) $$;
PREPARE fact AS SELECT minute, group_key, revenue, events FROM totals ORDER BY minute, group_key;

-- A total is set twice: the last one counts, and a replay overwrites it.
SELECT revenue_sink.upsert('t', ARRAY['2024-03-01 10:01+00', '2024-03-01 10:02+00']::timestamptz[], ARRAY[40, 7.5]);
SELECT revenue_sink.upsert('t', ARRAY['2024-03-01 10:01+00']::timestamptz[], ARRAY[65]);
EXECUTE fact;
SELECT revenue_sink.upsert('t', ARRAY['2024-03-01 10:01+00', '2024-03-01 10:02+00']::timestamptz[], ARRAY[65, 7.5]);
EXECUTE fact;
SELECT revenue_sink.merge('t');
EXECUTE fact;
SELECT revenue_sink.merge('t');
-- A total is corrected downwards after the merge.
SELECT put('10:01', 64);
EXECUTE fact;
-- A minute comes twice in one call: the last total counts.
SELECT revenue_sink.upsert('t', ARRAY['2024-03-01 10:03+00', '2024-03-01 10:03+00']::timestamptz[], ARRAY[1, 2]);
-- The group key NULL is ''.
SELECT revenue_sink.upsert('t', ARRAY(SELECT '2024-03-01 10:03+00'::timestamptz FROM generate_series(1, 3)), ARRAY[3, 4, 5], ARRAY[NULL, 'EUR', 'eur']);
EXECUTE fact;
SELECT revenue_sink.upsert('t', '{}', '{}');

-- The highest version wins, in whatever order the versions come.
SELECT put('10:04', 100, 5), put('10:04', 90, 4), put('10:04', 80, 3);
SELECT revenue FROM totals WHERE minute = '2024-03-01 10:04+00';
SELECT revenue_sink.merge('t') > 0 AS merged;
SELECT put('10:04', 95, 4);
SELECT revenue FROM totals WHERE minute = '2024-03-01 10:04+00';
SELECT revenue_sink.merge('t') > 0 AS merged;
SELECT revenue FROM totals WHERE minute = '2024-03-01 10:04+00';
SELECT put('10:04', 110, 6);
SELECT revenue FROM totals WHERE minute = '2024-03-01 10:04+00';
-- Of equal versions, the last commit wins.
SELECT put('10:04', 111, 6);
SELECT revenue FROM totals WHERE minute = '2024-03-01 10:04+00';
SELECT revenue_sink.merge('t') > 0 AS merged;
SELECT put('10:04', 112, 6);
SELECT revenue FROM totals WHERE minute = '2024-03-01 10:04+00';
-- Of totals without a version, the last commit wins.
SELECT put('10:04', 113);
SELECT revenue FROM totals WHERE minute = '2024-03-01 10:04+00';
SELECT revenue_sink.merge('t') > 0 AS merged;
SELECT revenue FROM totals WHERE minute = '2024-03-01 10:04+00';
-- After a NULL version, a version older than the highest one still loses, and a
-- higher one wins.
SELECT put('10:04', 1, 5);
SELECT revenue FROM totals WHERE minute = '2024-03-01 10:04+00';
SELECT put('10:04', 120, 7);
SELECT revenue FROM totals WHERE minute = '2024-03-01 10:04+00';
SELECT revenue_sink.merge('t') > 0 AS merged;
SELECT revenue FROM totals WHERE minute = '2024-03-01 10:04+00';
-- Before a merge, too, a version that is committed after a NULL version wins.
SELECT put('10:04', 121);
SELECT put('10:04', 122, 8);
SELECT revenue FROM totals WHERE minute = '2024-03-01 10:04+00';
-- Versions may be at the ends of bigint's range.
SELECT put('10:05', 1, -9223372036854775808), put('10:05', 2, 9223372036854775807), put('10:05', 3, 0), put('10:05', 4, -1);
SELECT revenue FROM totals WHERE minute = '2024-03-01 10:05+00';

-- The last commit wins, not the last call: the total of a prepared transaction
-- counts when the transaction is committed ... and ranks by its PREPARE, which is
-- the last time that the transaction can write.
BEGIN;
SELECT put('10:06', 1);
SAVEPOINT one;
SELECT put('10:06', 2);
ROLLBACK TO one;
COMMIT;
SELECT revenue FROM totals WHERE minute = '2024-03-01 10:06+00';
BEGIN;
SELECT put('10:06', 3);
ROLLBACK;
SELECT revenue FROM totals WHERE minute = '2024-03-01 10:06+00';
BEGIN;
SELECT put('10:06', 4);
SELECT revenue FROM totals WHERE minute = '2024-03-01 10:06+00';
PREPARE TRANSACTION 'totals';
SELECT revenue FROM totals WHERE minute = '2024-03-01 10:06+00';
COMMIT PREPARED 'totals';
SELECT revenue FROM totals WHERE minute = '2024-03-01 10:06+00';

-- In a writer's batches, (epoch, number) takes the place of the version: a total
-- from a former epoch comes too late.
CALL revenue_sink.open_writer('t', 'job', 'w', epoch => 1);
BEGIN;
SELECT revenue_sink.begin_batch('t', 'job', 'w', 1, 2), put('10:07', 20);
COMMIT;
CALL revenue_sink.open_writer('t', 'job', 'w', epoch => 2);
BEGIN;
SELECT revenue_sink.begin_batch('t', 'job', 'w', 2, 1), put('10:07', 21);
COMMIT;
SELECT revenue FROM totals WHERE minute = '2024-03-01 10:07+00';
SELECT revenue_sink.begin_batch('t', 'job', 'w', 1, 3);
SELECT job, writer, epoch, last_number, events FROM revenue_sink.writer WHERE sink = 't';
-- A NULL version from a batch wins over the version before it, and the same version
-- after it wins over that, merged or not.
SELECT put('10:07', 22, 1);
BEGIN;
SELECT revenue_sink.begin_batch('t', 'job', 'w', 2, 2), put('10:07', 23);
COMMIT;
SELECT revenue FROM totals WHERE minute = '2024-03-01 10:07+00';
SELECT revenue_sink.merge('t') > 0 AS merged;
SELECT put('10:07', 24, 1);
SELECT revenue FROM totals WHERE minute = '2024-03-01 10:07+00';

-- INSERT and COPY set totals, too; each row has its own version.
INSERT INTO total_events VALUES ('2024-03-01 10:08+00', '', 1, 2), ('2024-03-01 10:08+00', '', 2, 1), ('2024-03-01 10:08+00', 'EUR', 3, NULL);
INSERT INTO total_events (revenue, minute) VALUES (9, '2024-03-01 10:09+00') RETURNING *;
\set QUIET off
COPY total_events FROM STDIN;
2024-03-01 10:08+00		5	3
2024-03-01 10:08+00	EUR	6	\N
2024-03-01 10:09+00	\N	10	\N
\.
INSERT INTO total_events VALUES ('2024-03-01 10:09+00', NULL, 10, NULL) ON CONFLICT DO NOTHING;
\set QUIET on
SELECT minute, group_key, revenue FROM totals WHERE minute >= '2024-03-01 10:08+00' ORDER BY 1, 2;
SELECT * FROM total_events;

-- The sink's buckets decide which times are valid.
SELECT revenue_sink.create_sink('hours', 'hours', 'hour_events', mode => 'totals', bucket => '1 hour');
SELECT revenue_sink.upsert('hours', ARRAY['2024-03-01 10:00+00']::timestamptz[], ARRAY[1]);
SELECT revenue_sink.upsert('hours', ARRAY['2024-03-01 10:01+00']::timestamptz[], ARRAY[1]);
SELECT * FROM hours;

-- Bad totals are refused, and nothing of their call stays.
SELECT put('10:10:30', 1);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.upsert('t', ARRAY['2024-03-01 10:10+00', NULL]::timestamptz[], ARRAY[1, 1]);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.upsert('t', ARRAY['2024-03-01 10:10+00', 'infinity']::timestamptz[], ARRAY[1, 1]);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.upsert('t', ARRAY['2024-03-01 10:10+00', '2024-03-01 10:10+00']::timestamptz[], ARRAY[1, NULL]);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.upsert('t', ARRAY['2024-03-01 10:10+00', '2024-03-01 10:10+00']::timestamptz[], ARRAY[1, 'NaN']::numeric[]);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.upsert('t', ARRAY['2024-03-01 10:10+00', '2024-03-01 10:10+00']::timestamptz[], ARRAY[1, '-Infinity']::numeric[]);
SELECT revenue_sink.upsert('t', ARRAY['2024-03-01 10:10+00', '2024-03-01 10:10+00']::timestamptz[], ARRAY[1, '1e100']::numeric[]);
SELECT revenue_sink.upsert('t', ARRAY['2024-03-01 10:10+00', '2024-03-01 10:10+00']::timestamptz[], ARRAY[1, 1], ARRAY['', repeat('g', 1025)]);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.upsert('t', NULL, '{1}');
SELECT revenue_sink.upsert('t', '{2024-03-01 10:10+00}', NULL);
SELECT revenue_sink.upsert('t', '{2024-03-01 10:10+00}', '{1,2}');
SELECT revenue_sink.upsert('t', '{2024-03-01 10:10+00}', '{1}', '{a,b}');
SELECT revenue_sink.upsert('t', '{{2024-03-01 10:10+00}}', '{1}');
INSERT INTO total_events VALUES ('2024-03-01 10:10+00', '', 1, 1), ('2024-03-01 10:10:01+00', '', 1, 1);
INSERT INTO total_events (minute) VALUES ('2024-03-01 10:10+00');
COPY total_events FROM STDIN;
2024-03-01 10:10+00		1	1
\N		1	1
\.
SELECT count(*) FROM totals WHERE minute >= '2024-03-01 10:10+00';
-- A merge in a transaction that has called upsert() would rank the totals too
-- early.
BEGIN;
SELECT put('10:10', 1);
SELECT revenue_sink.merge('t');
\echo SQLSTATE :SQLSTATE
ROLLBACK;
-- A sink in mode 'totals' has nothing to expire, and check() finds no problem.
SELECT revenue_sink.expire('t');
SELECT * FROM revenue_sink.check('t');
SELECT applied > 0 AS applied, duplicate, deferred, conflict, late, rejected, batches, seen_events, index_state, index_percent
FROM revenue_sink.stat_sink WHERE sink = 't';
SELECT revenue_sink.merge('t') > 0 AS merged;
EXECUTE fact;
SELECT unmerged_deltas FROM revenue_sink.stat_sink WHERE sink = 't';
SELECT revenue_sink.drop_sink('t');
SELECT revenue_sink.drop_sink('hours');
DROP FUNCTION put;
