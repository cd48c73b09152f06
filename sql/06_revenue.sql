--
-- Revenue is exact to the last digit, merged or not, and queries reach it by
-- index.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS revenue_sink;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SELECT revenue_sink.create_sink('s', dedup_window => '1000 days');
CREATE FUNCTION pay(id text, amount numeric, at text DEFAULT '10:01') RETURNS text LANGUAGE sql AS $$
	SELECT revenue_sink.apply('s', 'o', id, ('2024-03-01 ' || at || '+00')::timestamptz, amount) $$;
PREPARE fact AS SELECT minute, group_key, revenue, events FROM fact_revenue_1m ORDER BY minute, group_key;

-- 0.01 is paid a million times,
INSERT INTO order_events SELECT 'o' || i, 'e', '2024-03-01 10:00+00', 0.01 FROM generate_series(1, 1000000) AS i;
EXECUTE fact;
SELECT revenue_sink.merge('s') > 0 AS merged;
EXECUTE fact;
-- and some of the payments are refunded.
INSERT INTO order_events SELECT 'o' || i, 'refund', '2024-03-01 10:00+00', -0.01 FROM generate_series(1, 100000) AS i;
EXECUTE fact;
SELECT * FROM revenue_sink.check('s');

-- Very small amounts are added to very large ones: in one call, in several calls,
-- and in a merge.
SELECT applied FROM revenue_sink.apply('s', ARRAY['o', 'o', 'o'], ARRAY['a', 'b', 'c'],
	ARRAY(SELECT '2024-03-01 10:01+00'::timestamptz FROM generate_series(1, 3)), ARRAY[1e20, 1e-10, 1]);
SELECT pay('d', 1e20, '10:02'), pay('e', 1e-10, '10:02'), pay('f', 1, '10:02');
SELECT minute, revenue, events FROM fact_revenue_1m WHERE minute > '2024-03-01 10:00+00' ORDER BY minute;
SELECT revenue_sink.merge('s') > 0 AS merged;
SELECT minute, revenue, events FROM fact_revenue_1m WHERE minute > '2024-03-01 10:00+00' ORDER BY minute;
SELECT pay('g', -1e20), pay('h', -1e-10), pay('i', -1);
SELECT revenue FROM fact_revenue_1m WHERE minute = '2024-03-01 10:01+00';

-- The sum of one call equals numeric's own sum(), digit by digit and in scale,
-- for amounts of all sizes.
CREATE TABLE amount AS
	SELECT i, CASE i % 13
		WHEN 0 THEN 0 WHEN 1 THEN 0.00 WHEN 2 THEN 1e-8 WHEN 3 THEN -1e-9 WHEN 4 THEN 99999999999999999999.99999999
		WHEN 5 THEN -100000000000000000000 WHEN 6 THEN 1e40 + i WHEN 7 THEN -1e40 WHEN 8 THEN 1234.5678
		WHEN 9 THEN 9999 WHEN 10 THEN 10000.00010000 WHEN 11 THEN -0.5 ELSE 1e-30 END::numeric * (1 + i % 7) AS amount
	FROM generate_series(1, 5000) AS i;
SELECT applied FROM revenue_sink.apply('s', ARRAY(SELECT i::text FROM amount ORDER BY i), ARRAY(SELECT 'sum' FROM amount),
	ARRAY(SELECT '2024-03-01 10:03+00'::timestamptz FROM amount), ARRAY(SELECT amount FROM amount ORDER BY i),
	ARRAY(SELECT 'group ' || i % 13 FROM amount ORDER BY i));
SELECT applied FROM revenue_sink.apply('s', ARRAY(SELECT i::text FROM amount ORDER BY i), ARRAY(SELECT 'all' FROM amount),
	ARRAY(SELECT '2024-03-01 10:04+00'::timestamptz FROM amount), ARRAY(SELECT amount FROM amount ORDER BY i));
SELECT group_key, revenue, revenue = expected AND scale(revenue) = scale(expected) AS exact
FROM fact_revenue_1m JOIN (SELECT 'group ' || i % 13 AS group_key, sum(amount) AS expected FROM amount GROUP BY 1) AS e USING (group_key)
ORDER BY group_key;
SELECT revenue, revenue = (SELECT sum(amount) FROM amount) AS exact FROM fact_revenue_1m WHERE minute = '2024-03-01 10:04+00';
DROP TABLE amount;
-- The sum has the largest scale of the amounts: 5.0 + 5.00 is 10.00.
SELECT pay('j', 5.0, '10:05'), pay('k', 5.00, '10:05'), pay('l', 0.0000000000000000000000001, '10:06'), pay('m', 1e-300, '10:07');
SELECT minute, revenue FROM fact_revenue_1m WHERE minute BETWEEN '2024-03-01 10:05+00' AND '2024-03-01 10:06+00' ORDER BY 1;
SELECT scale(revenue), revenue = 1e-300 AS exact FROM fact_revenue_1m WHERE minute = '2024-03-01 10:07+00';

-- One call has more groups than are kept in memory.
INSERT INTO order_events SELECT 'o' || i, 'group', '2024-03-02 00:00+00'::timestamptz + i % 1000 * interval '1 minute', 1, 'k' || i % 100000
FROM generate_series(1, 200000) AS i;
SELECT count(*), min(revenue), max(revenue), sum(revenue), sum(events) FROM fact_revenue_1m WHERE minute >= '2024-03-02 00:00+00';
SELECT revenue_sink.merge('s') >= 100000 AS merged;
SELECT count(*), min(revenue), max(revenue), sum(revenue), sum(events) FROM fact_revenue_1m WHERE minute >= '2024-03-02 00:00+00';

-- Readers don't notice a merge, and a second merge finds nothing to do.
SELECT pay('n', 1, '10:08'), pay('o', 2, '10:08');
SELECT unmerged_deltas, last_merge IS NOT NULL AS merged_before FROM revenue_sink.stat_sink WHERE sink = 's';
BEGIN;
SELECT revenue_sink.merge('s');
SELECT revenue FROM fact_revenue_1m WHERE minute = '2024-03-01 10:08+00';
ROLLBACK;
SELECT revenue FROM fact_revenue_1m WHERE minute = '2024-03-01 10:08+00';
SELECT unmerged_deltas FROM revenue_sink.stat_sink WHERE sink = 's';
SELECT revenue_sink.merge('s');
SELECT revenue_sink.merge('s');
SELECT unmerged_deltas FROM revenue_sink.stat_sink WHERE sink = 's';
SELECT pay('p', 4, '10:08');
SELECT revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 10:08+00';

-- A call of arrays has too many groups, too: they are written more than once, and
-- come again in a later call.
SELECT applied FROM revenue_sink.apply('s', ARRAY(SELECT 'o' || i FROM generate_series(1, 140000) AS i), ARRAY(SELECT 'arrays' FROM generate_series(1, 140000)),
	ARRAY(SELECT '2024-03-04 00:00+00'::timestamptz + i % 1000 * interval '1 minute' FROM generate_series(1, 140000) AS i),
	ARRAY(SELECT 0.25 FROM generate_series(1, 140000)), ARRAY(SELECT 'k' || i % 70000 FROM generate_series(1, 140000) AS i));
SELECT count(*), min(revenue), max(revenue), sum(revenue), min(events), max(events), sum(events) FROM fact_revenue_1m WHERE minute >= '2024-03-04 00:00+00';
SELECT revenue_sink.merge('s') >= 70000 AS merged;
SELECT count(*), min(revenue), max(revenue), sum(revenue), min(events), max(events), sum(events) FROM fact_revenue_1m WHERE minute >= '2024-03-04 00:00+00';

-- Groups are told apart by all of their bytes and by their length: these keys
-- have the same first bytes.
CREATE TABLE groups AS
	SELECT row_number() OVER () AS i, repeat('x', n) || last AS key
	FROM unnest('{0,1,7,8,15,16,17,31,32,63,64,255,256,1000}'::int[]) AS n, unnest(ARRAY['', 'a', 'b', 'aa', 'ab', 'é', ' ']) AS last;
SELECT applied FROM revenue_sink.apply('s', ARRAY(SELECT i::text FROM groups ORDER BY i), ARRAY(SELECT 'groups' FROM groups),
	ARRAY(SELECT '2024-03-03 10:01+00'::timestamptz FROM groups), ARRAY(SELECT i FROM groups ORDER BY i)::numeric[], ARRAY(SELECT key FROM groups ORDER BY i));
SELECT count(*) AS groups, count(*) FILTER (WHERE revenue = expected AND events = 1) AS exact
FROM fact_revenue_1m FULL JOIN (SELECT key AS group_key, sum(i) AS expected FROM groups GROUP BY 1) AS e USING (group_key)
WHERE minute = '2024-03-03 10:01+00' OR minute IS NULL;
SELECT revenue_sink.merge('s') >= 98 AS merged;
SELECT count(*) AS groups, count(*) FILTER (WHERE revenue = expected AND events = 1) AS exact
FROM fact_revenue_1m FULL JOIN (SELECT key AS group_key, sum(i) AS expected FROM groups GROUP BY 1) AS e USING (group_key)
WHERE minute = '2024-03-03 10:01+00' OR minute IS NULL;
DROP TABLE groups;

SELECT * FROM revenue_sink.check('s');
SELECT revenue_sink.drop_sink('s');
DROP FUNCTION pay;
