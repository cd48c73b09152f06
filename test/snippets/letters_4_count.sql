SELECT revenue_sink.resolve('orders', 'count', array_agg(letter), 'the bank has these two; Ada')
FROM revenue_sink.dead_letter
WHERE sink = 'orders' AND reason = 'late' AND order_id IN ('o90', 'o91');
SELECT * FROM fact_revenue_1m WHERE minute < '2024-03-02';
