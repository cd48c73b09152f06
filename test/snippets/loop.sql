-- Start: a new epoch (without it the server chooses one). From here on the
-- writer's former self can't commit.
CALL revenue_sink.open_writer('orders', 'billing', 'consumer-1', epoch => 1);

-- Where to seek: nothing for a partition means from its beginning.
SELECT partition, next_offset FROM revenue_sink.offsets('orders', 'payments');

-- A batch: one transaction, numbered upwards within the epoch.
BEGIN;
SELECT revenue_sink.begin_batch('orders', 'billing', 'consumer-1', 1, 1);
SELECT * FROM revenue_sink.apply('orders',
    ARRAY['order-11', 'order-12'], ARRAY['evt-1', 'evt-1'],
    ARRAY['2024-03-01 10:04:05+00', '2024-03-01 10:04:06+00']::timestamptz[],
    ARRAY[30, 7.50]);
SELECT revenue_sink.store_offsets('orders', 'payments', ARRAY[0], ARRAY[2]);
COMMIT;

-- Was the answer to that COMMIT lost? The same epoch and number once more.
BEGIN;
SELECT revenue_sink.begin_batch('orders', 'billing', 'consumer-1', 1, 1);
-- False: it is there. COMMIT (which makes this answer durable), go on with 2.
COMMIT;

-- Somebody starts the same writer elsewhere; this one is a zombie now.
CALL revenue_sink.open_writer('orders', 'billing', 'consumer-1', epoch => 2);
BEGIN;
SELECT revenue_sink.begin_batch('orders', 'billing', 'consumer-1', 1, 2);
\echo SQLSTATE :SQLSTATE
ROLLBACK;
