-- The sink of upgrade_before.sql, after the package was upgraded.
\set ON_ERROR_STOP off
SELECT gid, epoch FROM held \gset
SELECT revenue_sink.outcome(:'gid');
-- prints: committed
SELECT revenue_sink.apply('orders', 'order-7', 'evt-1', '2024-03-01 10:01:12+00', 40);
-- prints: ERROR:  sink "orders" cannot be used in this database
-- prints: DETAIL:  The extension's tables are of an older version than its library.
-- prints: HINT:  Run ALTER EXTENSION revenue_sink UPDATE in this database.
\set ON_ERROR_STOP on
ALTER EXTENSION revenue_sink UPDATE;
SELECT extversion FROM pg_extension WHERE extname = 'revenue_sink';
-- prints: 1.1
SELECT revenue_sink.outcome(:'gid');
-- prints: committed
SELECT revenue_sink.begin_batch('orders', 'billing', 'consumer-1', :epoch, 2);
-- prints: f
SELECT * FROM revenue_sink.offsets('orders');
-- prints: payments|0|3
CALL revenue_sink.recover('orders', 'billing', NULL) \gset next_
SELECT :next_epoch > :epoch;
-- prints: t
SELECT * FROM revenue_sink.apply('orders',
	'{order-7,order-7,order-8,order-9,order-10}'::text[], '{evt-1,evt-2,evt-1,evt-1,evt-1}'::text[],
	'{2024-03-01 10:01:12+00,2024-03-01 10:01:48+00,2024-03-01 10:02:03+00,2024-03-01 10:02:30+00,2024-03-01 10:03:00+00}'::timestamptz[],
	'{40,25,12.50,9.99,5}'::numeric[]);
-- prints: 1|4|0|0|0|0
SELECT * FROM fact_revenue_1m ORDER BY minute;
-- prints: 2024-03-01 10:01:00+00||65|2
-- prints: 2024-03-01 10:02:00+00||22.49|2
-- prints: 2024-03-01 10:03:00+00||5|1
SELECT * FROM revenue_sink.check('orders');
