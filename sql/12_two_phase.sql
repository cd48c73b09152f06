--
-- Two-phase commit: a batch is prepared, stays in doubt, and is finished by its
-- checkpoint.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS revenue_sink;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
\set SHOW_CONTEXT never
-- Nobody waits for a prepared batch: any wait is an error here.
SET lock_timeout = '200ms';
SELECT revenue_sink.create_sink('s', dedup_window => '1000 days');
CREATE FUNCTION batch(writer text, number bigint, job text DEFAULT 'job') RETURNS boolean LANGUAGE sql AS $$
	SELECT revenue_sink.begin_batch('s', job, writer,
		(SELECT max(epoch) FROM revenue_sink.epoch e WHERE e.job = batch.job), number) $$;
CREATE FUNCTION pay(id text, at text DEFAULT '10:01') RETURNS text LANGUAGE sql AS $$
	SELECT revenue_sink.apply('s', 'o', id, ('2024-03-01 ' || at || '+00')::timestamptz, 1) $$;
-- Messages differ from run to run, because a gid has numbers of the database.
CREATE FUNCTION plain(message text) RETURNS text LANGUAGE sql AS $$
	SELECT regexp_replace(message, 'rs:[^"]*', '<gid>', 'g') $$;
PREPARE held AS SELECT job, writer, epoch, number, events, state, age >= '0' AND age < '1 hour' AS aged
	FROM revenue_sink.prepared WHERE sink = 's' ORDER BY job, writer, number;
PREPARE fact AS SELECT minute, revenue, events FROM fact_revenue_1m ORDER BY minute;
CALL revenue_sink.recover('s', 'job', NULL, 1);

--
-- One batch, call by call
--
BEGIN;
SELECT batch('w1', 1), pay('a'), revenue_sink.store_offsets('s', 'log', '{0}', '{10}');
SELECT revenue_sink.pre_commit('s') AS gid \gset
SELECT revenue_sink.pre_commit('s') = :'gid' AS "the same again", revenue_sink.outcome(:'gid');
SELECT :'gid' ~ '^rs:[0-9a-f]{16}:[0-9]+:job:w1:1:1:[0-9]+:[0-9a-f]{16}$' AS form;
PREPARE TRANSACTION :'gid';
-- While the batch is in doubt nobody sees its revenue or its offsets, its events
-- are deferred elsewhere, and its number is taken.
EXECUTE held;
EXECUTE fact;
SELECT * FROM revenue_sink.offsets('s', 'log');
SELECT revenue_sink.seen('s', 'o', 'a'), revenue_sink.outcome(:'gid'), pay('a');
BEGIN;
SELECT batch('w1', 1);
COMMIT;
CALL revenue_sink.commit_prepared(:'gid');
-- The answer is lost and the call comes again, at once and much later.
CALL revenue_sink.commit_prepared(:'gid');
EXECUTE held;
EXECUTE fact;
SELECT * FROM revenue_sink.offsets('s', 'log');
SELECT revenue_sink.outcome(:'gid'), revenue_sink.seen('s', 'o', 'a');
-- The deferred copy is settled as a duplicate.
SELECT revenue_sink.merge('s') > 0 AS merged;
SELECT count(*) FROM revenue_sink.deferred;
EXECUTE fact;
-- A committed batch can't be rolled back any more.
\set VERBOSITY sqlstate
CALL revenue_sink.rollback_prepared(:'gid');
\set VERBOSITY default
SELECT plain(:'LAST_ERROR_MESSAGE');
BEGIN;
SELECT batch('w1', 1);
COMMIT;

--
-- The batch is rolled back
--
BEGIN;
SELECT batch('w1', 2), pay('b');
SELECT revenue_sink.pre_commit('s') AS gid \gset
PREPARE TRANSACTION :'gid';
SELECT pay('b');
CALL revenue_sink.rollback_prepared(:'gid');
CALL revenue_sink.rollback_prepared(:'gid');
SELECT revenue_sink.outcome(:'gid');
\set VERBOSITY sqlstate
CALL revenue_sink.commit_prepared(:'gid');
\set VERBOSITY default
SELECT plain(:'LAST_ERROR_MESSAGE');
-- Now the deferred copy counts; the batch's number can't be begun again in this
-- epoch.
SELECT revenue_sink.merge('s') > 0 AS merged;
EXECUTE fact;
BEGIN;
SELECT batch('w1', 2);
ROLLBACK;
\echo SQLSTATE :LAST_ERROR_SQLSTATE

--
-- A checkpoint has batches of several writers on the same minute and offsets;
-- other batches stay in doubt
--
BEGIN;
SELECT batch('w1', 3), pay('c'), revenue_sink.store_offsets('s', 'log', '{0}', '{30}');
SELECT revenue_sink.pre_commit('s') AS gid1 \gset
PREPARE TRANSACTION :'gid1';
BEGIN;
SELECT batch('w2', 3), pay('d'), pay('c'), revenue_sink.store_offsets('s', 'log', '{0}', '{31}');
SELECT revenue_sink.pre_commit('s') AS gid2 \gset
PREPARE TRANSACTION :'gid2';
BEGIN;
SELECT batch('w1', 4), pay('e'), pay('c'), revenue_sink.store_offsets('s', 'log', '{0}', '{40}');
SELECT revenue_sink.pre_commit('s') AS gid3 \gset
PREPARE TRANSACTION :'gid3';
CALL revenue_sink.recover('s', 'other', NULL, 1);
BEGIN;
SELECT batch('w1', 1, 'other'), pay('f');
SELECT revenue_sink.pre_commit('s') AS gid4 \gset
PREPARE TRANSACTION :'gid4';
EXECUTE held;
CALL revenue_sink.commit_checkpoint('s', 'job', 3, ARRAY[:'gid1', :'gid2']);
CALL revenue_sink.commit_checkpoint('s', 'job', 3, ARRAY[:'gid1', :'gid2']);
EXECUTE held;
EXECUTE fact;
SELECT * FROM revenue_sink.offsets('s', 'log');
-- A batch of the checkpoint is missing: the call is refused, and nothing is
-- changed.
CALL revenue_sink.rollback_prepared(:'gid4');
\set VERBOSITY sqlstate
CALL revenue_sink.commit_checkpoint('s', 'job', 4, ARRAY[:'gid3', :'gid4']);
\set VERBOSITY default
SELECT plain(:'LAST_ERROR_MESSAGE');
CALL revenue_sink.commit_checkpoint('s', 'job', 4, ARRAY[:'gid3', 'somebody''s']);
\echo SQLSTATE :LAST_ERROR_SQLSTATE
CALL revenue_sink.commit_checkpoint('s', 'job', 4, ARRAY[:'gid3', NULL]);
EXECUTE held;
CALL revenue_sink.commit_checkpoint('s', 'job', 4);
SELECT revenue_sink.merge('s') > 0 AS merged;
EXECUTE held;
EXECUTE fact;
SELECT * FROM revenue_sink.offsets('s', 'log');
-- It is no error if there is nothing to do: for the last checkpoint again, for an
-- empty one, for an unknown job.
CALL revenue_sink.commit_checkpoint('s', 'job', 4);
CALL revenue_sink.commit_checkpoint('s', 'job', 99, ARRAY[]::text[]);
CALL revenue_sink.commit_checkpoint('s', 'nobody', 99);

--
-- A decision never reaches a later epoch, nor an earlier one
--
BEGIN;
SELECT batch('w1', 5), pay('g');
SELECT revenue_sink.pre_commit('s') AS old \gset
PREPARE TRANSACTION :'old';
CALL revenue_sink.commit_checkpoint('s', 'job', 10);
CALL revenue_sink.recover('s', 'job', 10, 2);
BEGIN;
SELECT batch('w1', 7), pay('h');
SELECT revenue_sink.pre_commit('s') AS gid \gset
PREPARE TRANSACTION :'gid';
EXECUTE held;
CALL revenue_sink.commit_checkpoint('s', 'job', 6);
EXECUTE held;
CALL revenue_sink.commit_checkpoint('s', 'job', 7);
EXECUTE held;

--
-- Errors
--
SELECT revenue_sink.pre_commit('s');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
BEGIN;
SELECT pay('i');
SELECT revenue_sink.pre_commit('s');
ROLLBACK;
BEGIN;
SELECT batch('w1', 8);
SAVEPOINT a;
-- This is no error: a savepoint may be open.
SELECT revenue_sink.pre_commit('s') AS early \gset
RELEASE a;
SELECT revenue_sink.pre_commit('s') = :'early' AS "the same again";
ROLLBACK;
BEGIN;
SELECT batch('w1', 8), revenue_sink.merge('s') >= 0;
SELECT revenue_sink.pre_commit('s');
ROLLBACK;
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT revenue_sink.pre_commit('no such sink');
SELECT revenue_sink.pre_commit(NULL);
BEGIN;
CALL revenue_sink.commit_prepared(:'gid');
ROLLBACK;
\echo SQLSTATE :LAST_ERROR_SQLSTATE
BEGIN;
CALL revenue_sink.commit_checkpoint('s', 'job', 1);
ROLLBACK;
DO $$ DECLARE c bigint; BEGIN CALL revenue_sink.commit_checkpoint('s', 'job', 1, NULL, c); EXCEPTION WHEN division_by_zero THEN END $$;
\echo SQLSTATE :LAST_ERROR_SQLSTATE
CALL revenue_sink.commit_checkpoint('s', NULL, 1);
CALL revenue_sink.commit_checkpoint('s', 'job', NULL);
CALL revenue_sink.commit_checkpoint('no such sink', 'job', 1);
CALL revenue_sink.commit_prepared(NULL);
CALL revenue_sink.commit_prepared('');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
CALL revenue_sink.rollback_prepared('131075_aGVsbG8=_d29ybGQ=');
SELECT revenue_sink.outcome(''), revenue_sink.outcome('rs:1:2'), revenue_sink.outcome(NULL);
-- A gid that somebody has changed is unknown.
SELECT revenue_sink.outcome(regexp_replace(:'gid', ':w1:', ':w2:')) AS writer,
	revenue_sink.outcome(:'gid' || '0') AS longer,
	revenue_sink.outcome(upper(:'gid')) AS upper,
	revenue_sink.outcome(:'gid') AS untouched;
-- outcome() may be called in a read-only transaction.
BEGIN READ ONLY;
SELECT revenue_sink.outcome(:'gid');
SELECT revenue_sink.pre_commit('s');
ROLLBACK;
\echo SQLSTATE :LAST_ERROR_SQLSTATE

--
-- A batch was never prepared; another one is prepared under a name of the
-- client's own
--
BEGIN;
SELECT batch('w1', 9), pay('j');
SELECT revenue_sink.pre_commit('s') AS gid \gset
ROLLBACK;
SELECT revenue_sink.outcome(:'gid');
BEGIN;
SELECT batch('w1', 9), pay('j');
SELECT revenue_sink.pre_commit('s') AS gid2 \gset
SELECT :'gid' <> :'gid2' AS "another one";
PREPARE TRANSACTION 'a name of my own';
EXECUTE held;
SELECT revenue_sink.outcome(:'gid'), revenue_sink.outcome(:'gid2');
CALL revenue_sink.commit_prepared(:'gid2');
SELECT revenue_sink.outcome(:'gid'), revenue_sink.outcome(:'gid2');
-- Somebody commits a prepared batch by hand.
BEGIN;
SELECT batch('w1', 10), pay('k');
SELECT revenue_sink.pre_commit('s') AS gid \gset
PREPARE TRANSACTION :'gid';
COMMIT PREPARED :'gid';
SELECT revenue_sink.outcome(:'gid');
CALL revenue_sink.commit_prepared(:'gid');
CALL revenue_sink.commit_checkpoint('s', 'job', 10, ARRAY[:'gid']);

--
-- Numbers around a prepared batch: the same number is done, a lower number is
-- refused
--
-- The view is empty while nothing is prepared; these are its columns.
SELECT * FROM revenue_sink.prepared;
CALL revenue_sink.recover('s', 'job', NULL, 3);
BEGIN;
SELECT batch('w1', 5), pay('l', '10:02');
SELECT revenue_sink.pre_commit('s') AS gid5 \gset
PREPARE TRANSACTION :'gid5';
BEGIN;
SELECT batch('w1', 5);
COMMIT;
BEGIN;
SELECT batch('w1', 4);
ROLLBACK;
\echo SQLSTATE :LAST_ERROR_SQLSTATE
-- Each writer has its own numbers. This batch, after its pre_commit(), commits in
-- one phase after all.
BEGIN;
SELECT batch('w2', 0), pay('m', '10:02');
SELECT revenue_sink.pre_commit('s') AS gid0 \gset
COMMIT;
SELECT revenue_sink.outcome(:'gid0');
CALL revenue_sink.commit_prepared(:'gid0');
BEGIN;
SELECT batch('w2', 0);
COMMIT;
-- The checkpoints before the first one have no batches.
CALL revenue_sink.commit_checkpoint('s', 'job', -1);
CALL revenue_sink.commit_checkpoint('s', 'job', 0, ARRAY[:'gid0']);
-- A gid that was collected twice counts once.
CALL revenue_sink.commit_checkpoint('s', 'job', 5, ARRAY[:'gid5', :'gid0', :'gid5']);
EXECUTE held;
-- A batch was rolled back by hand: it is lost to its checkpoint, and the error
-- says so.
BEGIN;
SELECT batch('w1', 6), pay('n', '10:02');
SELECT revenue_sink.pre_commit('s') AS gid6 \gset
PREPARE TRANSACTION :'gid6';
BEGIN;
SELECT batch('w2', 6), pay('o', '10:02');
SELECT revenue_sink.pre_commit('s') AS gid7 \gset
PREPARE TRANSACTION :'gid7';
ROLLBACK PREPARED :'gid6';
\set VERBOSITY sqlstate
CALL revenue_sink.commit_checkpoint('s', 'job', 6, ARRAY[:'gid7', :'gid6']);
\set VERBOSITY default
SELECT plain(:'LAST_ERROR_MESSAGE');
SELECT revenue_sink.outcome(:'gid6') AS gid6, revenue_sink.outcome(:'gid7') AS gid7;
\set VERBOSITY sqlstate
CALL revenue_sink.commit_prepared(:'gid6');
\set VERBOSITY default
SELECT plain(:'LAST_ERROR_MESSAGE');
CALL revenue_sink.rollback_prepared(:'gid6');
CALL revenue_sink.rollback_prepared(:'gid7');

--
-- All doors, savepoints and dead letters: they end with their batch
--
CALL revenue_sink.recover('s', 'job', NULL, 4);
BEGIN;
SELECT batch('w1', 1);
INSERT INTO order_events (order_id, event_id, event_time, amount) VALUES
	('o', 'p', '2024-03-01 10:03+00', 1), ('o', 'a', '2024-03-01 10:01+00', 99);
COPY order_events (order_id, event_id, event_time, amount) FROM STDIN;
o	q	2024-03-01 10:03+00	1
o	p	2024-03-01 10:03+00	1
\.
SAVEPOINT a;
SELECT pay('r', '10:03'), revenue_sink.store_offsets('s', 'log', '{0}', '{98}');
ROLLBACK TO a;
SAVEPOINT b;
SELECT pay('s', '10:03'), revenue_sink.store_offsets('s', 'log', '{0}', '{99}');
RELEASE b;
RELEASE a;
SELECT revenue_sink.pre_commit('s') AS gid \gset
-- Phase one isn't the end: events that come after it belong to the batch, too.
SELECT pay('t', '10:03');
PREPARE TRANSACTION :'gid';
EXECUTE held;
SELECT count(*) FROM revenue_sink.dead_letter;
SELECT * FROM revenue_sink.offsets('s', 'log');
CALL revenue_sink.commit_checkpoint('s', 'job', 1, ARRAY[:'gid']);
SELECT reason, event_id, amount FROM revenue_sink.dead_letter;
SELECT * FROM revenue_sink.offsets('s', 'log');
EXECUTE fact;
BEGIN;
SELECT batch('w1', 2);
INSERT INTO order_events (order_id, event_id, event_time, amount) VALUES
	('o', 'r', '2024-03-01 10:03+00', 1), ('o', 'b', '2024-03-01 10:01+00', 99);
SELECT revenue_sink.pre_commit('s') AS gid \gset
PREPARE TRANSACTION :'gid';
CALL revenue_sink.rollback_prepared(:'gid');
SELECT reason, event_id, amount FROM revenue_sink.dead_letter;
SELECT revenue_sink.seen('s', 'o', 'r');
-- An empty batch is a batch, and so is a batch that was prepared without
-- pre_commit().
BEGIN;
SELECT batch('w1', 3);
SELECT revenue_sink.pre_commit('s') AS gid \gset
PREPARE TRANSACTION :'gid';
BEGIN;
SELECT batch('w2', 3), pay('u', '10:03');
PREPARE TRANSACTION 'without pre_commit';
EXECUTE held;
CALL revenue_sink.commit_checkpoint('s', 'job', 3, ARRAY[:'gid']);
EXECUTE held;
-- One transaction that writes to two sinks is a batch of one of them, and commits
-- to both.
SELECT revenue_sink.create_sink('t', 'fact_t', 'in_t', dedup_window => '1000 days');
BEGIN;
SELECT batch('w1', 4), pay('v', '10:03'), revenue_sink.apply('t', 'o', 'v', '2024-03-01 10:03+00', 1);
SELECT revenue_sink.pre_commit('t');
ROLLBACK;
BEGIN;
SELECT batch('w1', 4), pay('v', '10:03'), revenue_sink.apply('t', 'o', 'v', '2024-03-01 10:03+00', 1);
SELECT revenue_sink.pre_commit('s') AS gid \gset
PREPARE TRANSACTION :'gid';
CALL revenue_sink.recover('t', 'job', NULL, 1);
EXECUTE held;
SELECT revenue_sink.apply('t', 'o', 'v', '2024-03-01 10:03+00', 1);
CALL revenue_sink.commit_checkpoint('s', 'job', 4);
SELECT revenue_sink.merge('t') > 0 AS merged;
SELECT * FROM fact_t;
SELECT revenue_sink.drop_sink('t');
-- A batch that would do harm while it is prepared is refused by pre_commit()
-- already.
BEGIN;
SELECT batch('w1', 5), revenue_sink.expire('s');
SELECT revenue_sink.pre_commit('s');
ROLLBACK;
BEGIN;
SELECT batch('w1', 5), revenue_sink.alter_sink('s', max_future => '1 hour');
SELECT revenue_sink.pre_commit('s');
ROLLBACK;
BEGIN;
SELECT batch('w1', 5), revenue_sink.create_sink('t', 'fact_t', 'in_t');
SELECT revenue_sink.pre_commit('s');
ROLLBACK;

--
-- The calls that finish batches, in a session with other defaults
--
BEGIN;
SELECT batch('w1', 6), pay('w', '10:04');
SELECT revenue_sink.pre_commit('s') AS gid6 \gset
PREPARE TRANSACTION :'gid6';
BEGIN;
SELECT batch('w1', 7), pay('x', '10:04');
SELECT revenue_sink.pre_commit('s') AS gid7 \gset
PREPARE TRANSACTION :'gid7';
BEGIN;
SELECT batch('w1', 8), pay('y', '10:04');
SELECT revenue_sink.pre_commit('s') AS gid8 \gset
PREPARE TRANSACTION :'gid8';
SET default_transaction_isolation = 'serializable';
CALL revenue_sink.commit_prepared(:'gid6');
CALL revenue_sink.commit_checkpoint('s', 'job', 7, ARRAY[:'gid6', :'gid7']);
CALL revenue_sink.recover('s', 'job', 7, 5);
RESET default_transaction_isolation;
SELECT revenue_sink.outcome(:'gid6') AS gid6, revenue_sink.outcome(:'gid7') AS gid7, revenue_sink.outcome(:'gid8') AS gid8;
-- These calls fail in a function, and in a procedure that can't end transactions;
-- they work in other procedures.
CREATE FUNCTION finish_function(gid text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE outcome text;
BEGIN CALL revenue_sink.commit_prepared(gid, outcome); END $$;
CREATE PROCEDURE finish_definer(gid text) LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE outcome text;
BEGIN CALL revenue_sink.commit_prepared(gid, outcome); END $$;
CREATE PROCEDURE finish(gid text) LANGUAGE plpgsql AS $$
DECLARE outcome text; committed bigint;
BEGIN
	CALL revenue_sink.commit_prepared(gid, outcome);
	CALL revenue_sink.commit_checkpoint('s', 'job', 9, ARRAY[gid], committed);
	RAISE NOTICE '%, % more', outcome, committed;
END $$;
BEGIN;
SELECT batch('w1', 8), pay('y', '10:04');
SELECT revenue_sink.pre_commit('s') AS gid8 \gset
PREPARE TRANSACTION :'gid8';
BEGIN;
SELECT batch('w2', 9), pay('z', '10:04');
PREPARE TRANSACTION 'the other';
SELECT finish_function(:'gid8');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
CALL finish_definer(:'gid8');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
EXECUTE held;
CALL finish(:'gid8');
EXECUTE held;
DROP FUNCTION finish_function;
DROP PROCEDURE finish_definer, finish;

--
-- Writers that bring epochs of their own
--
CALL revenue_sink.open_writer('s', 'mine', 'w1', NULL, 5);
CREATE FUNCTION own_batch(writer text, epoch bigint, number bigint, id text) RETURNS text LANGUAGE sql AS $$
	SELECT revenue_sink.begin_batch('s', 'mine', writer, epoch, number);
	SELECT pay(id, '10:05');
	SELECT revenue_sink.pre_commit('s') $$;
BEGIN; SELECT own_batch('w1', 5, 1, 'A') AS a \gset
PREPARE TRANSACTION :'a';
BEGIN; SELECT own_batch('w1', 5, 2, 'B') AS b \gset
PREPARE TRANSACTION :'b';
-- A call with the same epoch does nothing, whichever checkpoint it names; a call
-- with a lower epoch gets an error.
CALL revenue_sink.open_writer('s', 'mine', 'w1', NULL, 5);
CALL revenue_sink.open_writer('s', 'mine', 'w1', 2, 5);
CALL revenue_sink.open_writer('s', 'mine', 'w1', 2, 4);
\echo SQLSTATE :LAST_ERROR_SQLSTATE
-- Another writer has its own epoch, even if that is lower.
CALL revenue_sink.open_writer('s', 'mine', 'w2', NULL, 3);
BEGIN; SELECT own_batch('w2', 3, 1, 'C') AS c \gset
PREPARE TRANSACTION :'c';
EXECUTE held;
CALL revenue_sink.open_writer('s', 'mine', 'w1', 1, 6);
SELECT revenue_sink.outcome(:'a') AS a, revenue_sink.outcome(:'b') AS b, revenue_sink.outcome(:'c') AS c;
-- The decision is on the batches of each writer's current epoch, whichever number
-- that epoch has.
BEGIN; SELECT own_batch('w1', 6, 2, 'B') AS b \gset
PREPARE TRANSACTION :'b';
CALL revenue_sink.commit_checkpoint('s', 'mine', 2, ARRAY[:'a', :'b', :'c']);
-- The epoch of a whole job must lie above those of all its writers.
CALL revenue_sink.recover('s', 'mine', 2, 5);
\echo SQLSTATE :LAST_ERROR_SQLSTATE
CALL revenue_sink.recover('s', 'mine', 2, 7);
SELECT writer, epoch FROM revenue_sink.writer WHERE job = 'mine' ORDER BY writer;
BEGIN;
SELECT revenue_sink.begin_batch('s', 'mine', 'w2', 3, 2);
ROLLBACK;
\echo SQLSTATE :LAST_ERROR_SQLSTATE

--
-- Gids that the checkpoint would not commit: after success each gid is committed,
-- so these are refused,
--
BEGIN; SELECT own_batch('w1', 7, 3, 'D') AS a \gset
PREPARE TRANSACTION :'a';
BEGIN; SELECT own_batch('w2', 7, 4, 'E') AS b \gset
PREPARE TRANSACTION :'b';
\set VERBOSITY sqlstate
-- such as the gid of a batch of a later checkpoint,
CALL revenue_sink.commit_checkpoint('s', 'mine', 3, ARRAY[:'a', :'b']);
SELECT plain(:'LAST_ERROR_MESSAGE');
-- and that of a batch whose writer has been opened anew by someone who hasn't
-- rolled the batch back yet (a row inserted by hand plays this part).
INSERT INTO revenue_sink.epoch (sink_id, job, writer, epoch, opened_at)
	SELECT id, 'mine', 'w2', 8, now() FROM revenue_sink.sink_catalog WHERE name = 's';
SELECT writer, number, state FROM revenue_sink.prepared WHERE job = 'mine' ORDER BY number;
CALL revenue_sink.commit_checkpoint('s', 'mine', 4, ARRAY[:'a', :'b']);
SELECT plain(:'LAST_ERROR_MESSAGE');
\set VERBOSITY default
SELECT writer, number, state FROM revenue_sink.prepared WHERE job = 'mine' ORDER BY number;
CALL revenue_sink.commit_checkpoint('s', 'mine', 4, ARRAY[:'a']);
SELECT revenue_sink.outcome(:'a') AS a, revenue_sink.outcome(:'b') AS b;
CALL revenue_sink.rollback_prepared(:'b');
DROP FUNCTION own_batch;

--
-- Serializable batches that are finished in serializable sessions leave nothing
-- behind
--
CALL revenue_sink.recover('s', 'serializable', NULL, 1);
SET default_transaction_isolation = serializable;
BEGIN; SELECT revenue_sink.begin_batch('s', 'serializable', 'w', 1, 1), revenue_sink.apply('s', 'z', '1', '2024-03-01 10:01:00+00', 1); SELECT revenue_sink.pre_commit('s') AS a \gset
PREPARE TRANSACTION :'a';
CALL revenue_sink.commit_prepared(:'a');
BEGIN; SELECT revenue_sink.begin_batch('s', 'serializable', 'w', 1, 2), revenue_sink.apply('s', 'z', '2', '2024-03-01 10:01:00+00', 1); SELECT revenue_sink.pre_commit('s') AS a \gset
PREPARE TRANSACTION :'a';
CALL revenue_sink.rollback_prepared(:'a');
BEGIN; SELECT revenue_sink.begin_batch('s', 'serializable', 'w', 1, 3), revenue_sink.apply('s', 'z', '3', '2024-03-01 10:01:00+00', 1); SELECT revenue_sink.pre_commit('s') AS a \gset
PREPARE TRANSACTION :'a';
CALL revenue_sink.commit_checkpoint('s', 'serializable', 3, ARRAY[:'a']);
CALL revenue_sink.recover('s', 'serializable', 3, 2);
RESET default_transaction_isolation;
SELECT count(*) FROM pg_locks WHERE mode = 'SIReadLock';

SELECT * FROM revenue_sink.check('s');
SELECT revenue_sink.merge('s') > 0 AS merged;
EXECUTE fact;
SELECT count(*) FROM pg_prepared_xacts;
SELECT revenue_sink.drop_sink('s');
SELECT revenue_sink.outcome(:'gid');
DROP FUNCTION batch, pay, plain;
