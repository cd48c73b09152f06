-- What the queries of docs/reading.md find: two days around the night in which the
-- clocks of Berlin skip an hour, an event every four minutes, and a dead letter.
SET timezone = 'UTC';
CREATE EXTENSION revenue_sink;
SELECT revenue_sink.create_sink('orders', dedup_window => '7 days', on_bad_event => 'reject');
SELECT revenue_sink.apply('orders', array_agg('o' || i), array_agg('e'::text),
	array_agg('2024-03-30 12:00+00'::timestamptz + i * interval '4 minutes'), array_agg(((i % 50 + 1) / 4.0)::numeric(10, 2)),
	array_agg((ARRAY['web', 'app', 'store'])[1 + i % 3]))
FROM generate_series(0, 719) AS i;
SELECT revenue_sink.apply('orders', 'o700', 'e', '2024-04-01 10:40+00', 99, 'app');
ALTER DATABASE reading SET timezone = 'UTC';
