BEGIN;
SELECT revenue_sink.apply('orders', 'o1', 'correction of paid', '2024-03-02 10:10+00', 22 - 20, 'web');
SELECT revenue_sink.resolve('orders', 'discard', array_agg(letter), '2 sent as a correction')
FROM revenue_sink.dead_letter WHERE sink = 'orders' AND reason = 'conflict' AND order_id = 'o1';
COMMIT;
