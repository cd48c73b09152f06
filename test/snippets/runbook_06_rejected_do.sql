SELECT revenue_sink.apply('orders', 'o93', 'paid', '2024-03-02 10:20+00', 12, 'web');
SELECT revenue_sink.resolve('orders', 'discard', array_agg(letter), 'the shop has sent it with its amount')
FROM revenue_sink.dead_letter WHERE sink = 'orders' AND reason = 'amount is null';
