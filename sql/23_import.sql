--
-- Importing totals and seen events that were counted elsewhere: a set and not an
-- addition, in any order, until the sink has an event of its own.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS revenue_sink;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
\set SHOW_CONTEXT never
SELECT revenue_sink.create_sink('s', dedup_window => '1 hour');

CREATE FUNCTION at(text) RETURNS timestamptz LANGUAGE sql AS $$ SELECT ('2024-03-01 ' || $1 || '+00')::timestamptz $$;
CREATE FUNCTION pay(id text, at text, amount numeric DEFAULT 1, group_key text DEFAULT '') RETURNS text LANGUAGE sql AS $$
	SELECT revenue_sink.apply('s', 'order', id, at(at), amount, group_key) $$;
CREATE FUNCTION remember(ids text[], at text, amount numeric DEFAULT 1) RETURNS text LANGUAGE sql AS $$
	SELECT revenue_sink.import_seen('s', array_fill('order'::text, ARRAY[cardinality(ids)]), ids,
		array_fill(at(at), ARRAY[cardinality(ids)]), array_fill(amount, ARRAY[cardinality(ids)]))::text $$;
PREPARE facts AS SELECT minute, group_key, revenue, events FROM fact_revenue_1m ORDER BY 1, 2;
PREPARE problems AS SELECT problem FROM revenue_sink.check('s');
PREPARE noted AS SELECT imported_events, imported_seen, totals AS uncounted FROM revenue_sink.sink_state
	JOIN revenue_sink.sink_catalog ON id = sink_id WHERE name = 's';

-- Totals are set: a repeated call changes nothing, another one overwrites.
SELECT revenue_sink.import_totals('s', ARRAY[at('10:00'), at('10:01'), at('10:01')], ARRAY[1, 2.50, -3], ARRAY['', '', 'shop'], ARRAY[1, 2, 3]);
EXECUTE facts;
SELECT revenue_sink.import_totals('s', ARRAY[at('10:00'), at('10:01'), at('10:01')], ARRAY[1, 2.50, -3], ARRAY['', '', 'shop'], ARRAY[1, 2, 3]);
SELECT revenue_sink.import_totals('s', ARRAY[at('10:01'), at('10:02')], ARRAY[2.5, 4], NULL, ARRAY[7, 0]);
EXECUTE facts;
EXECUTE noted;
EXECUTE problems;
-- A NULL group_key is the empty one, as for events.
SELECT revenue_sink.import_totals('s', ARRAY[at('10:02')], ARRAY[5], ARRAY[NULL]::text[], ARRAY[1]);
-- Where the number of events is not known, the view shows NULL.
SELECT revenue_sink.import_totals('s', ARRAY[at('10:03')], ARRAY[6]);
SELECT revenue_sink.import_totals('s', ARRAY[at('10:04'), at('10:05')], ARRAY[7, 8], NULL, ARRAY[NULL, 1]::bigint[]);
EXECUTE facts;
EXECUTE noted;
EXECUTE problems;
SELECT revenue_sink.import_totals('s', ARRAY[at('10:04'), at('10:05')], ARRAY[7, 8], NULL, ARRAY[2, NULL]::bigint[]);
EXECUTE noted;
EXECUTE problems;
SELECT revenue_sink.import_totals('s', '{}', '{}'), revenue_sink.import_totals('s', '{}', '{}', '{}', '{}');

-- Nothing is left of a bad call.
SELECT revenue_sink.import_totals('s', ARRAY[at('10:06'), NULL], ARRAY[1, 1]);
SELECT revenue_sink.import_totals('s', ARRAY[at('10:06'), at('10:07')], ARRAY[1, NULL]);
SELECT revenue_sink.import_totals('s', ARRAY[at('10:06'), at('10:07:01')], ARRAY[1, 1]);
SELECT revenue_sink.import_totals('s', ARRAY[at('10:06'), 'infinity'], ARRAY[1, 1]);
SELECT revenue_sink.import_totals('s', ARRAY[at('10:06'), at('10:07')], ARRAY[1, 'NaN']::numeric[]);
SELECT revenue_sink.import_totals('s', ARRAY[at('10:06'), at('10:07')], ARRAY[1, '1e100']::numeric[]);
SELECT revenue_sink.import_totals('s', ARRAY[at('10:06'), at('10:07')], ARRAY[1, 1], ARRAY['', repeat('x', 1025)]);
SELECT revenue_sink.import_totals('s', ARRAY[at('10:06'), at('10:07')], ARRAY[1, 1], NULL, ARRAY[1, -1]);
SELECT revenue_sink.import_totals('s', ARRAY[at('10:06'), at('10:07'), at('10:06')], ARRAY[1, 1, 1], ARRAY['', '', NULL]);
SELECT revenue_sink.import_totals('s', ARRAY[at('10:06')], ARRAY[1, 1]);
SELECT revenue_sink.import_totals('s', ARRAY[at('10:06')], ARRAY[1], NULL, ARRAY[1, 1]);
SELECT revenue_sink.import_totals('s', NULL, ARRAY[1]);
SELECT revenue_sink.import_totals(NULL, ARRAY[at('10:06')], ARRAY[1]);
SELECT revenue_sink.import_totals('none', ARRAY[at('10:06')], ARRAY[1]);
SELECT count(*) FROM fact_revenue_1m WHERE minute >= at('10:06');

-- Seen events are remembered, and not counted: neither in the revenue nor in the
-- counters. They can be imported again, also in other calls.
SELECT remember(ARRAY['a', 'b', 'b'], '10:00');
SELECT remember(ARRAY['a', 'c'], '10:00');
SELECT revenue_sink.seen('s', 'order', 'a'), revenue_sink.seen('s', 'order', 'd');
EXECUTE noted;
EXECUTE problems;
SELECT applied, duplicate, seen_events, watermark, horizon FROM revenue_sink.stat_sink WHERE sink = 's';
-- No imported event becomes a dead letter: one that contradicts what is remembered,
-- one that is bad, or one at or before the horizon.
SELECT remember(ARRAY['a', 'd'], '10:00', 2);
SELECT remember(ARRAY['e', ''], '10:00');
SELECT revenue_sink.alter_sink('s', on_bad_event => 'reject', late_policy => 'apply');
SELECT remember(ARRAY['e', '', NULL], '10:00');
SELECT revenue_sink.import_seen('s', ARRAY['order'], ARRAY['f', 'g'], ARRAY[at('10:00')], ARRAY[1]);
SELECT * FROM revenue_sink.import_seen('s', '{}', '{}', '{}', '{}', '{}');
-- A sink without events of its own has no horizon; one is put here by hand.
BEGIN;
UPDATE revenue_sink.sink_state SET horizon = at('10:00') WHERE sink_id = (SELECT id FROM revenue_sink.sink_catalog WHERE name = 's');
COMMIT;
\c -
SET timezone = 'UTC';
SET datestyle = 'ISO';
\set SHOW_CONTEXT never
SELECT remember(ARRAY['h'], '10:00'), remember(ARRAY['i'], '10:00:00.000001');
SELECT revenue_sink.seen('s', 'order', 'h'), revenue_sink.seen('s', 'order', 'i');
SELECT count(*) FROM revenue_sink.dead_letter;
SELECT revenue_sink.drop_sink('s');
SELECT revenue_sink.create_sink('s', dedup_window => '1 hour');
PREPARE facts AS SELECT minute, group_key, revenue, events FROM fact_revenue_1m ORDER BY 1, 2;
PREPARE problems AS SELECT problem FROM revenue_sink.check('s');
PREPARE noted AS SELECT imported_events, imported_seen, totals AS uncounted FROM revenue_sink.sink_state
	JOIN revenue_sink.sink_catalog ON id = sink_id WHERE name = 's';
PREPARE seen AS SELECT seen_events, watermark, horizon FROM revenue_sink.stat_sink WHERE sink = 's';

-- An event that is not applied is not one of the sink's own: a duplicate, or one
-- that was rolled back.
SELECT remember(ARRAY['a'], '10:00');
SELECT pay('a', '10:00');
BEGIN;
SELECT pay('own', '10:01');
ROLLBACK;
SELECT revenue_sink.import_totals('s', ARRAY[at('10:00'), at('10:01')], ARRAY[1, 5]);
SELECT remember(ARRAY['b'], '10:01', 5);
-- Rolled back, the import leaves nothing, and what it claimed can be counted.
BEGIN;
SAVEPOINT a;
SELECT revenue_sink.import_totals('s', ARRAY[at('10:02')], ARRAY[2], NULL, ARRAY[1]);
SELECT remember(ARRAY['c'], '10:02', 2);
ROLLBACK TO a;
EXECUTE noted;
EXECUTE problems;
SELECT pay('c', '10:02', 2);
-- From the first event on, in the same transaction, nothing can be imported.
SAVEPOINT a;
SELECT remember(ARRAY['d'], '10:02');
ROLLBACK TO a;
SELECT revenue_sink.import_totals('s', ARRAY[at('10:02')], ARRAY[2], NULL, ARRAY[1]);
ROLLBACK;
-- A prepared event is one, and a prepared deferral.
BEGIN;
SELECT pay('c', '10:02', 2);
PREPARE TRANSACTION 'own';
SELECT remember(ARRAY['d'], '10:02');
SELECT revenue_sink.import_totals('s', ARRAY[at('10:02')], ARRAY[2], NULL, ARRAY[1]);
SELECT pay('c', '10:02', 2);
ROLLBACK PREPARED 'own';
SELECT remember(ARRAY['d'], '10:02');
SELECT revenue_sink.drop_sink('s');

-- The imported part and own events add up, before a merge and after it.
SELECT revenue_sink.create_sink('s', dedup_window => '1 hour');
SELECT revenue_sink.import_totals('s', ARRAY[at('10:00'), at('10:01')], ARRAY[10.00, 20], NULL, ARRAY[2, NULL]::bigint[]);
SELECT remember(ARRAY['a', 'b'], '10:00', 5);
SELECT pay('a', '10:00', 5), pay('a', '10:00', 6), pay('c', '10:00', 1), pay('d', '10:01', 1), pay('e', '10:02', 1);
EXECUTE facts;
EXECUTE problems;
SELECT revenue_sink.merge('s');
EXECUTE facts;
EXECUTE problems;
EXECUTE noted;
SELECT remember(ARRAY['z'], '10:00');
SELECT revenue_sink.import_totals('s', ARRAY[at('10:03')], ARRAY[2]);
-- Imported events expire as others do.
SELECT pay('late', '11:00:01');
SELECT revenue_sink.expire('s');
EXECUTE seen;
SELECT pay('a', '10:00', 5), pay('f', '10:00:02', 5);
EXECUTE problems;
-- Even if all own seen events are lost, nothing can be imported.
SELECT pay('new', '12:01');
SELECT revenue_sink.expire('s') > 0 AS expired;
SELECT format('revenue_sink.seen_%s', id) AS seen_table FROM revenue_sink.sink_catalog WHERE name = 's' \gset
BEGIN;
DELETE FROM :seen_table WHERE events > 0;
SELECT remember(ARRAY['z'], '12:00');
ROLLBACK;
EXECUTE problems;
-- What is too old for retain goes, whether it was imported or not.
SELECT revenue_sink.alter_sink('s', retain => '1 hour');
SELECT revenue_sink.expire('s') > 0 AS removed;
EXECUTE facts;
EXECUTE noted;
EXECUTE problems;
SELECT revenue_sink.drop_sink('s');

-- Imported events don't move the watermark, however new they are.
SELECT revenue_sink.create_sink('s', dedup_window => '1 hour');
SELECT remember(ARRAY['a'], '12:00');
SELECT revenue_sink.expire('s');
EXECUTE seen;
SELECT pay('b', '10:00');
SELECT revenue_sink.expire('s');
EXECUTE seen;
SELECT pay('c', '09:00:01'), pay('a', '12:00');
SELECT revenue_sink.drop_sink('s');

-- A batch doesn't count them, and a transaction that has imported can't be prepared.
SET lock_timeout = '10s';
SELECT revenue_sink.create_sink('s', dedup_window => '1 hour');
CALL revenue_sink.open_writer('s', 'job', 'w', epoch => 1);
BEGIN;
SELECT revenue_sink.begin_batch('s', 'job', 'w', 1, 1);
SELECT remember(ARRAY['a'], '12:00');
COMMIT;
SELECT number, events, newest FROM revenue_sink.ledger WHERE job = 'job';
BEGIN;
SELECT remember(ARRAY['b'], '12:00');
PREPARE TRANSACTION 'import';
BEGIN;
SELECT revenue_sink.import_totals('s', ARRAY[at('10:00')], ARRAY[1]);
PREPARE TRANSACTION 'import';
BEGIN READ ONLY;
SELECT remember(ARRAY['b'], '12:00');
ROLLBACK;
BEGIN READ ONLY;
SELECT revenue_sink.import_totals('s', ARRAY[at('10:00')], ARRAY[1]);
ROLLBACK;

-- check() finds what is lost of the import.
SELECT revenue_sink.import_totals('s', ARRAY[at('10:00'), at('10:01')], ARRAY[1, 1], NULL, ARRAY[1, NULL]::bigint[]);
SELECT format('revenue_sink.seen_%s', id) AS seen_table, format('revenue_sink.total_%s', id) AS total_table
FROM revenue_sink.sink_catalog WHERE name = 's' \gset
BEGIN;
DELETE FROM :total_table WHERE minute = at('10:00');
EXECUTE problems;
ROLLBACK;
BEGIN;
DELETE FROM :total_table WHERE minute = at('10:01');
EXECUTE problems;
ROLLBACK;
BEGIN;
DELETE FROM :seen_table WHERE events = 1;
EXECUTE problems;
ROLLBACK;
EXECUTE problems;

-- In mode 'totals' upsert() does it.
SELECT revenue_sink.create_sink('t', 'totals', 'total_in', mode => 'totals');
SELECT revenue_sink.import_totals('t', ARRAY[at('10:00')], ARRAY[1]);
SELECT revenue_sink.import_seen('t', '{}', '{}', '{}', '{}');

-- It is for the owner.
CREATE ROLE import_writer;
GRANT INSERT ON order_events TO import_writer;
GRANT SELECT ON fact_revenue_1m TO import_writer;
SET ROLE import_writer;
SELECT remember(ARRAY['b'], '12:00');
SELECT revenue_sink.import_totals('s', ARRAY[at('10:00')], ARRAY[1]);
RESET ROLE;
ALTER VIEW order_events OWNER TO import_writer;
GRANT USAGE ON SCHEMA public TO import_writer;
SET ROLE import_writer;
SET search_path = public;
SELECT remember(ARRAY['b'], '12:00');
SELECT revenue_sink.import_totals('s', ARRAY[at('10:00')], ARRAY[1]);
RESET ROLE;
RESET search_path;
REVOKE USAGE ON SCHEMA public FROM import_writer;

SELECT revenue_sink.drop_sink('s');
SELECT revenue_sink.drop_sink('t');
DROP FUNCTION at, pay, remember;
DROP ROLE import_writer;
