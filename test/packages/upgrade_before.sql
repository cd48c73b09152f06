-- A sink of 1.0, with a committed batch and one that was prepared. check_deb
-- compares what this prints with the lines that begin with "prints:".
CREATE EXTENSION revenue_sink;
SELECT extversion FROM pg_extension WHERE extname = 'revenue_sink';
-- prints: 1.0
DO $$ BEGIN PERFORM revenue_sink.create_sink('orders'); END $$;
CALL revenue_sink.recover('orders', 'billing', NULL) \gset

BEGIN;
SELECT revenue_sink.begin_batch('orders', 'billing', 'consumer-1', :epoch, 1);
-- prints: t
SELECT * FROM revenue_sink.apply('orders', '{order-7,order-7,order-8}'::text[], '{evt-1,evt-2,evt-1}'::text[],
	'{2024-03-01 10:01:12+00,2024-03-01 10:01:48+00,2024-03-01 10:02:03+00}'::timestamptz[], '{40,25,12.50}'::numeric[]);
-- prints: 3|0|0|0|0|0
DO $$ BEGIN PERFORM revenue_sink.store_offsets('orders', 'payments', '{0}', '{3}'); END $$;
COMMIT;

BEGIN;
SELECT revenue_sink.begin_batch('orders', 'billing', 'consumer-1', :epoch, 2);
-- prints: t
SELECT revenue_sink.apply('orders', 'order-9', 'evt-1', '2024-03-01 10:02:30+00', 9.99);
-- prints: applied
SELECT revenue_sink.pre_commit('orders') AS gid \gset
PREPARE TRANSACTION :'gid';
CALL revenue_sink.commit_prepared(:'gid');
-- prints: committed
-- For upgrade_after.sql
CREATE TABLE held AS SELECT :epoch AS epoch, :'gid' AS gid;
