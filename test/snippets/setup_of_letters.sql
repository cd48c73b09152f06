-- What the queries of docs/letters.md find: a sink with some orders of one day, whose
-- horizon is a day before the last of them, and a dead letter or two of each kind.
SET timezone = 'UTC';
CREATE EXTENSION revenue_sink;
SELECT revenue_sink.create_sink('orders', on_bad_event => 'reject');
SELECT revenue_sink.apply('orders', array_agg('o' || i), array_agg('paid'::text),
	array_agg('2024-03-02 10:00+00'::timestamptz + i * interval '10 minutes'), array_agg(20), array_agg('web'::text))
FROM generate_series(1, 6) AS i;
SELECT revenue_sink.expire('orders');
SELECT revenue_sink.apply('orders', 'o90', 'paid', '2024-03-01 09:30+00', 40, 'app'),
	revenue_sink.apply('orders', 'o91', 'paid', '2024-03-01 09:45+00', 25, 'app'),
	revenue_sink.apply('orders', 'o1', 'paid', '2024-03-02 10:10+00', 22, 'web'),
	revenue_sink.apply('orders', 'o92', 'paid', '2099-12-31 00:00+00', 15, 'web'),
	revenue_sink.apply('orders', 'o93', 'paid', '2024-03-02 10:20+00', NULL::numeric, 'web'),
	revenue_sink.apply('orders', '', 'paid', '2024-03-02 10:30+00', 30, 'web');
ALTER DATABASE letters SET timezone = 'UTC';
