SELECT revenue_sink.resolve('orders', 'count', array_agg(letter), 'the bank has it, and the sink had not')
FROM revenue_sink.dead_letter WHERE sink = 'orders' AND reason = 'late' AND order_id = 'o90';
SELECT revenue_sink.resolve('orders', 'discard', array_agg(letter), 'counted last week')
FROM revenue_sink.dead_letter WHERE sink = 'orders' AND reason = 'late' AND order_id = 'o91';
SELECT revenue_sink.alter_sink('orders', dedup_window => '2 days');
