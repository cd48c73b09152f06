SELECT revenue_sink.resolve('orders', 'discard', array_agg(letter), 'test orders of the shop')
FROM revenue_sink.dead_letter
WHERE sink = 'orders' AND resolution IS NULL AND reason IN ('event_time is too far in the future', 'order_id is empty');
