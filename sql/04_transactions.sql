--
-- Events belong to their transaction: savepoints, failed statements, isolation
-- levels, prepared transactions.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS revenue_sink;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
\set SHOW_CONTEXT never
SELECT revenue_sink.create_sink('s', dedup_window => '1000 days');
CREATE FUNCTION pay(id text, amount numeric DEFAULT 1, event_time timestamptz DEFAULT '2024-03-01 10:01:00+00')
RETURNS text LANGUAGE sql AS $$ SELECT revenue_sink.apply('s', 'o', id, event_time, amount) $$;
CREATE FUNCTION seen(VARIADIC ids text[]) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(string_agg(id, ' ' ORDER BY id), 'none') FROM unnest(ids) AS id WHERE revenue_sink.seen('s', 'o', id) $$;
PREPARE fact AS SELECT minute, revenue, events FROM fact_revenue_1m ORDER BY minute;

-- A rollback takes every event back; the same event counts afterwards.
BEGIN;
SELECT pay('a');
SELECT pay('a');
SELECT seen('a');
ROLLBACK;
SELECT seen('a');
SELECT pay('a');

--
-- Savepoints, through all doors
--
BEGIN;
SELECT pay('b');
SAVEPOINT one;
SELECT pay('c', 10), pay('b');
INSERT INTO order_events VALUES ('o', 'd', '2024-03-01 10:01:00+00', 100);
SAVEPOINT two;
COPY order_events FROM STDIN;
o	e	2024-03-01 10:01:00+00	1000	\N
\.
SELECT seen('b', 'c', 'd', 'e');
ROLLBACK TO two;
SELECT seen('b', 'c', 'd', 'e');
-- An event whose savepoint was rolled back is new again,
SELECT pay('e', 1000);
EXECUTE fact;
ROLLBACK TO one;
SELECT seen('b', 'c', 'd', 'e');
EXECUTE fact;
-- and counts when its transaction commits.
INSERT INTO order_events VALUES ('o', 'b', '2024-03-01 10:01:00+00', 1), ('o', 'd', '2024-03-01 10:01:00+00', 100);
COMMIT;
SELECT seen('a', 'b', 'c', 'd', 'e');
EXECUTE fact;
SELECT * FROM revenue_sink.check('s');
-- The events of a released savepoint belong to the transaction.
BEGIN;
SAVEPOINT one;
SELECT pay('f');
RELEASE one;
SAVEPOINT one;
SELECT pay('f');
ROLLBACK TO one;
COMMIT;
SELECT seen('f');
BEGIN;
SAVEPOINT one;
SELECT pay('g');
RELEASE one;
ROLLBACK;
SELECT seen('g');

-- An event that was rolled back counts nowhere: neither in the counters nor in
-- the ledger, and it doesn't move the watermark.
SELECT revenue_sink.create_sink('w', 'w_fact', 'w_events', max_future => '36500 days');
CALL revenue_sink.open_writer('w', 'job', 'writer', epoch => 1);
BEGIN;
SELECT revenue_sink.begin_batch('w', 'job', 'writer', 1, 1);
SAVEPOINT one;
SELECT revenue_sink.apply('w', 'o', 'future', '2030-01-01 00:00:00+00', 1);
ROLLBACK TO one;
SELECT revenue_sink.apply('w', 'o', 'present', '2024-03-01 10:01:00+00', 1);
COMMIT;
SELECT epoch, last_number, events, newest_event_time FROM revenue_sink.writer WHERE sink = 'w';
SELECT applied, seen_events FROM revenue_sink.stat_sink WHERE sink = 'w';
SELECT revenue_sink.expire('w');
SELECT watermark, horizon FROM revenue_sink.stat_sink WHERE sink = 'w';
SELECT revenue_sink.apply('w', 'o', 'present', '2024-03-01 10:01:00+00', 1);
SELECT revenue_sink.drop_sink('w');

--
-- Failed statements: the rows that the ingest view has collected die with their
-- statement
--
DO $$
BEGIN
	BEGIN
		INSERT INTO order_events SELECT 'o', 'h' || i, '2024-03-01 10:02:00+00', 1 / (3 - i) FROM generate_series(1, 5) AS i;
	EXCEPTION WHEN division_by_zero THEN
		RAISE NOTICE 'caught: %', SQLERRM;
	END;
	INSERT INTO order_events VALUES ('o', 'h9', '2024-03-01 10:02:00+00', 1);
END $$;
SELECT seen('h1', 'h2', 'h3', 'h9');
-- The failed statement had already flushed a slice.
DO $$
BEGIN
	BEGIN
		INSERT INTO order_events SELECT 'o', 'i' || i, '2024-03-01 10:02:00+00', 1 / (20000 - i) FROM generate_series(1, 25000) AS i;
	EXCEPTION WHEN division_by_zero THEN
		RAISE NOTICE 'caught: %', SQLERRM;
	END;
	INSERT INTO order_events VALUES ('o', 'i19999', '2024-03-01 10:02:00+00', 1);
END $$;
SELECT seen('i1', 'i19999');
-- A bad event fails, and the error is caught, in an INSERT and around apply().
DO $$
BEGIN
	BEGIN
		INSERT INTO order_events VALUES ('o', 'j1', '2024-03-01 10:02:00+00', 1), ('o', '', '2024-03-01 10:02:00+00', 1);
	EXCEPTION WHEN invalid_parameter_value THEN
		RAISE NOTICE 'caught: %', SQLERRM;
	END;
	BEGIN
		PERFORM pay('j2', 1, '2024-03-01 10:02:00+00'), pay('j3', 'NaN', '2024-03-01 10:02:00+00');
	EXCEPTION WHEN numeric_value_out_of_range THEN
		RAISE NOTICE 'caught: %', SQLERRM;
	END;
	RAISE NOTICE '%', pay('j2', 1, '2024-03-01 10:02:00+00');
END $$;
SELECT seen('j1', 'j2', 'j3');
EXECUTE fact;

--
-- A statement within a statement: a function inserts into the view while a
-- statement on the view collects rows. Each event counts once.
--
CREATE FUNCTION nested(id text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO order_events VALUES ('o', 'inner-' || id, '2024-03-01 10:03:00+00', 10);
	RETURN 'outer-' || id;
END $$;
INSERT INTO order_events SELECT 'o', nested(i::text), '2024-03-01 10:03:00+00', 1 FROM generate_series(1, 3) AS i;
SELECT seen('inner-1', 'inner-2', 'inner-3', 'outer-1', 'outer-2', 'outer-3');
SELECT revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 10:03:00+00';
-- The inner statement fails, and the error is caught: the outer statement is
-- whole.
CREATE OR REPLACE FUNCTION nested(id text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO order_events VALUES ('o', 'fails-' || id, '2024-03-01 10:03:00+00', 10), ('o', NULL, '2024-03-01 10:03:00+00', 10);
	RETURN 'never-' || id;
EXCEPTION WHEN OTHERS THEN
	RETURN 'whole-' || id;
END $$;
INSERT INTO order_events SELECT 'o', nested(i::text), '2024-03-01 10:03:00+00', 1 FROM generate_series(1, 3) AS i;
SELECT seen('fails-1', 'fails-2', 'fails-3', 'whole-1', 'whole-2', 'whole-3', 'never-1');
-- The inner statement works, the outer one fails, and the events of both are
-- gone.
CREATE OR REPLACE FUNCTION nested(id text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO order_events VALUES ('o', 'gone-' || id, '2024-03-01 10:03:00+00', 10);
	RETURN CASE WHEN id = '3' THEN '' ELSE 'gone-outer-' || id END;
END $$;
DO $$
BEGIN
	INSERT INTO order_events SELECT 'o', nested(i::text), '2024-03-01 10:03:00+00', 1 FROM generate_series(1, 3) AS i;
EXCEPTION WHEN invalid_parameter_value THEN
	RAISE NOTICE 'caught';
END $$;
SELECT seen('gone-1', 'gone-2', 'gone-3', 'gone-outer-1', 'gone-outer-2');
-- The trigger of a user's table inserts into the view.
CREATE TABLE payment (id text, amount numeric);
CREATE FUNCTION forward() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO order_events VALUES ('o', NEW.id, '2024-03-01 10:04:00+00', NEW.amount);
	RETURN NEW;
END $$;
CREATE TRIGGER forward AFTER INSERT ON payment FOR EACH ROW EXECUTE FUNCTION forward();
INSERT INTO payment VALUES ('p1', 1), ('p2', 2), ('p1', 1);
SELECT revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 10:04:00+00';
DROP TABLE payment;
DROP FUNCTION forward, nested;

--
-- Cursors: a reader goes on seeing the state in which its cursor was opened; a
-- caller stops half way.
--
BEGIN;
DECLARE reader CURSOR FOR SELECT sum(revenue) FROM fact_revenue_1m WHERE minute = '2024-03-01 10:05:00+00';
SELECT pay('k1', 1, '2024-03-01 10:05:00+00');
SELECT revenue_sink.merge('s') > 0 AS merged;
FETCH reader;
DECLARE caller CURSOR FOR SELECT pay('k' || i, 1, '2024-03-01 10:05:00+00') FROM generate_series(1, 5) AS i;
FETCH 2 FROM caller;
CLOSE caller;
COMMIT;
SELECT seen('k1', 'k2', 'k3');
SELECT revenue FROM fact_revenue_1m WHERE minute = '2024-03-01 10:05:00+00';

--
-- Isolation levels
--
BEGIN ISOLATION LEVEL REPEATABLE READ;
EXECUTE fact;
SELECT pay('l1', 1, '2024-03-01 10:06:00+00'), pay('l1', 1, '2024-03-01 10:06:00+00'), pay('a');
SAVEPOINT one;
SELECT pay('l2', 1, '2024-03-01 10:06:00+00');
ROLLBACK TO one;
SELECT pay('l2', 1, '2024-03-01 10:06:00+00');
SELECT revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 10:06:00+00';
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT pay('l1', 1, '2024-03-01 10:06:00+00'), pay('l3', 1, '2024-03-01 10:06:00+00');
INSERT INTO order_events VALUES ('o', 'l3', '2024-03-01 10:06:00+00', 1), ('o', 'l4', '2024-03-01 10:06:00+00', 1);
SELECT revenue_sink.merge('s') > 0 AS merged;
SELECT revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 10:06:00+00';
COMMIT;
SELECT revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 10:06:00+00';

--
-- Prepared transactions, whose gid is the client's own (as with JDBC XA).
-- Meanwhile a copy of their event is deferred: the call neither waits nor drops
-- the event.
--
PREPARE deferred AS SELECT sink, order_id, event_id, event_time, amount, group_key, deferred_at IS NOT NULL AS at, age IS NOT NULL AS age
	FROM revenue_sink.deferred ORDER BY event_id, amount;
BEGIN;
SELECT pay('m1', 1, '2024-03-01 10:07:00+00'), pay('m2', 1, '2024-03-01 10:07:00+00');
PREPARE TRANSACTION 'one''s own gid';
SELECT seen('m1', 'm2');
SELECT * FROM revenue_sink.apply('s', ARRAY['o', 'o', 'o'], ARRAY['m1', 'm2', 'm3'],
	ARRAY(SELECT '2024-03-01 10:07:00+00'::timestamptz FROM generate_series(1, 3)), ARRAY[1, 2, 4]);
EXECUTE deferred;
-- The copy stays deferred while the other transaction is undecided.
SELECT revenue_sink.merge('s');
EXECUTE deferred;
SELECT revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 10:07:00+00';
COMMIT PREPARED 'one''s own gid';
SELECT revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 10:07:00+00';
-- The deferred copy of m1 turns out to be a duplicate, that of m2 a conflict.
SELECT revenue_sink.merge('s') > 0 AS merged;
EXECUTE deferred;
SELECT revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 10:07:00+00';
SELECT reason, event_id, amount FROM revenue_sink.dead_letter WHERE sink = 's' ORDER BY event_id;
-- Now the prepared transaction is rolled back, and the deferred event counts.
BEGIN;
SELECT pay('n1', 1, '2024-03-01 10:08:00+00');
PREPARE TRANSACTION 'two';
SELECT pay('n1', 1, '2024-03-01 10:08:00+00'), pay('n1', 1, '2024-03-01 10:08:00+00');
INSERT INTO order_events VALUES ('o', 'n1', '2024-03-01 10:08:00+00', 1);
ROLLBACK PREPARED 'two';
SELECT seen('n1');
SELECT revenue_sink.merge('s') > 0 AS merged;
SELECT seen('n1');
SELECT revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 10:08:00+00';
SELECT count(*) FROM revenue_sink.deferred;
-- Three prepared transactions have a copy of an event: the first claims the
-- event, the copies of the others are deferred. The first transaction is rolled
-- back, the second one committed.
BEGIN;
SELECT pay('q', 1, '2024-03-01 10:09:00+00');
PREPARE TRANSACTION 'first';
BEGIN;
SELECT pay('q', 1, '2024-03-01 10:09:00+00');
PREPARE TRANSACTION 'second';
BEGIN;
SELECT pay('q', 1, '2024-03-01 10:09:00+00');
PREPARE TRANSACTION 'third';
SELECT count(*) FROM revenue_sink.deferred;
ROLLBACK PREPARED 'first';
SELECT revenue_sink.merge('s') AS nothing_to_settle;
COMMIT PREPARED 'second';
SELECT count(*) FROM revenue_sink.deferred;
SELECT revenue_sink.merge('s') > 0 AS merged;
SELECT revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 10:09:00+00';
COMMIT PREPARED 'third';
SELECT revenue_sink.merge('s') > 0 AS merged;
SELECT revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 10:09:00+00';
SELECT count(*) FROM revenue_sink.deferred;
-- If the transaction of a deferred event is rolled back, its sender must send the
-- event again.
BEGIN;
SELECT pay('r', 1, '2024-03-01 10:10:00+00');
PREPARE TRANSACTION 'first';
BEGIN;
SELECT pay('r', 1, '2024-03-01 10:10:00+00');
ROLLBACK;
ROLLBACK PREPARED 'first';
SELECT revenue_sink.merge('s');
SELECT seen('r');
SELECT pay('r', 1, '2024-03-01 10:10:00+00');
-- A prepared transaction has done INSERTs, in savepoints.
BEGIN;
INSERT INTO order_events VALUES ('o', 't1', '2024-03-01 10:11:00+00', 1);
SAVEPOINT one;
INSERT INTO order_events VALUES ('o', 't2', '2024-03-01 10:11:00+00', 1);
ROLLBACK TO one;
INSERT INTO order_events VALUES ('o', 't3', '2024-03-01 10:11:00+00', 1);
PREPARE TRANSACTION 'saved';
-- t2 was rolled back to a savepoint before, so no transaction has claimed it.
SELECT pay('t1', 1, '2024-03-01 10:11:00+00'), pay('t2', 1, '2024-03-01 10:11:00+00'), pay('t3', 1, '2024-03-01 10:11:00+00');
COMMIT PREPARED 'saved';
SELECT revenue_sink.merge('s') > 0 AS merged;
SELECT revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 10:11:00+00';

-- There are more deferred events than are settled at a time. While they wait,
-- looking at them again changes no counter.
CREATE FUNCTION many(n int) RETURNS text LANGUAGE sql AS $$
	SELECT format('%s applied, %s deferred', applied, deferred) FROM revenue_sink.apply('s', array_fill('many'::text, ARRAY[n]),
		ARRAY(SELECT i::text FROM generate_series(1, n) i), array_fill('2024-03-01 10:13+00'::timestamptz, ARRAY[n]),
		array_fill(1::numeric, ARRAY[n])) $$;
PREPARE deferred_counter AS SELECT deferred FROM revenue_sink.stat_sink WHERE sink = 's';
BEGIN;
SELECT many(40000);
PREPARE TRANSACTION 'many';
EXECUTE deferred_counter \gset before_
SELECT many(40000);
SELECT revenue_sink.merge('s') >= 0 AS merged;
SELECT revenue_sink.merge('s');
EXECUTE deferred_counter \gset after_
SELECT :after_deferred - :before_deferred AS deferred;
ROLLBACK PREPARED 'many';
SELECT revenue_sink.merge('s') >= 40000 AS merged;
SELECT revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 10:13:00+00';
DROP FUNCTION many;

-- A transaction that would do harm while it is prepared can't be prepared.
BEGIN;
SELECT revenue_sink.merge('s') >= 0 AS done;
PREPARE TRANSACTION 'bad';
\echo SQLSTATE :SQLSTATE
BEGIN;
SELECT revenue_sink.expire('s') >= 0 AS done;
PREPARE TRANSACTION 'bad';
BEGIN;
SELECT revenue_sink.alter_sink('s', late_policy => 'reject');
PREPARE TRANSACTION 'bad';
BEGIN;
SELECT revenue_sink.create_sink('bad', 'bad_fact', 'bad_events');
PREPARE TRANSACTION 'bad';
BEGIN;
SELECT revenue_sink.drop_sink('s');
PREPARE TRANSACTION 'bad';
-- A sink that a prepared transaction has used can't be dropped meanwhile.
BEGIN;
SELECT pay('u', 1, '2024-03-01 10:12:00+00');
PREPARE TRANSACTION 'holds it';
SELECT revenue_sink.drop_sink('s');
\echo SQLSTATE :SQLSTATE
ROLLBACK PREPARED 'holds it';
-- The next transaction of the session may do all that.
BEGIN;
SELECT pay('u', 1, '2024-03-01 10:12:00+00');
PREPARE TRANSACTION 'good';
COMMIT PREPARED 'good';
SELECT seen('u');

SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database();
EXECUTE fact;
SELECT * FROM revenue_sink.check('s');
SELECT revenue_sink.drop_sink('s');
DROP FUNCTION pay, seen;
