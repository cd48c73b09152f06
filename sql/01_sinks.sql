--
-- Sinks are made, altered and dropped; their names; bad arguments.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS revenue_sink;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';

-- A sink has the default settings. Its number stands in the arguments of its
-- triggers.
SELECT setval('revenue_sink.sink_id', 1000);
SELECT revenue_sink.create_sink('plain');
SELECT sink, owner = current_user AS mine, mode, fact, ingest, bucket, dedup_window, max_future,
	late_policy, on_bad_event
FROM revenue_sink.sink ORDER BY sink;
\d fact_revenue_1m
\d order_events
SELECT obj_description(v::regclass, 'pg_class') FROM unnest('{fact_revenue_1m,order_events}'::text[]) AS v
ORDER BY 1;
-- These are the sink's tables.
SELECT regexp_replace(relname, '_\d+$', '') AS "table", relkind, relreplident, relpersistence
FROM pg_class WHERE relnamespace = 'revenue_sink'::regnamespace AND relname ~ '^(seen|slice|sealed|filter|delta|total)_\d+$'
ORDER BY 1;
-- The new sink is empty.
SELECT * FROM fact_revenue_1m;
SELECT * FROM order_events;
SELECT sink, applied, duplicate, deferred, conflict, late, rejected, batches, horizon, watermark, seen_events,
	seen_bytes_disk, unmerged_deltas, last_merge, stats_since IS NOT NULL AS has_stats_since
FROM revenue_sink.stat_sink;

-- A name may be taken: the name of a sink, or that of a view.
SELECT revenue_sink.create_sink('plain', 'f', 'i');
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.create_sink('other');
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.create_sink('other', 'f');
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.create_sink('other', 'same', 'same');
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.create_sink('other', 'pg_catalog.pg_class', 'i');

-- Names may be odd: they have quotes, spaces, capitals, dots, or a schema of
-- their own.
CREATE SCHEMA "Odd ""schema""";
SELECT revenue_sink.create_sink('it''s "odd"; DROP', '"Odd ""schema""".fact', '"Odd ""schema"""."in;gest"');
SELECT revenue_sink.create_sink('Capital. Dot', '"Fact.View"', 'Mixed_Case');
SELECT revenue_sink.create_sink(repeat('n', 63), 'f63', 'i63');
SELECT sink, fact, ingest FROM revenue_sink.sink ORDER BY sink COLLATE "C";
INSERT INTO "Odd ""schema"""."in;gest" VALUES ('o', 'e', '2024-03-01 10:01:00+00', 1);
INSERT INTO mixed_case VALUES ('o', 'e', '2024-03-01 10:01:00+00', 2);
SELECT revenue_sink.apply(repeat('n', 63), 'o', 'e', '2024-03-01 10:01:00+00', 3);
SELECT revenue FROM "Odd ""schema""".fact;
SELECT revenue FROM "Fact.View";
SELECT revenue FROM f63;
SELECT obj_description('"Fact.View"'::regclass, 'pg_class');
-- A sink's name is taken literally: it is neither folded nor cut off.
SELECT revenue_sink.apply('PLAIN', 'o', 'e', '2024-03-01 10:01:00+00', 3);
SELECT revenue_sink.apply(repeat('n', 64), 'o', 'e', '2024-03-01 10:01:00+00', 3);
-- Views may be renamed and moved: the sink knows its views by their triggers.
ALTER VIEW mixed_case RENAME TO moved;
ALTER VIEW moved SET SCHEMA "Odd ""schema""";
INSERT INTO "Odd ""schema""".moved VALUES ('o', 'e2', '2024-03-01 10:01:30+00', 2);
SELECT revenue FROM "Fact.View";
SELECT ingest FROM revenue_sink.sink WHERE sink = 'Capital. Dot';

-- Views are made in the first schema of the search path.
CREATE SCHEMA mine;
SET search_path = mine, public;
SELECT revenue_sink.create_sink('in_mine');
SET search_path = '';
SELECT revenue_sink.create_sink('in_none');
RESET search_path;
SELECT fact, ingest FROM revenue_sink.sink WHERE sink = 'in_mine';

-- Sinks know nothing of each other: the same event counts once in each.
SELECT revenue_sink.apply(s, 'o', 'same', '2024-03-01 10:02:00+00', 1) FROM unnest('{plain,in_mine}'::text[]) AS s;
SELECT revenue_sink.apply(s, 'o', 'same', '2024-03-01 10:02:00+00', 1) FROM unnest('{plain,in_mine}'::text[]) AS s;

-- Every setting can be given.
SELECT revenue_sink.create_sink('set', fact => 'set_fact', ingest => 'set_ingest', bucket => '15 minutes',
	dedup_window => '2 days 3 hours', max_future => '0', mode => 'events', late_policy => 'apply',
	on_bad_event => 'reject');
SELECT bucket, dedup_window, max_future, mode, late_policy, on_bad_event FROM revenue_sink.sink WHERE sink = 'set';
-- NULL leaves a setting as it is.
SELECT revenue_sink.alter_sink('set');
SELECT bucket, dedup_window, max_future, mode, late_policy, on_bad_event FROM revenue_sink.sink WHERE sink = 'set';
SELECT revenue_sink.alter_sink('set', dedup_window => '1 hour');
SELECT revenue_sink.alter_sink('set', max_future => '1 minute');
SELECT revenue_sink.alter_sink('set', late_policy => 'reject');
SELECT bucket, dedup_window, max_future, mode, late_policy, on_bad_event FROM revenue_sink.sink WHERE sink = 'set';
SELECT revenue_sink.alter_sink('set', '3 hours', '2 minutes', 'apply', 'error');
SELECT bucket, dedup_window, max_future, mode, late_policy, on_bad_event FROM revenue_sink.sink WHERE sink = 'set';
-- A new setting counts at once, in this transaction too, and no longer after a
-- rollback.
BEGIN;
SELECT revenue_sink.alter_sink('set', on_bad_event => 'reject');
SELECT revenue_sink.apply('set', '', 'e', '2024-03-01 10:02:00+00', 1);
ROLLBACK;
SELECT revenue_sink.apply('set', '', 'e', '2024-03-01 10:02:00+00', 1);

-- Bad arguments are refused. No such call leaves anything behind.
SELECT count(*) AS sinks FROM revenue_sink.sink;
SELECT revenue_sink.create_sink(NULL);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.create_sink('', 'f', 'i');
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.create_sink(repeat('n', 64), 'f', 'i');
SELECT revenue_sink.create_sink('bad', NULL, 'i');
SELECT revenue_sink.create_sink('bad', 'f', NULL);
SELECT revenue_sink.create_sink('bad', '', 'i');
SELECT revenue_sink.create_sink('bad', 'f', '"unclosed');
SELECT revenue_sink.create_sink('bad', 'nowhere.f', 'i');
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.create_sink('bad', 'a.b.c.d', 'i');
SELECT revenue_sink.create_sink('bad', 'f', 'i', bucket => NULL);
SELECT revenue_sink.create_sink('bad', 'f', 'i', bucket => '1 month');
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.create_sink('bad', 'f', 'i', bucket => '0');
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.create_sink('bad', 'f', 'i', bucket => '-1 minute');
SELECT revenue_sink.create_sink('bad', 'f', 'i', bucket => '200000000 days');
SELECT revenue_sink.create_sink('bad', 'f', 'i', dedup_window => NULL);
SELECT revenue_sink.create_sink('bad', 'f', 'i', dedup_window => '1 year');
SELECT revenue_sink.create_sink('bad', 'f', 'i', dedup_window => '0');
SELECT revenue_sink.create_sink('bad', 'f', 'i', max_future => NULL);
SELECT revenue_sink.create_sink('bad', 'f', 'i', max_future => '1 month');
SELECT revenue_sink.create_sink('bad', 'f', 'i', max_future => '-1 second');
SELECT revenue_sink.create_sink('bad', 'f', 'i', mode => 'sums');
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.create_sink('bad', 'f', 'i', mode => NULL);
SELECT revenue_sink.create_sink('bad', 'f', 'i', late_policy => 'drop');
SELECT revenue_sink.create_sink('bad', 'f', 'i', late_policy => NULL);
SELECT revenue_sink.create_sink('bad', 'f', 'i', on_bad_event => 'ignore');
SELECT revenue_sink.create_sink('bad', 'f', 'i', on_bad_event => NULL);
SELECT revenue_sink.alter_sink(NULL);
SELECT revenue_sink.alter_sink('nobody');
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.alter_sink('set', dedup_window => '0');
SELECT revenue_sink.alter_sink('set', dedup_window => '1 month');
SELECT revenue_sink.alter_sink('set', max_future => '-1 day');
SELECT revenue_sink.alter_sink('set', late_policy => 'x');
SELECT revenue_sink.alter_sink('set', on_bad_event => 'x');
SELECT revenue_sink.drop_sink(NULL);
SELECT revenue_sink.drop_sink('nobody');
\echo SQLSTATE :SQLSTATE
SELECT count(*) AS sinks FROM revenue_sink.sink;
SELECT bucket, dedup_window, max_future, mode, late_policy, on_bad_event FROM revenue_sink.sink WHERE sink = 'set';
SELECT to_regclass('f') AS f, to_regclass('i') AS i;

-- The views of mode 'totals' have other columns.
SELECT revenue_sink.create_sink('totals', 'totals_fact', 'totals_ingest', mode => 'totals');
\d totals_fact
\d totals_ingest

-- Creating and dropping a sink are transactional.
BEGIN;
SELECT revenue_sink.create_sink('gone', 'gone_fact', 'gone_ingest');
SELECT revenue_sink.apply('gone', 'o', 'e', '2024-03-01 10:01:00+00', 1);
SELECT revenue FROM gone_fact;
ROLLBACK;
SELECT revenue_sink.apply('gone', 'o', 'e', '2024-03-01 10:01:00+00', 1);
BEGIN;
SELECT revenue_sink.drop_sink('plain');
SELECT revenue_sink.apply('plain', 'o', 'same', '2024-03-01 10:02:00+00', 1);
ROLLBACK;
SELECT revenue_sink.apply('plain', 'o', 'same', '2024-03-01 10:02:00+00', 1);
BEGIN;
SELECT revenue_sink.drop_sink('plain');
SELECT revenue_sink.create_sink('plain');
SELECT revenue_sink.apply('plain', 'o', 'same', '2024-03-01 10:02:00+00', 1);
COMMIT;
SELECT revenue_sink.apply('plain', 'o', 'same', '2024-03-01 10:02:00+00', 1);
SELECT minute, revenue FROM fact_revenue_1m;

-- A user's view on top of the fact view keeps the fact view from being dropped.
CREATE VIEW on_top AS SELECT sum(revenue) AS revenue FROM fact_revenue_1m;
\set SHOW_CONTEXT never
SELECT revenue_sink.drop_sink('plain');
\echo SQLSTATE :SQLSTATE
SELECT * FROM on_top;
DROP VIEW on_top;

-- Somebody has dropped a view by hand: the sink says so, and can still be
-- dropped.
DROP VIEW set_fact;
SELECT revenue_sink.apply('set', 'o', 'e', '2024-03-01 10:02:00+00', 1);
\echo SQLSTATE :SQLSTATE
INSERT INTO set_ingest VALUES ('o', 'e', '2024-03-01 10:02:00+00', 1);
SELECT revenue_sink.drop_sink('set');
SELECT to_regclass('set_ingest') AS set_ingest;

-- drop_sink() leaves nothing behind.
CALL revenue_sink.recover('plain', 'job', NULL, 1);
SELECT revenue_sink.store_offsets('plain', 'src', '{0}', '{1}');
SELECT revenue_sink.apply('plain', 'o', 'same', '2024-03-01 10:02:00+00', 2);
BEGIN;
SELECT revenue_sink.apply('plain', 'o', 'held', '2024-03-01 10:02:00+00', 2);
PREPARE TRANSACTION 'held';
SELECT revenue_sink.apply('plain', 'o', 'held', '2024-03-01 10:02:00+00', 2);
COMMIT PREPARED 'held';
SELECT revenue_sink.merge('plain') > 0 AS settled;
SELECT revenue_sink.expire('plain');
SELECT (SELECT count(*) FROM revenue_sink.epoch WHERE sink_id > 0) AS epochs,
	(SELECT count(*) FROM revenue_sink.committed_offset WHERE sink_id > 0) AS offsets,
	(SELECT count(*) FROM revenue_sink.dead_letter_event WHERE sink_id > 0) AS rejected,
	(SELECT count(*) FROM revenue_sink.settled_event WHERE sink_id > 0) AS settled,
	(SELECT count(*) FROM revenue_sink.sink_state) = (SELECT count(*) FROM revenue_sink.sink) AS states;
SELECT revenue_sink.drop_sink(sink) FROM (SELECT sink FROM revenue_sink.sink ORDER BY sink) AS s;
SELECT (SELECT count(*) FROM revenue_sink.epoch) AS epochs, (SELECT count(*) FROM revenue_sink.committed_offset) AS offsets,
	(SELECT count(*) FROM revenue_sink.dead_letter_event) AS rejected, (SELECT count(*) FROM revenue_sink.settled_event) AS settled,
	(SELECT count(*) FROM revenue_sink.sink_state) AS states;
SELECT count(*) AS tables FROM pg_class
WHERE relnamespace = 'revenue_sink'::regnamespace AND relname ~ '^(seen|slice|sealed|filter|delta|total)_\d+$';
SELECT to_regclass('fact_revenue_1m') AS fact, to_regclass('mine.fact_revenue_1m') AS mine;

-- Whatever backslashes mean to a session, the sink that it makes is complete.
SET standard_conforming_strings = off;
SELECT revenue_sink.create_sink('backslash', 'fact_backslash', 'in_backslash');
SELECT revenue_sink.apply('backslash', 'o', 'e', '2024-03-01 10:01:00+00', 1);
RESET standard_conforming_strings;
SELECT revenue_sink.drop_sink('backslash');

-- A sink that has lost a view keeps nobody from looking at the other sinks. Only
-- the extension's owner sees the damaged sink.
SELECT revenue_sink.create_sink('half', 'fact_half', 'in_half'), revenue_sink.create_sink('whole', 'fact_whole', 'in_whole');
DROP VIEW fact_half;
SELECT sink, problem FROM revenue_sink.sink WHERE sink IN ('half', 'whole') ORDER BY sink;
SELECT sink FROM revenue_sink.stat_sink WHERE sink IN ('half', 'whole');
SELECT (SELECT count(*) FROM revenue_sink.prepared) AS prepared, (SELECT count(*) FROM revenue_sink.writer) AS writers,
	(SELECT count(*) FROM revenue_sink.deferred) AS deferred, (SELECT count(*) FROM revenue_sink.dead_letter) AS rejected,
	(SELECT count(*) FROM revenue_sink.settled) AS settled;
SELECT revenue_sink.apply('half', 'o', 'e', '2024-03-01 10:01:00+00', 1);
SELECT revenue_sink.drop_sink('half'), revenue_sink.drop_sink('whole');

-- DROP EXTENSION removes all that belongs to the extension; after CREATE
-- EXTENSION everything is as new.
SELECT revenue_sink.create_sink('last');
INSERT INTO order_events VALUES ('o', 'e', '2024-03-01 10:01:00+00', 1);
\set VERBOSITY terse
DROP EXTENSION revenue_sink;
DROP EXTENSION revenue_sink CASCADE;
\set VERBOSITY default
SELECT to_regclass('fact_revenue_1m') AS fact, to_regclass('order_events') AS ingest,
	to_regnamespace('revenue_sink') AS schema;
CREATE EXTENSION revenue_sink;
SELECT count(*) FROM revenue_sink.sink;
SELECT revenue_sink.create_sink('last');
SELECT revenue_sink.apply('last', 'o', 'e', '2024-03-01 10:01:00+00', 5);
SELECT minute, revenue, events FROM fact_revenue_1m;
SELECT * FROM revenue_sink.check('last');
SELECT revenue_sink.drop_sink('last');

DROP SCHEMA mine;
DROP SCHEMA "Odd ""schema""";
