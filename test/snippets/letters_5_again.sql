SELECT revenue_sink.resolve('orders', 'count', array_agg(letter))
FROM revenue_sink.dead_letter WHERE sink = 'orders' AND order_id = 'o90';
SELECT revenue_sink.apply('orders', 'o90', 'paid', '2024-03-01 09:30+00', 40, 'app');
