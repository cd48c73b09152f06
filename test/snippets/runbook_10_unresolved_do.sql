SELECT revenue_sink.resolve('orders', 'discard', array_agg(letter), 'a test order of the shop')
FROM revenue_sink.dead_letter WHERE sink = 'orders' AND order_id = 'o92' AND resolution IS NULL;
SELECT sink, unresolved_letters, oldest_unresolved FROM revenue_sink.stat_sink ORDER BY sink;
