--
-- Savepoints around a batch: drivers set savepoints before each statement, psql sets
-- them with ON_ERROR_ROLLBACK, and exception blocks are savepoints. A batch that is rolled back with its
-- savepoint has not begun; nothing that is written after that commits by itself.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS revenue_sink;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
\set SHOW_CONTEXT never
SET lock_timeout = '200ms';
SELECT revenue_sink.create_sink('s', dedup_window => '1000 days');
CREATE FUNCTION batch(number bigint, writer text DEFAULT 'w1') RETURNS boolean LANGUAGE sql AS $$
	SELECT revenue_sink.begin_batch('s', 'job', writer, 1, number) $$;
CREATE FUNCTION pay(id text) RETURNS text LANGUAGE sql AS $$
	SELECT revenue_sink.apply('s', 'o', id, '2024-03-01 10:01+00', 1) $$;
CREATE FUNCTION store(next bigint) RETURNS void LANGUAGE sql AS $$
	SELECT revenue_sink.store_offsets('s', 'log', '{0}', ARRAY[next]) $$;
-- These queries show the ledger as it is, what became of the events, and the
-- counters of this server.
PREPARE ledger AS SELECT writer, number, last, events, newest, ended_at IS NOT NULL AS ended
	FROM revenue_sink.ledger WHERE sink_id > 0 ORDER BY writer, number;
PREPARE state AS SELECT coalesce(sum(revenue), 0) AS revenue, coalesce(sum(events), 0) AS events,
	(SELECT next_offset FROM revenue_sink.offsets('s', 'log')) AS next, (SELECT batches FROM revenue_sink.stat_sink WHERE sink = 's'),
	(SELECT count(*) FROM revenue_sink.deferred) AS deferred, (SELECT count(*) FROM revenue_sink.check('s')) AS problems
	FROM fact_revenue_1m;
PREPARE held AS SELECT writer, epoch, number, events, state FROM revenue_sink.prepared WHERE sink = 's' ORDER BY writer, number;
CALL revenue_sink.recover('s', 'job', NULL, 1);

--
-- The savepoint is released, at once or at the end, or never: the batch is like
-- any other
--
BEGIN;
SAVEPOINT a;
SELECT batch(1);
RELEASE a;
SELECT pay('a'), store(1);
COMMIT;
BEGIN;
SAVEPOINT a;
SELECT batch(2), pay('b'), store(2);
COMMIT;
BEGIN;
SAVEPOINT a;
SAVEPOINT b;
SAVEPOINT c;
SELECT batch(3);
RELEASE c;
SELECT pay('c');
SAVEPOINT c;
SELECT pay('d'), store(9);
ROLLBACK TO c;
RELEASE b;
SELECT store(3);
RELEASE a;
INSERT INTO order_events VALUES ('o', 'd', '2024-03-01 10:01+00', 1);
COMMIT;
EXECUTE ledger;
EXECUTE state;
-- The batch of this number is done.
BEGIN;
SAVEPOINT a;
SELECT batch(3);
COMMIT;
-- A batch can't begin twice, nor after the transaction has written, at whatever
-- depth.
BEGIN;
SAVEPOINT a;
SELECT batch(4);
SAVEPOINT b;
SELECT batch(5);
\echo SQLSTATE :SQLSTATE
ROLLBACK TO b;
RELEASE a;
SELECT batch(5);
ROLLBACK;
BEGIN;
SAVEPOINT a;
SELECT pay('e');
SAVEPOINT b;
SELECT batch(4);
\echo SQLSTATE :SQLSTATE
ROLLBACK;
-- Writes that a savepoint has rolled back don't matter.
BEGIN;
SAVEPOINT a;
SELECT pay('e'), store(9);
ROLLBACK TO a;
SELECT batch(4), pay('e'), store(4);
COMMIT;
EXECUTE ledger;
EXECUTE state;

--
-- The savepoint is rolled back: there is no batch, and its number may be begun
-- again, in the same transaction
--
BEGIN;
SAVEPOINT a;
SELECT batch(5), pay('f'), store(9);
ROLLBACK TO a;
EXECUTE ledger;
SELECT revenue_sink.pre_commit('s');
\echo SQLSTATE :SQLSTATE
COMMIT;
BEGIN;
SAVEPOINT a;
SELECT batch(5), pay('f'), store(9);
ROLLBACK TO a;
SELECT batch(5), pay('f'), store(5);
COMMIT;
-- and in a later one; if nothing has been written since the rollback, COMMIT is
-- no error either.
BEGIN;
SAVEPOINT a;
SELECT batch(6), pay('g');
ROLLBACK TO a;
COMMIT;
BEGIN;
SAVEPOINT a;
SAVEPOINT b;
SELECT batch(7), pay('h');
RELEASE b;
ROLLBACK TO a;
SELECT batch(6), pay('g'), store(6);
SAVEPOINT b;
ROLLBACK TO b;
COMMIT;
EXECUTE ledger;
EXECUTE state;

--
-- The savepoint is rolled back, and more is written: this would commit outside of
-- any batch, so COMMIT and PREPARE fail
--
BEGIN;
SAVEPOINT a;
SELECT batch(7), pay('h'), store(7);
ROLLBACK TO a;
SELECT pay('i');
COMMIT;
\echo SQLSTATE :SQLSTATE
BEGIN;
SAVEPOINT a;
SELECT batch(7), pay('h'), store(7);
ROLLBACK TO a;
SELECT pay('i');
PREPARE TRANSACTION 'remains';
\echo SQLSTATE :SQLSTATE
SELECT count(*) FROM pg_prepared_xacts;
-- The writes come through the other doors, in savepoints, and are duplicates.
BEGIN;
SAVEPOINT a;
SELECT batch(7);
ROLLBACK TO a;
INSERT INTO order_events VALUES ('o', 'i', '2024-03-01 10:01+00', 1);
COMMIT;
\echo SQLSTATE :SQLSTATE
BEGIN;
SAVEPOINT a;
SELECT batch(7);
ROLLBACK TO a;
COPY order_events FROM STDIN;
o	i	2024-03-01 10:01+00	1	\N
\.
COMMIT;
\echo SQLSTATE :SQLSTATE
BEGIN;
SAVEPOINT a;
SELECT batch(7);
ROLLBACK TO a;
SAVEPOINT b;
SELECT store(9);
RELEASE b;
COMMIT;
\echo SQLSTATE :SQLSTATE
BEGIN;
SAVEPOINT a;
SELECT batch(7);
ROLLBACK TO a;
SELECT pay('a');
COMMIT;
\echo SQLSTATE :SQLSTATE
BEGIN;
SAVEPOINT a;
SAVEPOINT b;
SELECT batch(7);
RELEASE b;
SELECT pay('h');
ROLLBACK TO a;
SELECT pay('i');
COMMIT;
\echo SQLSTATE :SQLSTATE
-- Writes that are rolled back, too, don't matter.
BEGIN;
SAVEPOINT a;
SELECT batch(7);
ROLLBACK TO a;
SELECT pay('i');
ROLLBACK TO a;
COMMIT;
-- The rollback is to a savepoint that was set after the batch began: the batch
-- goes on.
BEGIN;
SAVEPOINT a;
SELECT batch(7);
SAVEPOINT b;
SELECT pay('x');
ROLLBACK TO b;
SELECT pay('h'), store(7);
COMMIT;
-- The next transaction isn't affected: it has no batch, and gets no error.
BEGIN;
SAVEPOINT a;
SELECT batch(8);
ROLLBACK TO a;
ROLLBACK;
SELECT pay('i');
EXECUTE ledger;
EXECUTE state;
-- Writes to another sink aren't affected either.
SELECT revenue_sink.create_sink('t', 'fact_t', 'in_t', mode => 'totals');
BEGIN;
SAVEPOINT a;
SELECT batch(8);
ROLLBACK TO a;
SELECT revenue_sink.upsert('t', '{2024-03-01 10:01+00}', '{1}');
COMMIT;
-- A batch of a sink in mode 'totals' is treated alike.
CALL revenue_sink.recover('t', 'job', NULL, 1);
BEGIN;
SAVEPOINT a;
SELECT revenue_sink.begin_batch('t', 'job', 'w1', 1, 1), revenue_sink.upsert('t', '{2024-03-01 10:01+00}', '{2}');
ROLLBACK TO a;
SELECT revenue_sink.upsert('t', '{2024-03-01 10:01+00}', '{3}');
COMMIT;
\echo SQLSTATE :SQLSTATE
BEGIN;
SAVEPOINT a;
SELECT revenue_sink.begin_batch('t', 'job', 'w1', 1, 1), revenue_sink.upsert('t', '{2024-03-01 10:01+00}', '{4}');
SAVEPOINT b;
SELECT revenue_sink.upsert('t', '{2024-03-01 10:01+00}', '{5}');
ROLLBACK TO b;
INSERT INTO in_t VALUES ('2024-03-01 10:02+00', '', 6, NULL);
COMMIT;
SELECT minute, revenue FROM fact_t ORDER BY minute;
SELECT number, last_number FROM (SELECT number FROM revenue_sink.ledger b JOIN revenue_sink.sink_catalog s ON s.id = b.sink_id
	WHERE s.name = 't') AS b, revenue_sink.writer WHERE sink = 't';
-- A batch of one sink is rolled back, and a batch of another sink begins.
BEGIN;
SAVEPOINT a;
SELECT batch(8), pay('j');
ROLLBACK TO a;
SELECT revenue_sink.begin_batch('t', 'job', 'w1', 1, 2), revenue_sink.upsert('t', '{2024-03-01 10:03+00}', '{7}');
COMMIT;
-- A batch of another sink doesn't bring the first one back: writes to the first
-- sink belong to no batch of that sink.
BEGIN;
SAVEPOINT a;
SELECT batch(8), pay('j');
ROLLBACK TO a;
SELECT revenue_sink.begin_batch('t', 'job', 'w1', 1, 3);
SELECT pay('j');
COMMIT;
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.drop_sink('t');

--
-- psql with ON_ERROR_ROLLBACK sets a savepoint before each statement
--
\set ON_ERROR_ROLLBACK on
BEGIN;
SELECT batch(8);
SELECT 1 / 0;
SELECT pay('j'), store(8);
SELECT batch(9);
COMMIT;
BEGIN;
SELECT batch(10), 1 / 0;
SELECT batch(9), pay('k');
COMMIT;
BEGIN;
SELECT batch(10);
SELECT pay('l');
SELECT revenue_sink.pre_commit('s') AS gid \gset
PREPARE TRANSACTION :'gid';
\set ON_ERROR_ROLLBACK off
EXECUTE held;
SELECT revenue_sink.outcome(:'gid');
CALL revenue_sink.commit_prepared(:'gid');
SELECT revenue_sink.outcome(:'gid');
EXECUTE state;

--
-- pgjdbc's autosave sets a savepoint of the same name before each statement, and
-- releases none
--
BEGIN;
SAVEPOINT "PGJDBC_AUTOSAVE";
SELECT batch(11);
SAVEPOINT "PGJDBC_AUTOSAVE";
SELECT pay('m');
SAVEPOINT "PGJDBC_AUTOSAVE";
SELECT 1 / 0;
ROLLBACK TO "PGJDBC_AUTOSAVE";
SAVEPOINT "PGJDBC_AUTOSAVE";
SELECT store(11);
SAVEPOINT "PGJDBC_AUTOSAVE";
COMMIT;
BEGIN;
SAVEPOINT "PGJDBC_AUTOSAVE";
SELECT batch(12);
SAVEPOINT "PGJDBC_AUTOSAVE";
SELECT pay('n'), store(12);
SAVEPOINT "PGJDBC_AUTOSAVE";
SELECT revenue_sink.pre_commit('s') AS gid \gset
SAVEPOINT "PGJDBC_AUTOSAVE";
SELECT revenue_sink.pre_commit('s') = :'gid' AS "the same again", revenue_sink.outcome(:'gid');
SAVEPOINT "PGJDBC_AUTOSAVE";
PREPARE TRANSACTION :'gid';
EXECUTE held;
SELECT revenue_sink.outcome(:'gid'), pay('n');
-- The batch's number is done, also for a caller in a savepoint.
BEGIN;
SAVEPOINT "PGJDBC_AUTOSAVE";
SELECT batch(12);
COMMIT;
CALL revenue_sink.commit_checkpoint('s', 'job', 12, ARRAY[:'gid']);
SELECT revenue_sink.outcome(:'gid');
BEGIN;
SAVEPOINT "PGJDBC_AUTOSAVE";
SELECT batch(13);
SAVEPOINT "PGJDBC_AUTOSAVE";
SELECT pay('p'), store(13);
SAVEPOINT "PGJDBC_AUTOSAVE";
SELECT revenue_sink.pre_commit('s') AS gid \gset
PREPARE TRANSACTION :'gid';
CALL revenue_sink.rollback_prepared(:'gid');
SELECT revenue_sink.outcome(:'gid'), batch(13);
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.merge('s') > 0 AS merged;
EXECUTE state;

--
-- pre_commit() is called in a savepoint that is rolled back: the batch goes on,
-- and its gid stays the same
--
BEGIN;
SELECT batch(14), pay('q');
SAVEPOINT a;
SELECT revenue_sink.pre_commit('s') AS gid \gset
ROLLBACK TO a;
SELECT store(14);
SELECT revenue_sink.pre_commit('s') = :'gid' AS "the same again";
PREPARE TRANSACTION :'gid';
EXECUTE held;
CALL revenue_sink.commit_prepared(:'gid');
-- A batch is rolled back with its savepoint and begun again: its gid stays the
-- same, since it names the transaction.
BEGIN;
SAVEPOINT a;
SELECT batch(15), pay('r');
SELECT revenue_sink.pre_commit('s') AS gid \gset
ROLLBACK TO a;
SELECT batch(15), pay('r'), store(15);
PREPARE TRANSACTION :'gid';
EXECUTE held;
SELECT revenue_sink.outcome(:'gid');
CALL revenue_sink.commit_prepared(:'gid');
SELECT revenue_sink.outcome(:'gid');
-- If the batch isn't begun again, its gid names nothing.
BEGIN;
SAVEPOINT a;
SELECT batch(16), pay('s');
SELECT revenue_sink.pre_commit('s') AS gid \gset
ROLLBACK TO a;
COMMIT;
SELECT revenue_sink.outcome(:'gid') NOT IN ('committed', 'in doubt', 'open') AS lost;
-- A batch that is prepared without pre_commit() is found like others.
BEGIN;
SAVEPOINT a;
SELECT batch(16), pay('s'), store(16);
PREPARE TRANSACTION 'savepoint 16';
EXECUTE held;
CALL revenue_sink.commit_checkpoint('s', 'job', 16);
EXECUTE state;

--
-- Exception blocks
--
DO $$
BEGIN
	BEGIN
		PERFORM batch(17), pay('t'), store(17);
	EXCEPTION WHEN division_by_zero THEN
		RAISE NOTICE 'not here';
	END;
	PERFORM pay('u');
	-- that batch goes on, though this fails
	BEGIN
		PERFORM pay('v');
		PERFORM 1 / 0;
	EXCEPTION WHEN division_by_zero THEN
	END;
END $$;
-- The batch is rolled back with its block: what is written after it doesn't
-- commit,
DO $$
BEGIN
	BEGIN
		PERFORM batch(18), pay('v');
		PERFORM 1 / 0;
	EXCEPTION WHEN division_by_zero THEN
	END;
	PERFORM pay('w');
END $$;
\echo SQLSTATE :SQLSTATE
-- unless the batch is begun again.
DO $$
BEGIN
	FOR i IN 0..2 LOOP
		BEGIN
			PERFORM batch(18), pay('v');
			PERFORM 1 / (i / 2);
			EXIT;
		EXCEPTION WHEN division_by_zero THEN
		END;
	END LOOP;
	PERFORM store(18);
END $$;
-- A batch that is refused in a block has not begun. The transaction may write
-- without it.
DO $$
BEGIN
	BEGIN
		PERFORM revenue_sink.begin_batch('s', 'job', 'w1', 0, 19);
	EXCEPTION WHEN SQLSTATE 'RS001' THEN
		RAISE NOTICE '%', SQLERRM;
	END;
	BEGIN
		PERFORM batch(17), batch(16);
		PERFORM batch(1000), 1 / (SELECT count(*) FROM revenue_sink.sink WHERE sink = 'none');
	EXCEPTION WHEN division_by_zero THEN
	END;
END $$;
EXECUTE ledger;
EXECUTE state;
-- A batch in a savepoint is fenced off: COMMIT reports it.
BEGIN;
SAVEPOINT a;
SELECT batch(19), pay('x');
INSERT INTO revenue_sink.epoch (sink_id, job, writer, epoch, opened_at)
	SELECT id, 'job', 'w1', 2, now() FROM revenue_sink.sink_catalog WHERE name = 's';
COMMIT;
\echo SQLSTATE :SQLSTATE

-- Of all that, the folded ledger has only the batches that have committed.
SELECT number, last, events FROM revenue_sink.ledger WHERE sink_id > 0 AND writer = 'w1' ORDER BY number;
SELECT revenue_sink.merge('s') > 0 AS merged;
SELECT string_agg(CASE WHEN revenue_sink.seen('s', 'o', chr(i)) THEN chr(i) END, '' ORDER BY i) AS seen FROM generate_series(97, 122) AS i;
EXECUTE state;
SELECT count(*) FROM pg_prepared_xacts;
SELECT revenue_sink.drop_sink('s');
DROP FUNCTION batch, pay, store;
