SELECT sink, unresolved_letters, now() - oldest_unresolved < '1 day' AS since_today FROM revenue_sink.stat_sink;
SELECT revenue_sink.resolve('orders', 'count', array_agg(letter))
FROM revenue_sink.dead_letter WHERE sink = 'orders' AND order_id = 'o92';
