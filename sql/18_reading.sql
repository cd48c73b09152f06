--
-- The fact view reads like a table: queries of all kinds find the same rows, and
-- their plans use the indexes.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS revenue_sink;
CREATE EXTENSION IF NOT EXISTS postgres_fdw;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET jit = off;
\set SHOW_CONTEXT never
SELECT revenue_sink.create_sink('events', 'by_events', 'events_in', dedup_window => '1000 days');
SELECT revenue_sink.create_sink('totals', 'by_totals', 'totals_in', mode => 'totals');
SELECT max(id) FILTER (WHERE name = 'events') AS e, max(id) FILTER (WHERE name = 'totals') AS t FROM revenue_sink.sink_catalog \gset

-- The views are compared with these: the rows of all tables, grouped.
CREATE MATERIALIZED VIEW events_truth AS
	SELECT minute, group_key, sum(revenue) AS revenue, sum(events)::bigint AS events
	FROM (SELECT minute, group_key, revenue, events FROM revenue_sink.total_:e UNION ALL TABLE revenue_sink.delta_:e) AS r
	WHERE minute > '-infinity' GROUP BY 1, 2;
CREATE MATERIALIZED VIEW totals_truth AS
	SELECT DISTINCT ON (minute, group_key) minute, group_key, revenue, NULL::bigint AS events
	FROM (SELECT *, max(version) OVER w AS highest,
			rank() OVER (PARTITION BY minute, group_key, version ORDER BY epoch DESC, number DESC, sequence DESC) AS r
		FROM (TABLE revenue_sink.total_:t UNION ALL TABLE revenue_sink.delta_:t) AS every
		WHERE minute > '-infinity' WINDOW w AS (PARTITION BY minute, group_key)) AS ranked
	WHERE (version IS NULL OR version = highest) AND r = 1 ORDER BY minute, group_key, sequence DESC;

-- The table has eight hours of every third minute in four groups.
CREATE TABLE day AS
	SELECT '2024-03-01 04:00+00'::timestamptz + i * interval '1 minute' AS minute, g AS group_key, i
	FROM generate_series(0, 479, 3) AS i, unnest('{a,b,c,""}'::text[]) AS g;
CREATE FUNCTION pay(label text, condition text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	result bigint;
BEGIN
	EXECUTE format('SELECT applied FROM (SELECT array_agg(%L || i || group_key), array_agg(''e''::text), array_agg(minute),
		array_agg(i %% 97 + 0.25), array_agg(group_key) FROM day WHERE %s) AS d (o, e, m, a, g),
		revenue_sink.apply(''events'', o, e, m, a, g)', label, condition) INTO result;
	EXECUTE format('SELECT revenue_sink.upsert(''totals'', m, a, g, CASE WHEN %L < ''d'' THEN length(%1$L) END) FROM (SELECT array_agg(minute),
		array_agg(i %% 89 + ascii(%1$L) + length(%1$L) + 0.5), array_agg(group_key) FROM day WHERE %s) AS d (m, a, g)', label, condition);
	RETURN result;
END $$;

-- Each query runs on a view, and on the rows that the view is compared with; @
-- stands for either.
CREATE TABLE query (q text);
COPY query FROM STDIN;
SELECT * FROM @
SELECT count(*), sum(revenue), sum(events) FROM @
SELECT min(minute), max(minute), max(group_key), min(revenue) FROM @
SELECT * FROM @ ORDER BY minute DESC, group_key DESC LIMIT 7
SELECT * FROM @ ORDER BY minute, group_key LIMIT 7
SELECT * FROM @ ORDER BY minute DESC, group_key DESC OFFSET 300 LIMIT 400
SELECT minute FROM @ ORDER BY minute DESC LIMIT 7
SELECT * FROM @ WHERE minute = '2024-03-01 10:00+00'
SELECT * FROM @ WHERE minute = '2024-03-01 10:00+00' AND group_key = 'b'
SELECT * FROM @ WHERE minute >= '2024-03-01 10:00+00' AND minute < '2024-03-01 12:00+00'
SELECT * FROM @ WHERE group_key = ''
SELECT * FROM @ WHERE revenue > 90
SELECT date_trunc('hour', minute), group_key, sum(revenue), max(events) FROM @ GROUP BY 1, 2
SELECT minute, group_key, sum(revenue) OVER (PARTITION BY group_key ORDER BY minute) FROM @
SELECT d.i, v.revenue FROM day d JOIN @ v USING (minute, group_key) WHERE d.i % 7 = 0
SELECT d.i, v.revenue FROM day d LEFT JOIN @ v ON v.minute = d.minute AND v.group_key = d.group_key AND v.revenue > 50
SELECT m, (SELECT sum(revenue) FROM @ v WHERE v.minute >= m AND v.minute < m + interval '5 minutes') FROM generate_series('2024-03-01 03:00'::timestamptz, '2024-03-01 13:00', '17 minutes') AS m
SELECT a.minute, a.group_key, b.revenue FROM @ a JOIN @ b ON b.minute = a.minute + interval '1 hour' AND b.group_key = a.group_key
SELECT l.* FROM generate_series(0, 23) AS h, LATERAL (SELECT * FROM @ WHERE minute >= '2024-03-01'::timestamptz + h * interval '1 hour' ORDER BY minute, group_key LIMIT 3) AS l
SELECT * FROM @ UNION ALL SELECT * FROM @
SELECT DISTINCT group_key FROM @
\.
CREATE FUNCTION rows_of(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	EXECUTE format('SELECT md5(string_agg(q::text, '','' ORDER BY q::text COLLATE "C")) FROM (%s) AS q', query) INTO result;
	RETURN result;
END $$;
-- This function finds the queries whose rows differ, for several plans.
CREATE FUNCTION differs() RETURNS TABLE (setting text, query text) LANGUAGE plpgsql AS $$
BEGIN
	REFRESH MATERIALIZED VIEW events_truth;
	REFRESH MATERIALIZED VIEW totals_truth;
	ANALYZE;
	CREATE TEMP TABLE truth ON COMMIT DROP AS
		SELECT replace(q, '@', 'by_' || mode) AS q, rows_of(replace(q, '@', mode || '_truth')) AS rows
		FROM query, unnest('{events,totals}'::text[]) AS mode;
	FOREACH setting IN ARRAY '{none,enable_seqscan,parallel}'::text[] LOOP
		IF setting LIKE 'enable%' THEN
			PERFORM set_config(setting, 'off', true);
		ELSIF setting = 'parallel' THEN
			PERFORM set_config('parallel_setup_cost', '0', true), set_config('parallel_tuple_cost', '0', true),
				set_config('min_parallel_table_scan_size', '0', true), set_config('min_parallel_index_scan_size', '0', true);
		END IF;
		RETURN QUERY SELECT setting, t.q FROM truth t WHERE rows_of(t.q) IS DISTINCT FROM t.rows;
	END LOOP;
	DROP TABLE truth;
	RESET enable_seqscan;
	RESET parallel_setup_cost; RESET parallel_tuple_cost; RESET min_parallel_table_scan_size; RESET min_parallel_index_scan_size;
END $$;

SELECT * FROM differs();
SELECT pay('a', 'true');
SELECT * FROM differs();
SELECT revenue_sink.merge('events') > 0 AS merged, revenue_sink.merge('totals') > 0 AS merged;
SELECT * FROM differs();
-- Deltas are in the last minutes, some of which have no total yet; in some
-- groups; in one minute.
SELECT pay('b', 'i > 400'), pay('bb', $$ i > 470 AND group_key = 'a' $$), pay('c', 'i = 477');
INSERT INTO day SELECT '2024-03-02'::timestamptz + i * interval '1 minute', g, 480 + i FROM generate_series(0, 9) AS i, unnest('{a,new}'::text[]) AS g;
SELECT pay('d', 'i >= 475'), pay('e', 'i >= 480');
SELECT * FROM differs();
SELECT revenue_sink.merge('events') > 0 AS merged, revenue_sink.merge('totals') > 0 AS merged;
-- Deltas are spread over the day, with gaps.
SELECT pay('f', 'i % 97 < 5'), pay('ff', $$ i % 31 < 7 AND group_key = '' $$), pay('g', 'i = 300');
SELECT * FROM differs();
-- Every minute and group has deltas.
SELECT sum(pay('h' || i, 'true')) FROM generate_series(1, 4) AS i;
SELECT * FROM differs();

-- A transaction sees its own deltas, too, but not those of a savepoint that was
-- rolled back.
BEGIN;
SELECT pay('i', 'i < 40');
SELECT * FROM differs();
SAVEPOINT s;
SELECT pay('j', 'i < 90');
SELECT * FROM differs();
ROLLBACK TO s;
SELECT * FROM differs();
ROLLBACK;
SELECT * FROM differs();

-- A cursor goes on when the savepoint in which it was first fetched from is
-- rolled back.
BEGIN;
DECLARE c NO SCROLL CURSOR FOR SELECT group_key, events FROM by_events ORDER BY minute DESC, group_key;
SAVEPOINT s;
FETCH 2 FROM c;
ROLLBACK TO s;
FETCH 2 FROM c;
COMMIT;

--
-- The plans: their nodes from the top down, without those of sub-selects
--
CREATE FUNCTION nodes(plan jsonb, depth int) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	child jsonb;
BEGIN
	IF plan->>'Index Cond' ~ '-infinity' THEN
		RETURN;
	END IF;
	IF plan->>'Node Type' NOT IN ('Result', 'Subquery Scan', 'Limit') THEN
		RETURN NEXT repeat('  ', depth) || CASE WHEN plan->>'Parallel Aware' = 'true' THEN 'Parallel ' ELSE '' END
			|| (plan->>'Node Type') || CASE WHEN plan->>'Scan Direction' = 'Backward' THEN ' Backward' ELSE '' END
			|| coalesce(' on ' || regexp_replace(plan->>'Relation Name', '_\d+$', ''), '')
			|| CASE WHEN plan->>'Index Cond' <> '(minute IS NOT NULL)' THEN ' by ' || regexp_replace(plan->>'Index Cond', '::timestamp with time zone|2024-03-01 |:00\+00|::text', '', 'g') ELSE '' END;
		depth := depth + 1;
	END IF;
	FOR child IN SELECT c FROM jsonb_array_elements(plan->'Plans') AS c WHERE c->>'Parent Relationship' <> 'SubPlan'
			AND (c->>'Parent Relationship' <> 'InitPlan' OR plan->>'Node Type' = 'Result') LOOP
		RETURN QUERY SELECT * FROM nodes(child, depth);
	END LOOP;
END $$;
CREATE FUNCTION plan(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	result jsonb;
BEGIN
	EXECUTE 'EXPLAIN (COSTS OFF, FORMAT JSON) ' || query INTO result;
	RETURN QUERY SELECT * FROM nodes(result->0->'Plan', 0);
END $$;
SELECT revenue_sink.merge('events') > 0 AS merged, revenue_sink.merge('totals') > 0 AS merged;
-- There are forty days more, and deltas again.
INSERT INTO revenue_sink.total_:e SELECT minute - n * interval '1 day', group_key, revenue, events
	FROM revenue_sink.total_:e, generate_series(1, 40) AS n WHERE minute < '2024-03-02' AND n < 40;
INSERT INTO revenue_sink.total_:t SELECT minute - n * interval '1 day', group_key, revenue, version, epoch, number, sequence
	FROM revenue_sink.total_:t, generate_series(1, 40) AS n WHERE minute < '2024-03-02' AND n < 40;
SELECT pay('l', 'i > 400');
VACUUM ANALYZE revenue_sink.total_:e; VACUUM ANALYZE revenue_sink.delta_:e; VACUUM ANALYZE revenue_sink.total_:t; VACUUM ANALYZE revenue_sink.delta_:t; ANALYZE day;
SET max_parallel_workers_per_gather = 0;
-- Only one kind of index scan is allowed, so that chance doesn't decide between
-- two, and only nodes that all versions have.
SET enable_bitmapscan = off;
SET enable_memoize = off;
CREATE VIEW of_a_user AS SELECT group_key, minute AS at, revenue * 2 AS twice FROM by_events WHERE revenue > 0;
-- the latest rows
SELECT * FROM plan($$ SELECT * FROM by_events ORDER BY minute DESC LIMIT 5 $$);
SELECT * FROM plan($$ SELECT * FROM by_totals ORDER BY minute DESC LIMIT 5 $$);
-- the first rows
SELECT * FROM plan($$ SELECT * FROM by_events ORDER BY minute LIMIT 5 $$);
SELECT * FROM plan($$ SELECT * FROM by_totals ORDER BY minute LIMIT 5 $$);
-- the latest rows in the order of both columns
SELECT * FROM plan($$ SELECT * FROM by_events ORDER BY minute DESC, group_key DESC LIMIT 5 $$);
SELECT * FROM plan($$ SELECT * FROM by_totals ORDER BY minute DESC, group_key DESC LIMIT 5 $$);
-- the first rows in the order of both columns
SELECT * FROM plan($$ SELECT * FROM by_events ORDER BY minute, group_key LIMIT 5 $$);
SELECT * FROM plan($$ SELECT * FROM by_totals ORDER BY minute, group_key LIMIT 5 $$);
-- the greatest minute
SELECT * FROM plan($$ SELECT max(minute) FROM by_events $$);
SELECT * FROM plan($$ SELECT max(minute) FROM by_totals $$);
-- the least minute
SELECT * FROM plan($$ SELECT min(minute) FROM by_events $$);
SELECT * FROM plan($$ SELECT min(minute) FROM by_totals $$);
-- one row
SELECT * FROM plan($$ SELECT * FROM by_events WHERE minute = '2024-03-01 10:00+00' AND group_key = 'a' $$);
SELECT * FROM plan($$ SELECT * FROM by_totals WHERE minute = '2024-03-01 10:00+00' AND group_key = 'a' $$);
-- one hour
SELECT * FROM plan($$ SELECT sum(revenue) FROM by_events WHERE minute >= '2024-03-01 10:00+00' AND minute < '2024-03-01 11:00+00' $$);
SELECT * FROM plan($$ SELECT sum(revenue) FROM by_totals WHERE minute >= '2024-03-01 10:00+00' AND minute < '2024-03-01 11:00+00' $$);
-- half a day, by hour
SELECT * FROM plan($$ SELECT date_trunc('hour', minute), sum(revenue) FROM by_events WHERE minute >= '2024-03-01 00:00+00' AND minute < '2024-03-01 12:00+00' GROUP BY 1 $$);
SELECT * FROM plan($$ SELECT date_trunc('hour', minute), sum(revenue) FROM by_totals WHERE minute >= '2024-03-01 00:00+00' AND minute < '2024-03-01 12:00+00' GROUP BY 1 $$);
-- all rows
SELECT * FROM plan($$ SELECT count(revenue) FROM by_events $$);
SELECT * FROM plan($$ SELECT count(revenue) FROM by_totals $$);
-- a join on minute
SELECT * FROM plan($$ SELECT d.i, v.revenue FROM (SELECT * FROM day WHERE i = 180 LIMIT 3) AS d JOIN by_events v USING (minute) $$);
SELECT * FROM plan($$ SELECT d.i, v.revenue FROM (SELECT * FROM day WHERE i = 180 LIMIT 3) AS d JOIN by_totals v USING (minute) $$);
-- through a user's view
SELECT * FROM plan($$ SELECT * FROM of_a_user ORDER BY at DESC LIMIT 5 $$);
SELECT * FROM plan($$ SELECT * FROM of_a_user WHERE at = '2024-03-01 10:00+00' AND group_key = 'a' $$);
SELECT * FROM plan($$ SELECT max(at) FROM of_a_user $$);
-- a parallel query
SET max_parallel_workers_per_gather = 2;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SELECT * FROM plan($$ SELECT group_key, sum(revenue) FROM by_events GROUP BY 1 $$);
SELECT * FROM plan($$ SELECT group_key, sum(revenue) FROM by_totals GROUP BY 1 $$);
RESET max_parallel_workers_per_gather;
RESET parallel_setup_cost;
RESET parallel_tuple_cost;
RESET min_parallel_table_scan_size;

-- Through postgres_fdw: conditions and aggregates are sent to the sink's server.
\set ECHO none
SELECT format('CREATE SERVER here FOREIGN DATA WRAPPER postgres_fdw OPTIONS (dbname %L, host %L, port %L)', current_database(),
	split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port')) \gexec
\set ECHO all
CREATE USER MAPPING FOR CURRENT_USER SERVER here;
CREATE FOREIGN TABLE far (minute timestamptz, group_key text COLLATE "C", revenue numeric, events bigint) SERVER here OPTIONS (table_name 'by_events');
CREATE FUNCTION sent(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	line text;
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (COSTS OFF, VERBOSE) ' || query LOOP
		IF line ~ 'Remote SQL' THEN
			RETURN NEXT trim(line);
		END IF;
	END LOOP;
END $$;
SELECT * FROM sent($$ SELECT * FROM far WHERE minute >= '2024-03-01 10:00+00' AND minute < '2024-03-01 10:15+00' AND group_key = 'a' $$);
SELECT * FROM sent($$ SELECT * FROM far ORDER BY minute DESC LIMIT 5 $$);
SELECT (SELECT count(*) FROM far WHERE minute >= '2024-03-01 10:00+00' AND minute < '2024-03-01 10:15+00') AS there,
	(SELECT count(*) FROM by_events WHERE minute >= '2024-03-01 10:00+00' AND minute < '2024-03-01 10:15+00') AS here;
SET client_min_messages = warning;
DROP SERVER here CASCADE;
RESET client_min_messages;

--
-- A stranger can't use the view's functions to read the deltas.
--
CREATE ROLE regress_rsink_reader;
GRANT SELECT ON of_a_user TO regress_rsink_reader;
SET ROLE regress_rsink_reader;
SELECT * FROM of_a_user WHERE at = '2024-03-01 11:57+00' ORDER BY 1;
SELECT * FROM by_events LIMIT 1;
SELECT format('revenue_sink.delta_%s', :e) AS deltas, format('revenue_sink.total_%s', :e) AS totals \gset
\set VERBOSITY sqlstate
SELECT revenue_sink.stands(:'deltas', 'guessed', '2024-03-01 11:57+00', 'a', NULL);
SELECT revenue_sink.stands(:'deltas', NULL, '2024-03-01 11:57+00', 'a', NULL);
SELECT revenue_sink.stands(:'deltas', '', '2024-03-01 11:57+00', 'a', '(0,1)');
SELECT revenue_sink.stands(:'totals', '', '2024-03-01 11:57+00', 'a', NULL);
SELECT revenue_sink.stands('pg_class', '', '2024-03-01 11:57+00', 'a', NULL);
SELECT revenue_sink.stands(0, '', '2024-03-01 11:57+00', 'a', NULL);
SELECT revenue_sink.stands(NULL, '', '2024-03-01 11:57+00', 'a', NULL) IS NULL AS null;
SELECT revenue_sink.revenue_of(:'deltas', '', '2024-03-01 11:57+00', 'a');
SELECT revenue_sink.events_of(:'deltas', 'guessed', '2024-03-01 11:57+00', 'a');
SELECT revenue_sink.winner_of(:'deltas', 'guessed', '2024-03-01 11:57+00', 'a');
SELECT revenue_sink.revenue_of('pg_class', '', '2024-03-01 11:57+00', 'a');
\set VERBOSITY default
RESET ROLE;
-- No view's definition contains the secret.
SELECT length(group_key) > 30 AS long FROM revenue_sink.delta_:e WHERE minute = '-infinity';
SELECT count(*) FROM pg_views, (SELECT group_key AS secret FROM revenue_sink.delta_:e WHERE minute = '-infinity') AS s WHERE strpos(definition, secret) > 0;

DROP VIEW of_a_user;
DROP MATERIALIZED VIEW events_truth, totals_truth;
DROP TABLE day, query;
DROP FUNCTION pay, rows_of, differs, nodes, plan, sent;
SELECT revenue_sink.drop_sink('events'), revenue_sink.drop_sink('totals');
DROP ROLE regress_rsink_reader;
DROP EXTENSION postgres_fdw;
