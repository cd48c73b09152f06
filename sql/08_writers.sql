--
-- Writers: epochs, batches and offsets in one phase.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS revenue_sink;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
\set SHOW_CONTEXT never
SELECT revenue_sink.create_sink('s', dedup_window => '1000 days');
CREATE FUNCTION batch(writer text, epoch bigint, number bigint) RETURNS boolean LANGUAGE sql AS $$
	SELECT revenue_sink.begin_batch('s', 'job', writer, epoch, number) $$;
CREATE FUNCTION pay(id text, at text DEFAULT '10:01') RETURNS text LANGUAGE sql AS $$
	SELECT revenue_sink.apply('s', 'o', id, ('2024-03-01 ' || at || '+00')::timestamptz, 1) $$;
PREPARE writers AS SELECT job, writer, epoch, last_number, events, newest_event_time, opened_at IS NOT NULL AS opened,
	last_batch_at IS NOT NULL AS batch FROM revenue_sink.writer WHERE sink = 's' AND job NOT LIKE 'given%' ORDER BY job, writer;

--
-- Opening
--
-- Nobody has opened the writer w1.
SELECT batch('w1', 1, 1);
\echo SQLSTATE :SQLSTATE
CALL revenue_sink.open_writer('s', 'job', 'w1', epoch => 1);
EXECUTE writers;
CALL revenue_sink.open_writer('s', 'job', 'w2', epoch => 2);
CALL revenue_sink.open_writer('s', 'job', 'w1', epoch => 3);
CALL revenue_sink.open_writer('s', 'other job', 'w1', epoch => 1);
EXECUTE writers;
-- The caller brings an epoch of its own: a higher one becomes the epoch; with an
-- equal one the call is a repetition; with a lower one the caller is the zombie.
CALL revenue_sink.open_writer('s', 'job', 'w1', epoch => 100);
CALL revenue_sink.open_writer('s', 'job', 'w1', epoch => 100);
CALL revenue_sink.open_writer('s', 'job', 'w1', NULL, 99);
\echo SQLSTATE :SQLSTATE
CALL revenue_sink.open_writer('s', 'job', 'w1', NULL, 3);
CALL revenue_sink.open_writer('s', 'job', 'w1', NULL, 101);
-- The epochs of other writers of the job don't change.
CALL revenue_sink.open_writer('s', 'job', 'w2', NULL, 50);
CALL revenue_sink.open_writer('s', 'job', 'w3', NULL, 102);
EXECUTE writers;
-- An epoch is opened for the whole job.
CALL revenue_sink.recover('s', 'job', NULL, 103);
EXECUTE writers;
CALL revenue_sink.recover('s', 'job', NULL, 200);
CALL revenue_sink.recover('s', 'job', NULL, 200);
CALL revenue_sink.recover('s', 'job', NULL, 199);
\echo SQLSTATE :SQLSTATE
CALL revenue_sink.open_writer('s', 'job', 'w1', NULL, 150);
\echo SQLSTATE :SQLSTATE
-- A writer that nobody has opened may begin a batch with the epoch that recover()
-- has opened.
BEGIN;
SELECT batch('w4', 200, 1), pay('w4-1');
COMMIT;
EXECUTE writers;
-- With NULL the server chooses the epoch, which is always higher than all that
-- the job has had, of any writer and from any source. The number itself means
-- nothing.
CALL revenue_sink.open_writer('s', 'given', 'w1') \gset a_
CALL revenue_sink.open_writer('s', 'given', 'w2') \gset b_
CALL revenue_sink.open_writer('s', 'given', 'w1') \gset c_
SELECT :a_epoch > 0 AS a, :b_epoch > :a_epoch AS b, :c_epoch > :b_epoch AS c;
SELECT writer, CASE epoch WHEN :c_epoch THEN 'c' WHEN :b_epoch THEN 'b' END AS epoch
FROM revenue_sink.writer WHERE sink = 's' AND job = 'given' ORDER BY writer;
SELECT :c_epoch + 1000 AS own \gset
CALL revenue_sink.open_writer('s', 'given', 'w2', epoch => :own) \gset d_
CALL revenue_sink.open_writer('s', 'given', 'w3') \gset e_
CALL revenue_sink.recover('s', 'given', NULL) \gset f_
CALL revenue_sink.recover('s', 'given', NULL) \gset g_
CALL revenue_sink.open_writer('s', 'given', 'w2') \gset h_
SELECT :d_epoch = :own AS d, :e_epoch > :d_epoch AS e, :f_epoch > :e_epoch AS f, :g_epoch > :f_epoch AS g, :h_epoch > :g_epoch AS h;
SELECT writer, CASE epoch WHEN :h_epoch THEN 'h' WHEN :g_epoch THEN 'g' END AS epoch
FROM revenue_sink.writer WHERE sink = 's' AND job = 'given' ORDER BY writer;
-- At the end of bigint's range there is one number left, and then none.
CALL revenue_sink.open_writer('s', 'given', 'w4', epoch => 9223372036854775806) \gset i_
CALL revenue_sink.open_writer('s', 'given', 'w4') \gset j_
SELECT :j_epoch > :i_epoch AS j;
CALL revenue_sink.open_writer('s', 'given', 'w4');
\echo SQLSTATE :SQLSTATE
-- Names may be odd; an epoch may be zero or the largest number.
CALL revenue_sink.open_writer('s', 'job '' "x"', E'w\n\t', epoch => 0);
CALL revenue_sink.open_writer('s', 'last', 'w', epoch => 9223372036854775807);
CALL revenue_sink.open_writer('s', 'last', 'w');
\echo SQLSTATE :SQLSTATE
BEGIN;
SELECT revenue_sink.begin_batch('s', 'last', 'w', 9223372036854775807, 9223372036854775807);
COMMIT;
SELECT revenue_sink.begin_batch('s', 'last', 'w', 9223372036854775807, 9223372036854775807);
-- Refused are negative epochs, NULLs, a call in a transaction block, and a call
-- in a function.
CALL revenue_sink.open_writer('s', 'job', 'w1', epoch => -1);
\echo SQLSTATE :SQLSTATE
CALL revenue_sink.open_writer(NULL, 'job', 'w1');
\echo SQLSTATE :SQLSTATE
CALL revenue_sink.open_writer('s', NULL, 'w1');
CALL revenue_sink.open_writer('s', 'job', NULL);
CALL revenue_sink.recover(NULL, 'job', NULL);
CALL revenue_sink.recover('s', NULL, NULL);
BEGIN;
CALL revenue_sink.open_writer('s', 'job', 'w1');
\echo SQLSTATE :SQLSTATE
ROLLBACK;
BEGIN;
CALL revenue_sink.recover('s', 'job', NULL);
\echo SQLSTATE :SQLSTATE
ROLLBACK;
CREATE FUNCTION calls() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	epoch bigint;
BEGIN
	CALL revenue_sink.open_writer('s', 'job', 'w1', NULL, epoch);
	RETURN epoch;
END $$;
SELECT calls();
DROP FUNCTION calls;
-- A DO block on its own is no transaction block.
DO $$
DECLARE
	epoch bigint := 1;
BEGIN
	CALL revenue_sink.open_writer('s', 'another job', 'w1', NULL, epoch);
	RAISE NOTICE 'epoch %', epoch;
	epoch := NULL;
	CALL revenue_sink.open_writer('s', 'given to a block', 'w1', NULL, epoch);
	RAISE NOTICE 'one of the server: %', epoch > 0;
END $$;

--
-- Batches
--
CALL revenue_sink.open_writer('s', 'job', 'w1', epoch => 300);
BEGIN;
SELECT batch('w1', 300, 1);
SELECT pay('a'), pay('b', '10:02');
COMMIT;
-- The answer to COMMIT was lost: false says that this number is done, and is to
-- be skipped.
BEGIN;
SELECT batch('w1', 300, 1);
COMMIT;
-- A batch that was rolled back is not done.
BEGIN;
SELECT batch('w1', 300, 2), pay('c');
ROLLBACK;
BEGIN;
SELECT batch('w1', 300, 2), pay('c');
COMMIT;
SELECT batch('w1', 300, 2), batch('w1', 300, 1);
-- Numbers may have gaps, and a batch may be empty, but a lower number is refused.
BEGIN;
SELECT batch('w1', 300, 5);
COMMIT;
SELECT batch('w1', 300, 4);
\echo SQLSTATE :SQLSTATE
SELECT batch('w1', 300, 3);
SELECT batch('w1', 300, 5);
SELECT batch('w1', 300, -1);
\echo SQLSTATE :SQLSTATE
-- The epoch is not the current one.
SELECT batch('w1', 299, 6);
\echo SQLSTATE :SQLSTATE
SELECT batch('w1', 301, 6);
\echo SQLSTATE :SQLSTATE
-- A batch may begin in a subtransaction (see 17_savepoints), but not twice in a
-- transaction, nor after the transaction has written.
BEGIN;
SAVEPOINT one;
SELECT batch('w1', 300, 6);
ROLLBACK;
DO $$
BEGIN
	PERFORM batch('w1', 300, 6);
	BEGIN
		PERFORM batch('w1', 300, 7);
	EXCEPTION WHEN invalid_transaction_state THEN
		RAISE NOTICE '%', SQLERRM;
	END;
END $$;
BEGIN;
SELECT batch('w1', 300, 7);
SELECT batch('w2', 200, 1);
\echo SQLSTATE :SQLSTATE
ROLLBACK;
BEGIN;
SELECT pay('d');
SELECT batch('w1', 300, 7);
\echo SQLSTATE :SQLSTATE
ROLLBACK;
BEGIN;
INSERT INTO order_events VALUES ('o', 'd', '2024-03-01 10:01:00+00', 1);
SELECT batch('w1', 300, 7);
ROLLBACK;
BEGIN;
SELECT revenue_sink.store_offsets('s', 'early', '{0}', '{1}');
SELECT batch('w1', 300, 7);
ROLLBACK;
-- NULL as an argument is an error: if the answer were NULL, the caller would take
-- it for false and skip the batch.
SELECT revenue_sink.begin_batch(NULL, 'job', 'w1', 300, 7);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.begin_batch('s', NULL, 'w1', 300, 7);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.begin_batch('s', 'job', NULL, 300, 7);
\echo SQLSTATE :SQLSTATE
SELECT batch('w1', NULL, 7);
\echo SQLSTATE :SQLSTATE
SELECT batch('w1', 300, NULL);
\echo SQLSTATE :SQLSTATE
-- No batch begins in a read-only transaction.
BEGIN READ ONLY;
SELECT batch('w1', 300, 7);
\echo SQLSTATE :SQLSTATE
ROLLBACK;
EXECUTE writers;
-- In a new epoch the numbers begin again; batches of the old epoch don't answer
-- for those of the new one. Deduplication finds the events that come twice.
CALL revenue_sink.open_writer('s', 'job', 'w1', epoch => 301);
BEGIN;
SELECT batch('w1', 301, 1), pay('a'), pay('e');
COMMIT;
SELECT batch('w1', 300, 1);
\echo SQLSTATE :SQLSTATE
EXECUTE writers;
SELECT batches FROM revenue_sink.stat_sink WHERE sink = 's';
-- For its writer, a prepared batch is done.
BEGIN;
SELECT batch('w1', 301, 2), pay('f');
PREPARE TRANSACTION 'batch two';
SELECT batch('w1', 301, 2);
ROLLBACK PREPARED 'batch two';
-- A batch of one sink may also write to another sink.
SELECT revenue_sink.create_sink('s2', 'fact2', 'events2');
BEGIN;
SELECT batch('w1', 301, 3), revenue_sink.apply('s2', 'o', 'x', '2024-03-01 10:01:00+00', 1), pay('g');
COMMIT;
SELECT last_number, events FROM revenue_sink.writer WHERE writer = 'w1' AND job = 'job';
SELECT revenue_sink.drop_sink('s2');
-- A batch applies events through the ingest view, and rolls some of them back to
-- a savepoint.
BEGIN;
SELECT batch('w1', 301, 4);
INSERT INTO order_events VALUES ('o', 'h', '2024-03-01 10:03:00+00', 1), ('o', 'a', '2024-03-01 10:01:00+00', 1);
SAVEPOINT one;
INSERT INTO order_events VALUES ('o', 'i', '2024-03-01 10:04:00+00', 1);
ROLLBACK TO one;
COMMIT;
EXECUTE writers;
SELECT sum(revenue) AS revenue, sum(events) AS events FROM fact_revenue_1m;

--
-- Offsets
--
SELECT * FROM revenue_sink.offsets('s') ORDER BY 1, 2;
SELECT revenue_sink.store_offsets('s', 'topic', '{0,1,2}', '{10,20,30}');
SELECT revenue_sink.store_offsets('s', 'topic', '{1}', '{21}');
SELECT revenue_sink.store_offsets('s', 'other', '{0}', '{9223372036854775807}');
SELECT * FROM revenue_sink.offsets('s') ORDER BY 1, 2;
SELECT * FROM revenue_sink.offsets('s', 'other') ORDER BY 1, 2;
SELECT * FROM revenue_sink.offsets('s', 'nothing') ORDER BY 1, 2;
SELECT * FROM revenue_sink.offsets('s', '''; DROP TABLE x; --') ORDER BY 1, 2;
-- A rewind is an offset like any other: the last offset counts.
SELECT revenue_sink.store_offsets('s', 'topic', '{2}', '{5}');
SELECT * FROM revenue_sink.offsets('s', 'topic') ORDER BY 1, 2;
-- Of two offsets of one partition in a call, the last one counts. A call without
-- partitions does nothing.
SELECT revenue_sink.store_offsets('s', 'topic', '{3,3}', '{7,6}');
SELECT revenue_sink.store_offsets('s', 'topic', '{}', '{}');
-- Offsets are stored together with the events, or not at all.
BEGIN;
SELECT pay('j', '10:05'), revenue_sink.store_offsets('s', 'topic', '{0}', '{11}');
SELECT * FROM revenue_sink.offsets('s', 'topic') ORDER BY 1, 2;
ROLLBACK;
SELECT * FROM revenue_sink.offsets('s', 'topic') ORDER BY 1, 2;
SELECT revenue_sink.seen('s', 'o', 'j');
-- Of the offsets of batches, that of the highest epoch and number counts; a
-- rewind within a batch works, too.
BEGIN;
SELECT batch('w1', 301, 5), revenue_sink.store_offsets('s', 'batched', '{0}', '{100}');
COMMIT;
BEGIN;
SELECT batch('w1', 301, 6), revenue_sink.store_offsets('s', 'batched', '{0}', '{90}');
COMMIT;
SELECT * FROM revenue_sink.offsets('s', 'batched');
CALL revenue_sink.open_writer('s', 'job', 'w1', epoch => 302);
BEGIN;
SELECT batch('w1', 302, 1), revenue_sink.store_offsets('s', 'batched', '{0}', '{80}');
SAVEPOINT one;
SELECT revenue_sink.store_offsets('s', 'batched', '{0}', '{70}');
ROLLBACK TO one;
COMMIT;
SELECT * FROM revenue_sink.offsets('s', 'batched');
-- Bad offsets are refused.
SELECT revenue_sink.store_offsets(NULL, 'topic', '{0}', '{1}');
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.store_offsets('s', NULL, '{0}', '{1}');
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.store_offsets('s', 'topic', NULL, '{1}');
SELECT revenue_sink.store_offsets('s', 'topic', '{0}', NULL);
SELECT revenue_sink.store_offsets('s', 'topic', '{0,1}', '{1}');
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.store_offsets('s', 'topic', '{{0}}', '{1}');
SELECT revenue_sink.store_offsets('s', 'topic', '{0,NULL}', '{1,2}');
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.store_offsets('s', 'topic', '{0,1}', '{1,NULL}');
SELECT * FROM revenue_sink.offsets('s') ORDER BY 1, 2;

SELECT * FROM revenue_sink.check('s');
SELECT revenue_sink.drop_sink('s');
DROP FUNCTION batch, pay;
