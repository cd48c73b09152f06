--
-- Two-phase commit at its limits: odd names, other databases, other people, other
-- drivers' transactions, mode 'totals'.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS revenue_sink;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
\set SHOW_CONTEXT never
SET lock_timeout = '200ms';
SELECT revenue_sink.create_sink('s', dedup_window => '1000 days');
CREATE FUNCTION begin_and_pay(sink text, job text, writer text, epoch bigint, number bigint, id text) RETURNS text
	LANGUAGE sql AS $$
	SELECT revenue_sink.begin_batch(sink, job, writer, epoch, number);
	SELECT revenue_sink.apply(sink, 'o', id, '2024-03-01 10:01+00', 1);
	SELECT revenue_sink.pre_commit(sink) $$;
CREATE FUNCTION plain(message text) RETURNS text LANGUAGE sql AS $$
	SELECT regexp_replace(message, 'rs:[^"]*', '<gid>', 'g') $$;
PREPARE held AS SELECT sink, job, writer, epoch, number, state FROM revenue_sink.prepared
	ORDER BY sink, job, writer, epoch, number;

--
-- Names that can't stand in a gid as they are: the gid stays short, and names the
-- batch all the same
--
\set job 'job "x": ''1'' \\ ü €'
CALL revenue_sink.recover('s', :'job', NULL, 1);
BEGIN; SELECT begin_and_pay('s', :'job', 'w:1', 1, 1, '1') AS a \gset
PREPARE TRANSACTION :'a';
BEGIN; SELECT begin_and_pay('s', :'job', repeat('€', 300), 1, 1, '2') AS b \gset
PREPARE TRANSACTION :'b';
BEGIN; SELECT begin_and_pay('s', :'job', repeat('€', 299) || '$', 1, 1, '3') AS c \gset
PREPARE TRANSACTION :'c';
BEGIN; SELECT begin_and_pay('s', :'job', E'w\n''1'';DROP TABLE x --', 1, 1, '4') AS d \gset
PREPARE TRANSACTION :'d';
BEGIN; SELECT begin_and_pay('s', :'job', 'w-', 1, 9223372036854775807, '5') AS e \gset
PREPARE TRANSACTION :'e';
BEGIN; SELECT begin_and_pay('s', :'job', '', 1, 1, '6') AS f \gset
PREPARE TRANSACTION :'f';
SELECT count(DISTINCT gid) AS gids, max(octet_length(gid)) < 200 AS short, bool_and(gid ~ '^[ -~]+$') AS plain
FROM revenue_sink.prepared;
SELECT left(writer, 12) AS writer, number, state FROM revenue_sink.prepared ORDER BY writer, gid;
CALL revenue_sink.commit_checkpoint('s', :'job', 1, ARRAY[:'a', :'b', :'c', :'d', :'f']);
SELECT revenue_sink.outcome(:'a') AS a, revenue_sink.outcome(:'b') AS b, revenue_sink.outcome(:'c') AS c,
	revenue_sink.outcome(:'d') AS d, revenue_sink.outcome(:'e') AS e, revenue_sink.outcome(:'f') AS f;
CALL revenue_sink.recover('s', :'job', 1, 2);
SELECT revenue_sink.outcome(:'e');
SELECT revenue, events FROM fact_revenue_1m;

-- Names of a kilobyte that no compression shortens, and names that are too long
SELECT string_agg(md5(i::text), '') AS long FROM generate_series(1, 32) AS i \gset
CALL revenue_sink.recover('s', :'long', NULL, 1);
BEGIN; SELECT begin_and_pay('s', :'long', :'long', 1, 1, '7') AS a \gset
PREPARE TRANSACTION :'a';
CALL revenue_sink.commit_checkpoint('s', :'long', 1, ARRAY[:'a']);
BEGIN; SELECT begin_and_pay('s', :'long', :'long', 1, 2, '8') AS b \gset
PREPARE TRANSACTION :'b';
CALL revenue_sink.open_writer('s', :'long', :'long', 1, 2);
SELECT revenue_sink.outcome(:'a') AS a, revenue_sink.outcome(:'b') AS b;
CALL revenue_sink.recover('s', :'long' || '1', NULL);
\echo SQLSTATE :LAST_ERROR_SQLSTATE
CALL revenue_sink.open_writer('s', 'j', :'long' || '1');
SELECT revenue_sink.begin_batch('s', :'long' || '1', 'w', 1, 1);
SELECT revenue_sink.store_offsets('s', :'long' || '1', ARRAY[1], ARRAY[1]);

-- A batch that is decided on and not yet finished must not be skipped. (The
-- decision is a row inserted by hand: it plays the part of a call that died.)
CALL revenue_sink.recover('s', 'decided', NULL, 1);
BEGIN; SELECT begin_and_pay('s', 'decided', 'w', 1, 1, '9') AS a \gset
PREPARE TRANSACTION :'a';
SELECT revenue_sink.begin_batch('s', 'decided', 'w', 1, 1);
INSERT INTO revenue_sink.decision
	SELECT s.id, 'decided', 'w', 1, 1, x.transaction, false, now()
	FROM revenue_sink.sink_catalog s, pg_prepared_xacts x WHERE s.name = 's' AND x.gid = :'a';
SELECT state FROM revenue_sink.prepared WHERE job = 'decided';
SELECT revenue_sink.begin_batch('s', 'decided', 'w', 1, 1);
-- The decision is on that transaction: another transaction of the same number
-- isn't touched by it.
UPDATE revenue_sink.decision SET xid = (xid::text::bigint + 1)::text::xid WHERE job = 'decided';
SELECT state FROM revenue_sink.prepared WHERE job = 'decided';
CALL revenue_sink.rollback_prepared(:'a');

--
-- A sink whose name needs quotes
--
SELECT revenue_sink.create_sink('My "sink"', '"Fact"', '"In"', dedup_window => '1000 days');
CALL revenue_sink.recover('My "sink"', 'j', NULL, 1);
BEGIN; SELECT begin_and_pay('My "sink"', 'j', 'w', 1, 1, '1') AS a \gset
PREPARE TRANSACTION :'a';
EXECUTE held;
CALL revenue_sink.commit_checkpoint('My "sink"', 'j', 1, ARRAY[:'a']);
SELECT revenue, events FROM "Fact";
-- A checkpoint belongs to one sink: its gids don't count for another sink.
CALL revenue_sink.recover('s', 'j', NULL, 1);
\set VERBOSITY sqlstate
CALL revenue_sink.commit_checkpoint('s', 'j', 1, ARRAY[:'a']);
\set VERBOSITY default
SELECT plain(:'LAST_ERROR_MESSAGE');
SELECT revenue_sink.drop_sink('My "sink"');

--
-- A sink of the same name in another database of the cluster
--
BEGIN; SELECT begin_and_pay('s', 'j', 'w', 1, 1, '7') AS a \gset
PREPARE TRANSACTION :'a';
SELECT current_database() AS here \gset
CREATE DATABASE two_phase_other;
\c two_phase_other
SET client_min_messages = warning;
CREATE EXTENSION revenue_sink;
RESET client_min_messages;
\set SHOW_CONTEXT never
SELECT revenue_sink.create_sink('s', dedup_window => '1000 days');
CALL revenue_sink.recover('s', 'j', 1, 1);
SELECT count(*) FROM revenue_sink.prepared;
SELECT revenue_sink.outcome(:'a');
\set VERBOSITY sqlstate
CALL revenue_sink.commit_prepared(:'a');
CALL revenue_sink.rollback_prepared(:'a');
CALL revenue_sink.commit_checkpoint('s', 'j', 1, ARRAY[:'a']);
\set VERBOSITY default
CALL revenue_sink.commit_checkpoint('s', 'j', 1);
\c :here
SET timezone = 'UTC';
SET datestyle = 'ISO';
\set SHOW_CONTEXT never
DROP DATABASE two_phase_other;
PREPARE held AS SELECT sink, job, writer, epoch, number, state FROM revenue_sink.prepared
	ORDER BY sink, job, writer, epoch, number;
EXECUTE held;
CALL revenue_sink.commit_prepared(:'a');

--
-- Another transaction manager, such as JDBC's XA, prepares plain INSERTs
--
BEGIN;
INSERT INTO order_events (order_id, event_id, event_time, amount) VALUES
	('o', '8', '2024-03-01 10:01+00', 1), ('o', '7', '2024-03-01 10:01+00', 1);
PREPARE TRANSACTION '131075_aGVsbG8=_d29ybGQ=';
BEGIN;
INSERT INTO order_events (order_id, event_id, event_time, amount) VALUES
	('o', '8', '2024-03-01 10:01+00', 1), ('o', '9', '2024-03-01 10:01+00', 1);
PREPARE TRANSACTION '131075_aGVsbG8=_d29ybGQ+';
-- The extension neither shows nor finishes these transactions.
EXECUTE held;
CALL revenue_sink.recover('s', 'j', NULL, 2);
CALL revenue_sink.commit_prepared('131075_aGVsbG8=_d29ybGQ=');
SELECT revenue_sink.outcome('131075_aGVsbG8=_d29ybGQ=');
SELECT count(*) FROM pg_prepared_xacts;
-- The first transaction rolls back, and the deferred copy of the second one
-- counts.
ROLLBACK PREPARED '131075_aGVsbG8=_d29ybGQ=';
COMMIT PREPARED '131075_aGVsbG8=_d29ybGQ+';
SELECT revenue_sink.merge('s') > 0 AS merged;
SELECT revenue, events FROM fact_revenue_1m;

--
-- Mode 'totals'
--
SELECT revenue_sink.create_sink('t', 'fact_t', 'in_t', mode => 'totals');
CALL revenue_sink.recover('t', 'j', NULL, 1);
CREATE FUNCTION begin_and_total(writer text, epoch bigint, number bigint, revenue numeric) RETURNS text
	LANGUAGE sql AS $$
	SELECT revenue_sink.begin_batch('t', 'j', writer, epoch, number);
	SELECT revenue_sink.upsert('t', ARRAY['2024-03-01 10:01+00'::timestamptz], ARRAY[revenue]);
	SELECT revenue_sink.pre_commit('t') $$;
BEGIN; SELECT begin_and_total('w', 1, 1, 10) AS a \gset
PREPARE TRANSACTION :'a';
BEGIN; SELECT begin_and_total('w', 1, 2, 20) AS b \gset
PREPARE TRANSACTION :'b';
BEGIN; SELECT begin_and_total('w', 1, 3, 30) AS c \gset
PREPARE TRANSACTION :'c';
EXECUTE held;
SELECT * FROM fact_t;
-- Whatever the order of the commits, the total of the later batch wins.
CALL revenue_sink.commit_prepared(:'b');
SELECT minute, revenue FROM fact_t;
CALL revenue_sink.commit_prepared(:'a');
SELECT minute, revenue FROM fact_t;
CALL revenue_sink.recover('t', 'j', 2, 2);
EXECUTE held;
SELECT minute, revenue FROM fact_t;
SELECT revenue_sink.merge('t') >= 0 AS merged;
SELECT minute, revenue FROM fact_t;
SELECT revenue_sink.drop_sink('t');

--
-- Rights: whoever may apply may prepare, the sink's owner may finish, and nobody
-- else may
--
CREATE ROLE two_phase_owner;
CREATE ROLE two_phase_writer;
CREATE ROLE two_phase_reader;
CREATE ROLE two_phase_other;
CREATE SCHEMA two_phase AUTHORIZATION two_phase_owner;
GRANT CREATE ON SCHEMA two_phase TO two_phase_owner;
GRANT EXECUTE ON FUNCTION revenue_sink.create_sink TO two_phase_owner;
SET ROLE two_phase_owner;
SELECT revenue_sink.create_sink('mine', 'two_phase.fact', 'two_phase.events', dedup_window => '1000 days');
GRANT USAGE ON SCHEMA two_phase TO PUBLIC;
GRANT INSERT ON two_phase.events TO two_phase_writer;
GRANT SELECT ON two_phase.fact TO two_phase_reader;
CALL revenue_sink.recover('mine', 'j', NULL, 1);
-- The owner, who may apply, does all of this without being a superuser.
BEGIN; SELECT begin_and_pay('mine', 'j', 'w', 1, 1, '1') AS a \gset
PREPARE TRANSACTION :'a';
CALL revenue_sink.commit_prepared(:'a');
BEGIN; SELECT begin_and_pay('mine', 'j', 'w', 1, 2, '2') AS a \gset
PREPARE TRANSACTION :'a';
CALL revenue_sink.rollback_prepared(:'a');
-- A writer that starts anew can't roll back what the owner has prepared.
BEGIN; SELECT begin_and_pay('mine', 'j', 'w', 1, 2147483648, '2147483648') AS held \gset
PREPARE TRANSACTION :'held';
SET ROLE two_phase_writer;
\set VERBOSITY sqlstate
CALL revenue_sink.recover('mine', 'j', NULL);
CALL revenue_sink.open_writer('mine', 'j', 'w');
\set VERBOSITY default
SELECT revenue_sink.outcome(:'held');
SET ROLE two_phase_owner;
CALL revenue_sink.rollback_prepared(:'held');
-- The writer prepares a batch, but can't finish it with the extension's calls,
-- though it is its own.
SET ROLE two_phase_writer;
BEGIN; SELECT begin_and_pay('mine', 'j', 'w', 1, 3, '3') AS a \gset
PREPARE TRANSACTION :'a';
\set VERBOSITY terse
CALL revenue_sink.commit_prepared(:'a');
CALL revenue_sink.rollback_prepared(:'a');
CALL revenue_sink.commit_checkpoint('mine', 'j', 3);
CALL revenue_sink.recover('mine', 'j', 3);
CALL revenue_sink.open_writer('mine', 'j', 'w', 3);
-- A writer may fence off its own predecessor, and may ask for an outcome.
SELECT revenue_sink.outcome(:'a');
SET ROLE two_phase_reader;
SELECT revenue_sink.outcome(:'a');
SELECT revenue_sink.pre_commit('mine');
CALL revenue_sink.commit_prepared(:'a');
CALL revenue_sink.open_writer('mine', 'j', 'w');
SET ROLE two_phase_other;
SELECT revenue_sink.outcome(:'a');
CALL revenue_sink.rollback_prepared(:'a');
CALL revenue_sink.commit_checkpoint('mine', 'j', 3);
CALL revenue_sink.recover('mine', 'j', NULL);
SELECT count(*) FROM revenue_sink.prepared;
SELECT * FROM revenue_sink.prepared_batches('mine');
-- Nor may a role change the tables by hand.
DELETE FROM revenue_sink.decision;
INSERT INTO revenue_sink.decision SELECT FROM revenue_sink.decision;
UPDATE revenue_sink.ledger SET number = 1;
-- The owner finishes the batches that others have prepared.
SET ROLE two_phase_owner;
DELETE FROM revenue_sink.ledger;
SELECT job, writer, number, state FROM revenue_sink.prepared;
CALL revenue_sink.commit_checkpoint('mine', 'j', 3, ARRAY[:'a']);
SELECT revenue, events FROM two_phase.fact;
SELECT revenue_sink.drop_sink('mine');
RESET ROLE;
\set VERBOSITY default
DROP SCHEMA two_phase;
DROP OWNED BY two_phase_owner, two_phase_writer, two_phase_reader, two_phase_other;
DROP ROLE two_phase_owner, two_phase_writer, two_phase_reader, two_phase_other;
SELECT * FROM revenue_sink.check('s');
SELECT count(*) FROM pg_prepared_xacts;
SELECT revenue_sink.drop_sink('s');
DROP FUNCTION begin_and_pay, begin_and_total, plain;
