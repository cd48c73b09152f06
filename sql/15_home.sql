--
-- Where a sink is at home: its marks, its arrival rows, and what is missing if a
-- restore has not brought all rows. A home that is taken away by hand plays the
-- part of a restore. There is no worker here.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS revenue_sink;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SELECT setval('revenue_sink.sink_id', 5000);
SELECT revenue_sink.create_sink('s', dedup_window => '1 hour', max_future => '10000 days'),
	revenue_sink.create_sink('t', 'fact_t', 'in_t', mode => 'totals');
-- Sessions don't notice what is done by hand here, unless the catalog itself is
-- altered.
CREATE FUNCTION tell() RETURNS void LANGUAGE sql AS $$
	ALTER TABLE revenue_sink.sink_catalog SET (autovacuum_enabled = on) $$;
CREATE FUNCTION asleep(id int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('ALTER EXTENSION revenue_sink DROP TYPE revenue_sink.home_%s', id);
	EXECUTE format('DROP TYPE revenue_sink.home_%s', id);
	PERFORM tell();
END $$;
CREATE VIEW arrival_rows AS
	SELECT (SELECT count(*) FROM revenue_sink.deferred_event WHERE sink_id < 0) AS deferred,
		(SELECT count(*) FROM revenue_sink.settled_event WHERE sink_id < 0) AS settled,
		(SELECT count(*) FROM revenue_sink.dead_letter_event WHERE sink_id < 0) AS rejected,
		(SELECT count(*) FROM revenue_sink.resolved_event WHERE sink_id < 0) AS resolved,
		(SELECT count(*) FROM revenue_sink.epoch WHERE sink_id < 0) AS epoch,
		(SELECT count(*) FROM revenue_sink.ledger WHERE sink_id < 0) AS batch,
		(SELECT count(*) FROM revenue_sink.committed_offset WHERE sink_id < 0) AS "offset",
		(SELECT count(*) FROM revenue_sink.decision WHERE sink_id < 0) AS decision,
		(SELECT count(*) FROM revenue_sink.sink_state) AS state,
		(SELECT count(*) FROM revenue_sink.seen_5001 WHERE events = 0) AS seen_s,
		(SELECT count(*) FROM revenue_sink.seen_5002 WHERE events = 0) AS seen_t,
		(SELECT count(*) FROM revenue_sink.delta_5001 WHERE minute = '-infinity') AS delta_s,
		(SELECT count(*) FROM revenue_sink.delta_5002 WHERE minute = '-infinity') AS delta_t;

-- Each table has its arrival row, which is no event, no delta and no minute.
SELECT * FROM arrival_rows;
SELECT count(*) FROM fact_revenue_1m;
SELECT count(*) FROM fact_t;
SELECT sink, seen_events, unmerged_deltas FROM revenue_sink.stat_sink ORDER BY sink;
SELECT (SELECT count(*) FROM revenue_sink.deferred) AS deferred, (SELECT count(*) FROM revenue_sink.settled) AS settled,
	(SELECT count(*) FROM revenue_sink.dead_letter) AS rejected, (SELECT count(*) FROM revenue_sink.writer) AS writers,
	(SELECT count(*) FROM revenue_sink.offsets('s')) AS offsets;

-- Merging, expiry and folding leave the arrival rows where they are.
SELECT revenue_sink.apply('s', 'o', 'e' || i, '2024-03-01 10:01+00', 1) FROM generate_series(1, 3) AS i;
SELECT revenue_sink.merge('s');
SELECT revenue_sink.apply('s', 'o', 'late', '2024-03-01 13:01+00', 1);
SELECT revenue_sink.expire('s');
SELECT revenue_sink.merge('s');
SELECT revenue_sink.upsert('t', '{2024-03-01 10:01+00,2024-03-01 10:02+00}', '{1,2}');
SELECT revenue_sink.merge('t');
SELECT revenue_sink.upsert('t', '{2024-03-01 10:02+00,2024-03-01 10:03+00}', '{3,4}');
SELECT revenue_sink.merge('t');
SELECT * FROM arrival_rows;
SELECT sink_id, totals FROM revenue_sink.sink_state ORDER BY sink_id;
SELECT problem FROM revenue_sink.check('s');
SELECT problem FROM revenue_sink.check('t');
SELECT sink, problem FROM revenue_sink.sink ORDER BY sink;

-- The sinks are asleep: nobody writes, and the sink says what is missing. Each
-- time one thing is taken away.
SELECT asleep(5001), asleep(5002);
SELECT sink, problem FROM revenue_sink.sink ORDER BY sink;
BEGIN;
DELETE FROM revenue_sink.ledger WHERE sink_id = -5001;
SELECT problem FROM revenue_sink.sink WHERE sink = 's';
SELECT revenue_sink.apply('s', 'o', 'e', '2024-03-01 13:01+00', 1);
\echo SQLSTATE :SQLSTATE
ROLLBACK;
BEGIN;
DELETE FROM revenue_sink.ledger WHERE sink_id = -5001;
INSERT INTO order_events VALUES ('o', 'e', '2024-03-01 13:01+00', 1);
\echo SQLSTATE :SQLSTATE
ROLLBACK;
BEGIN;
DELETE FROM revenue_sink.ledger WHERE sink_id = -5001;
SELECT * FROM revenue_sink.offsets('s');
\echo SQLSTATE :SQLSTATE
ROLLBACK;
BEGIN;
DELETE FROM revenue_sink.seen_5001 WHERE events = 0;
SELECT problem FROM revenue_sink.sink WHERE sink = 's';
ROLLBACK;
BEGIN;
DELETE FROM revenue_sink.seen_5001 WHERE events > 0;
SELECT problem FROM revenue_sink.sink WHERE sink = 's';
ROLLBACK;
BEGIN;
TRUNCATE revenue_sink.total_5002;
SELECT problem FROM revenue_sink.sink WHERE sink = 't';
ROLLBACK;
BEGIN;
DROP INDEX revenue_sink.seen_5001_newest_idx;
SELECT problem FROM revenue_sink.sink WHERE sink = 's';
ROLLBACK;
BEGIN;
ALTER TABLE revenue_sink.total_5001 DROP CONSTRAINT total_5001_pkey;
SELECT problem FROM revenue_sink.sink WHERE sink = 's';
ROLLBACK;
BEGIN;
ALTER TABLE revenue_sink.filter_5001 RENAME TO filtered;
SELECT problem FROM revenue_sink.sink WHERE sink = 's';
ROLLBACK;
BEGIN;
DROP TRIGGER revenue_sink_fact ON fact_revenue_1m;
SELECT problem FROM revenue_sink.sink WHERE sink = 's';
ROLLBACK;
-- A type that a dump has brought along, and that isn't a member of the extension,
-- is no home.
BEGIN;
CREATE TYPE revenue_sink.home_5001 AS ();
SELECT problem IS NOT NULL AS asleep FROM revenue_sink.sink WHERE sink = 's';
ROLLBACK;

-- Only the owner may call adopt_sink(), which warns of what is missing. The
-- transaction of the call can't be prepared.
CREATE ROLE regress_home;
GRANT SELECT ON fact_revenue_1m TO regress_home;
GRANT INSERT ON order_events TO regress_home;
SET ROLE regress_home;
SELECT revenue_sink.adopt_sink('s');
\echo SQLSTATE :SQLSTATE
SELECT sink FROM revenue_sink.sink;
RESET ROLE;
SELECT revenue_sink.adopt_sink(NULL);
SELECT revenue_sink.adopt_sink('nobody');
\echo SQLSTATE :SQLSTATE
BEGIN;
SELECT revenue_sink.adopt_sink('t');
PREPARE TRANSACTION 'adopted';
\echo SQLSTATE :SQLSTATE
BEGIN READ ONLY;
SELECT revenue_sink.adopt_sink('s');
\echo SQLSTATE :SQLSTATE
ROLLBACK;
SELECT revenue_sink.adopt_sink('s');
SELECT revenue_sink.adopt_sink('t');
SELECT sink, problem FROM revenue_sink.sink ORDER BY sink;
SELECT * FROM arrival_rows;
SELECT revenue_sink.apply('s', 'o', 'late', '2024-03-01 13:01+00', 1);
-- For a sink that is in order, adopt_sink() does nothing.
SELECT revenue_sink.adopt_sink('s');

-- A view belongs to the sink by its marks. A view that has lost its marks
-- doesn't; the extension's owner can have them made anew.
DROP TRIGGER revenue_sink_row ON order_events;
SELECT sink, problem FROM revenue_sink.sink WHERE sink = 's';
SELECT revenue_sink.apply('s', 'o', 'late', '2024-03-01 13:01+00', 1);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.adopt_sink('s');
INSERT INTO order_events VALUES ('o', 'late', '2024-03-01 13:01+00', 1);
SELECT applied, duplicate FROM revenue_sink.stat_sink WHERE sink = 's';
-- If both marks are gone, the view is known by the tables that it reads, provided
-- that its owner may read these. Neither a stranger's view nor another sink's is
-- taken for it.
DROP TRIGGER revenue_sink_row ON order_events;
DROP TRIGGER revenue_sink_statement ON order_events;
GRANT CREATE ON SCHEMA public TO regress_home;
SET ROLE regress_home;
CREATE VIEW like_it AS SELECT newest FROM revenue_sink.seen_5001;
RESET ROLE;
SELECT revenue_sink.adopt_sink('s');
SELECT sink, fact, ingest, problem FROM revenue_sink.sink ORDER BY sink;
CREATE VIEW ours AS SELECT newest FROM revenue_sink.seen_5001;
DROP TRIGGER revenue_sink_row ON order_events;
SELECT revenue_sink.adopt_sink('s');
DROP VIEW ours, like_it;
SELECT revenue_sink.adopt_sink('s');
SELECT sink, fact, ingest, problem FROM revenue_sink.sink ORDER BY sink;
SELECT revenue_sink.relation_of('s', 'fact'), revenue_sink.relation_of('s', 'total'), revenue_sink.relation_of('s', 'x');
-- Only the extension's owner can make the triggers that are the marks.
SET ROLE regress_home;
CREATE VIEW mine AS SELECT 1 AS a;
CREATE TRIGGER mine INSTEAD OF INSERT ON mine FOR EACH ROW EXECUTE FUNCTION revenue_sink.ingest('5001');
\echo SQLSTATE :SQLSTATE
CREATE TRIGGER mine BEFORE INSERT ON mine FOR EACH STATEMENT EXECUTE FUNCTION revenue_sink.refuse_write('5001');
\echo SQLSTATE :SQLSTATE
DROP VIEW mine;
-- Likewise for the trigger that notes which sinks are copies.
CREATE TABLE mine (id bigint, name bigint);
CREATE TRIGGER mine AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION revenue_sink.note_copy();
\echo SQLSTATE :SQLSTATE
RESET ROLE;
CREATE TRIGGER mine AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION revenue_sink.note_copy();
INSERT INTO mine VALUES (1, 1);
\echo SQLSTATE :SQLSTATE
DROP TABLE mine;
-- The fact view takes no INSERT.
INSERT INTO fact_revenue_1m VALUES ('2024-03-01 13:01+00', '', 1, 1);
\echo SQLSTATE :SQLSTATE

-- A new sink skips numbers whose tables are there already.
SELECT setval('revenue_sink.sink_id', 5000);
SELECT revenue_sink.create_sink('u', 'fact_u', 'in_u');
SELECT id FROM revenue_sink.sink_catalog WHERE name = 'u';

DROP VIEW arrival_rows;
-- Nothing is left of sinks that are dropped, not even of a sink that is asleep.
SELECT asleep(5002);
SELECT revenue_sink.drop_sink(sink) FROM unnest('{s,t,u}'::text[]) AS sink;
SELECT count(*) FROM pg_class WHERE relnamespace = 'revenue_sink'::regnamespace AND relname ~ '_5\d+$';
SELECT (SELECT count(*) FROM revenue_sink.epoch) + (SELECT count(*) FROM revenue_sink.sink_state)
	+ (SELECT count(*) FROM revenue_sink.decision) AS rows;
REVOKE CREATE ON SCHEMA public FROM regress_home;
DROP ROLE regress_home;
DROP FUNCTION asleep, tell;
ALTER TABLE revenue_sink.sink_catalog RESET (autovacuum_enabled);
