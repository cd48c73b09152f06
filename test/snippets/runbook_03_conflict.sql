SELECT sink, order_id, event_id, event_time, amount, group_key
FROM revenue_sink.dead_letter WHERE reason = 'conflict' AND resolution IS NULL ORDER BY arrived_at;
