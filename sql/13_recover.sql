--
-- Recovery: a job restarts from a checkpoint; the batches that it had prepared
-- are committed up to that checkpoint, and rolled back after it.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS revenue_sink;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
\set SHOW_CONTEXT never
SET lock_timeout = '200ms';
SELECT revenue_sink.create_sink('s', dedup_window => '1000 days');
-- This function makes a writer's batch of one event in a given epoch, up to its
-- pre_commit().
CREATE FUNCTION begin_and_pay(job text, writer text, epoch bigint, number bigint) RETURNS text LANGUAGE sql AS $$
	SELECT revenue_sink.begin_batch('s', job, writer, epoch, number);
	SELECT revenue_sink.apply('s', job || ' ' || writer, format('%s/%s', epoch, number),
		('2024-03-01 10:' || 10 + (number - 1) % 50 || '+00')::timestamptz, 1);
	SELECT revenue_sink.pre_commit('s') $$;
PREPARE held AS SELECT job, writer, epoch, number, state FROM revenue_sink.prepared WHERE sink = 's'
	ORDER BY job, writer, epoch, number;
PREPARE fact AS SELECT minute, revenue, events FROM fact_revenue_1m ORDER BY minute;
PREPARE epochs AS SELECT job, writer, epoch FROM revenue_sink.writer WHERE sink = 's' ORDER BY job, writer;

--
-- The checkpoint is older than some of the prepared batches, and newer than
-- others
--
CALL revenue_sink.recover('s', 'j', NULL, 1);
BEGIN; SELECT begin_and_pay('j', 'w1', 1, 1) AS w11 \gset
PREPARE TRANSACTION :'w11';
BEGIN; SELECT begin_and_pay('j', 'w1', 1, 2) AS w12 \gset
PREPARE TRANSACTION :'w12';
BEGIN; SELECT begin_and_pay('j', 'w1', 1, 3) AS w13 \gset
PREPARE TRANSACTION :'w13';
BEGIN; SELECT begin_and_pay('j', 'w2', 1, 2) AS w22 \gset
PREPARE TRANSACTION :'w22';
-- Another job writes to the same sink, and isn't affected.
CALL revenue_sink.recover('s', 'k', NULL, 1);
BEGIN; SELECT begin_and_pay('k', 'w1', 1, 1) AS k11 \gset
PREPARE TRANSACTION :'k11';
EXECUTE held;
CALL revenue_sink.recover('s', 'j', 2, 2);
EXECUTE held;
EXECUTE fact;
SELECT revenue_sink.outcome(:'w11') AS w11, revenue_sink.outcome(:'w12') AS w12, revenue_sink.outcome(:'w22') AS w22,
	revenue_sink.outcome(:'w13') AS w13, revenue_sink.outcome(:'k11') AS k11;
-- The number that was rolled back is begun again in the new epoch.
BEGIN; SELECT begin_and_pay('j', 'w1', 2, 3) AS w13 \gset
PREPARE TRANSACTION :'w13';
CALL revenue_sink.commit_checkpoint('s', 'j', 3, ARRAY[:'w13']);
EXECUTE fact;

--
-- Epochs of the job's own: each subtask calls recover(), and the first call acts
--
BEGIN; SELECT begin_and_pay('j', 'w1', 2, 4) AS w14 \gset
PREPARE TRANSACTION :'w14';
BEGIN; SELECT begin_and_pay('j', 'w2', 2, 5) AS w25 \gset
PREPARE TRANSACTION :'w25';
CALL revenue_sink.recover('s', 'j', 4, 10);
EXECUTE held;
BEGIN; SELECT begin_and_pay('j', 'w1', 10, 5) AS w15 \gset
PREPARE TRANSACTION :'w15';
-- A late subtask of this incarnation calls: nothing happens to the batches that
-- others have prepared since.
CALL revenue_sink.recover('s', 'j', 4, 10);
EXECUTE held;
-- A subtask of an earlier incarnation is the zombie, and changes nothing.
CALL revenue_sink.recover('s', 'j', 99, 9);
\echo SQLSTATE :LAST_ERROR_SQLSTATE
CALL revenue_sink.open_writer('s', 'j', 'w1', 99, 9);
\echo SQLSTATE :LAST_ERROR_SQLSTATE
EXECUTE held;
CALL revenue_sink.commit_checkpoint('s', 'j', 5);
EXECUTE fact;

--
-- The writers recover one by one
--
BEGIN; SELECT begin_and_pay('j', 'w1', 10, 6) AS w16 \gset
PREPARE TRANSACTION :'w16';
BEGIN; SELECT begin_and_pay('j', 'w1', 10, 7) AS w17 \gset
PREPARE TRANSACTION :'w17';
BEGIN; SELECT begin_and_pay('j', 'w2', 10, 6) AS w26 \gset
PREPARE TRANSACTION :'w26';
CALL revenue_sink.open_writer('s', 'j', 'w1', 6, 11);
EXECUTE held;
SELECT revenue_sink.outcome(:'w16') AS w16, revenue_sink.outcome(:'w17') AS w17, revenue_sink.outcome(:'w26') AS w26;
-- Without a checkpoint all batches of the writer are rolled back.
CALL revenue_sink.open_writer('s', 'j', 'w2', epoch => 12);
EXECUTE held;
EXECUTE epochs;
EXECUTE fact;

--
-- The job comes back with other writers than before
--
CALL revenue_sink.recover('s', 'j', 6, 13);
BEGIN; SELECT begin_and_pay('j', 'w1', 13, 8) AS a \gset
PREPARE TRANSACTION :'a';
BEGIN; SELECT begin_and_pay('j', 'w2', 13, 8) AS a \gset
PREPARE TRANSACTION :'a';
BEGIN; SELECT begin_and_pay('j', 'w3', 13, 8) AS a \gset
PREPARE TRANSACTION :'a';
BEGIN; SELECT begin_and_pay('j', 'w4', 13, 9) AS a \gset
PREPARE TRANSACTION :'a';
-- Four writers become two,
CALL revenue_sink.recover('s', 'j', 8, 14);
EXECUTE held;
BEGIN; SELECT begin_and_pay('j', 'w1', 14, 9) AS a \gset
PREPARE TRANSACTION :'a';
BEGIN; SELECT begin_and_pay('j', 'w2', 14, 9) AS a \gset
PREPARE TRANSACTION :'a';
-- and two writers become six.
CALL revenue_sink.recover('s', 'j', 9, 15);
BEGIN; SELECT begin_and_pay('j', 'w5', 15, 10) AS a \gset
PREPARE TRANSACTION :'a';
BEGIN; SELECT begin_and_pay('j', 'w6', 15, 10) AS a \gset
PREPARE TRANSACTION :'a';
CALL revenue_sink.commit_checkpoint('s', 'j', 10);
EXECUTE held;
EXECUTE fact;

--
-- A job without state starts at checkpoint 1 again
--
BEGIN; SELECT begin_and_pay('j', 'w1', 15, 11) AS a \gset
PREPARE TRANSACTION :'a';
CALL revenue_sink.recover('s', 'j', NULL, 16);
SELECT revenue_sink.outcome(:'a');
BEGIN; SELECT begin_and_pay('j', 'w1', 16, 1) AS a \gset
PREPARE TRANSACTION :'a';
CALL revenue_sink.commit_checkpoint('s', 'j', 1);
EXECUTE held;

--
-- Numbers and epochs go to the end of bigint
--
BEGIN; SELECT begin_and_pay('j', 'w1', 16, 9223372036854775807) AS a \gset
PREPARE TRANSACTION :'a';
CALL revenue_sink.commit_checkpoint('s', 'j', 9223372036854775806);
CALL revenue_sink.commit_checkpoint('s', 'j', 9223372036854775807);
CALL revenue_sink.recover('s', 'j', 9223372036854775807, 9223372036854775806);
BEGIN; SELECT begin_and_pay('j', 'w1', 9223372036854775806, 0) AS a \gset
PREPARE TRANSACTION :'a';
CALL revenue_sink.recover('s', 'j', 0, 9223372036854775807);
SELECT revenue_sink.outcome(:'a');
CALL revenue_sink.recover('s', 'j', 0, 9223372036854775807);
CALL revenue_sink.recover('s', 'j', 0);
\echo SQLSTATE :LAST_ERROR_SQLSTATE
CALL revenue_sink.recover('s', 'j', -1, 1);
CALL revenue_sink.recover('s', 'n', 0, -1);
CALL revenue_sink.recover('s', 'n', -1, 1);

--
-- A batch that was fenced off before belongs to no checkpoint any more, whichever
-- checkpoint is restored then. (The epoch is a row inserted by hand: it plays the
-- part of a call that died before it got to this batch.)
--
CALL revenue_sink.recover('s', 'f', NULL, 1);
BEGIN; SELECT begin_and_pay('f', 'w1', 1, 1) AS a \gset
PREPARE TRANSACTION :'a';
INSERT INTO revenue_sink.epoch (sink_id, job, writer, epoch, opened_at)
	SELECT id, 'f', NULL, 2, now() FROM revenue_sink.sink_catalog WHERE name = 's';
SELECT state FROM revenue_sink.prepared WHERE job = 'f';
CALL revenue_sink.recover('s', 'f', 1, 3);
SELECT revenue_sink.outcome(:'a');

--
-- The last call is repeated after everything
--
CALL revenue_sink.recover('s', 'j', 5, 9223372036854775807);
EXECUTE held;
CALL revenue_sink.commit_prepared(:'k11');
SELECT * FROM revenue_sink.check('s');
SELECT revenue_sink.merge('s') > 0 AS merged;
SELECT sum(revenue) AS revenue, sum(events) AS events FROM fact_revenue_1m;
SELECT count(*) FROM pg_prepared_xacts;
SELECT revenue_sink.drop_sink('s');
DROP FUNCTION begin_and_pay;
