SELECT reason, order_id, event_id, event_time, amount, group_key
FROM revenue_sink.dead_letter
WHERE sink = 'orders' AND resolution IS NULL
ORDER BY reason, arrived_at, order_id;
