-- What the commands of docs/runbook.md find: a sink with dead letters, a batch in doubt,
-- two prepared transactions that nobody finishes, and an event that waits for each; a
-- sink at which the worker fails, and which has lost a trigger; and a worker.
SET timezone = 'UTC';
CREATE ROLE prometheus;
CREATE EXTENSION revenue_sink;
SELECT revenue_sink.create_sink('orders', on_bad_event => 'reject', retain => '400 days');
SELECT revenue_sink.create_sink('refunds', 'fact_refunds_1m', 'refund_events');
ALTER TABLE revenue_sink.total_2 ADD CONSTRAINT refunds_are_negative CHECK (revenue < 0);
SELECT revenue_sink.apply('refunds', 'o1', 'refund', '2024-03-02 10:00+00', 5);
DO $$
BEGIN
	FOR i IN 1..600 LOOP
		EXIT WHEN (SELECT last_error FROM revenue_sink.stat_sink WHERE sink = 'refunds') IS NOT NULL;
		PERFORM pg_sleep(0.1);
	END LOOP;
END $$;
DROP TRIGGER revenue_sink_row ON refund_events;
CALL revenue_sink.open_writer('orders', 'billing', 'reader-1', epoch => 1);
CALL revenue_sink.open_writer('orders', 'billing', 'reader-2', epoch => 1);
BEGIN;
SELECT revenue_sink.begin_batch('orders', 'billing', 'reader-1', 1, 1);
SELECT revenue_sink.apply('orders', array_agg('o' || i), array_agg('paid'::text),
	array_agg('2024-03-02 10:00+00'::timestamptz + i * interval '10 minutes'), array_agg(20), array_agg('web'::text))
FROM generate_series(1, 6) AS i;
COMMIT;
BEGIN;
SELECT revenue_sink.begin_batch('orders', 'billing', 'reader-2', 1, 1);
SELECT revenue_sink.apply('orders', 'o7', 'paid', '2024-03-02 10:05+00', 20, 'app');
COMMIT;
SELECT revenue_sink.expire('orders');
BEGIN;
SELECT revenue_sink.begin_batch('orders', 'billing', 'reader-2', 1, 2);
SELECT revenue_sink.apply('orders', 'o8', 'paid', '2024-03-02 10:06+00', 20, 'app');
SELECT revenue_sink.pre_commit('orders') AS gid \gset
PREPARE TRANSACTION :'gid';
BEGIN;
SELECT revenue_sink.apply('orders', 'o9', 'paid', '2024-03-02 10:07+00', 20, 'app');
PREPARE TRANSACTION 'a test of last week';
SELECT revenue_sink.apply('orders', 'o9', 'paid', '2024-03-02 10:07+00', 20, 'app');
BEGIN;
SELECT revenue_sink.apply('orders', 'o10', 'paid', '2024-03-02 10:08+00', 20, 'app');
PREPARE TRANSACTION 'load of Saturday';
SELECT revenue_sink.apply('orders', 'o10', 'paid', '2024-03-02 10:08+00', 20, 'app');
SELECT revenue_sink.apply('orders', 'o90', 'paid', '2024-03-01 09:30+00', 40, 'app'),
	revenue_sink.apply('orders', 'o91', 'paid', '2024-03-01 09:45+00', 25, 'app'),
	revenue_sink.apply('orders', 'o1', 'paid', '2024-03-02 10:10+00', 22, 'web'),
	revenue_sink.apply('orders', 'o92', 'paid', '2099-12-31 00:00+00', 15, 'web'),
	revenue_sink.apply('orders', 'o93', 'paid', '2024-03-02 10:20+00', NULL::numeric, 'web');
DO $$
BEGIN
	FOR i IN 1..600 LOOP
		PERFORM pg_stat_clear_snapshot();
		EXIT WHEN EXISTS (SELECT FROM pg_stat_activity
			WHERE backend_type = 'revenue_sink worker' AND datname = current_database());
		PERFORM pg_sleep(0.1);
	END LOOP;
END $$;
ALTER DATABASE runbook SET timezone = 'UTC';
