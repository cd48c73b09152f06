--
-- Two-phase commit: a batch is prepared, held, and finished by the checkpoint.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS revenue_sink;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
\set SHOW_CONTEXT never
-- Nobody ever waits for what is held: any wait is an error here.
SET lock_timeout = '200ms';
SELECT revenue_sink.create_sink('s', dedup_window => '1000 days');
CREATE FUNCTION batch(writer text, number bigint, job text DEFAULT 'job') RETURNS boolean LANGUAGE sql AS $$
	SELECT revenue_sink.begin_batch('s', job, writer,
		(SELECT max(epoch) FROM revenue_sink.epoch e WHERE e.job = batch.job), number) $$;
CREATE FUNCTION pay(id text, at text DEFAULT '10:01') RETURNS text LANGUAGE sql AS $$
	SELECT revenue_sink.apply('s', 'o', id, ('2024-03-01 ' || at || '+00')::timestamptz, 1) $$;
-- What differs from run to run: a gid holds numbers of the database.
CREATE FUNCTION plain(message text) RETURNS text LANGUAGE sql AS $$
	SELECT regexp_replace(message, 'rs:[^"]*', '<gid>', 'g') $$;
PREPARE held AS SELECT job, writer, epoch, number, events, state, age >= '0' AND age < '1 hour' AS aged
	FROM revenue_sink.prepared WHERE sink = 's' ORDER BY job, writer, number;
PREPARE fact AS SELECT minute, revenue, events FROM fact_revenue_1m ORDER BY minute;
CALL revenue_sink.recover('s', 'job', NULL);

--
-- One batch, call by call
--
BEGIN;
SELECT batch('w1', 1), pay('a'), revenue_sink.store_offsets('s', 'log', '{0}', '{10}');
SELECT revenue_sink.pre_commit('s') AS gid \gset
SELECT revenue_sink.pre_commit('s') = :'gid' AS "the same again", revenue_sink.outcome(:'gid');
SELECT :'gid' ~ '^rs:[0-9]+:[0-9]+:job:w1:1:1:[0-9]+:[0-9a-f]{16}$' AS form;
PREPARE TRANSACTION :'gid';
-- Held: nobody sees its revenue or its offsets, its events are deferred, its number is taken.
EXECUTE held;
EXECUTE fact;
SELECT * FROM revenue_sink.offsets('s', 'log');
SELECT revenue_sink.seen('s', 'o', 'a'), revenue_sink.outcome(:'gid'), pay('a');
BEGIN;
SELECT batch('w1', 1);
COMMIT;
CALL revenue_sink.commit_prepared(:'gid');
-- The answer is lost, the call comes again; and again much later.
CALL revenue_sink.commit_prepared(:'gid');
EXECUTE held;
EXECUTE fact;
SELECT * FROM revenue_sink.offsets('s', 'log');
SELECT revenue_sink.outcome(:'gid'), revenue_sink.seen('s', 'o', 'a');
-- The deferred copy is settled as the duplicate that it is.
SELECT revenue_sink.merge('s') > 0 AS merged;
SELECT count(*) FROM revenue_sink.deferred;
EXECUTE fact;
-- What is committed can't be rolled back any more.
\set VERBOSITY sqlstate
CALL revenue_sink.rollback_prepared(:'gid');
\set VERBOSITY default
SELECT plain(:'LAST_ERROR_MESSAGE');
BEGIN;
SELECT batch('w1', 1);
COMMIT;

--
-- Given up
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
-- Now the copy is the one that counts; the number is used up in this epoch.
SELECT revenue_sink.merge('s') > 0 AS merged;
EXECUTE fact;
BEGIN;
SELECT batch('w1', 2);
ROLLBACK;
\echo SQLSTATE :LAST_ERROR_SQLSTATE

--
-- A checkpoint of several writers on the same minute and offsets, others held
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
CALL revenue_sink.recover('s', 'other', NULL);
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
-- One is missing: refused, and nothing is changed.
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
-- Nothing to do is no error: the last checkpoint, an empty one, an unknown job.
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
CALL revenue_sink.recover('s', 'job', 10);
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
SELECT revenue_sink.pre_commit('s');
ROLLBACK;
\echo SQLSTATE :LAST_ERROR_SQLSTATE
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
-- A gid that somebody has changed is nobody's.
SELECT revenue_sink.outcome(regexp_replace(:'gid', ':w1:', ':w2:')) AS writer,
	revenue_sink.outcome(:'gid' || '0') AS longer,
	revenue_sink.outcome(upper(:'gid')) AS upper,
	revenue_sink.outcome(:'gid') AS untouched;
-- In a read-only transaction one may ask.
BEGIN READ ONLY;
SELECT revenue_sink.outcome(:'gid');
SELECT revenue_sink.pre_commit('s');
ROLLBACK;
\echo SQLSTATE :LAST_ERROR_SQLSTATE

--
-- A batch that was never prepared; one that is prepared under another name
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
-- And one that somebody finishes by hand.
BEGIN;
SELECT batch('w1', 10), pay('k');
SELECT revenue_sink.pre_commit('s') AS gid \gset
PREPARE TRANSACTION :'gid';
COMMIT PREPARED :'gid';
SELECT revenue_sink.outcome(:'gid');
CALL revenue_sink.commit_prepared(:'gid');
CALL revenue_sink.commit_checkpoint('s', 'job', 10, ARRAY[:'gid']);

SELECT * FROM revenue_sink.check('s');
SELECT revenue_sink.merge('s') > 0 AS merged;
EXECUTE fact;
SELECT count(*) FROM pg_prepared_xacts;
SELECT revenue_sink.drop_sink('s');
SELECT revenue_sink.outcome(:'gid');
DROP FUNCTION batch, pay, plain;
