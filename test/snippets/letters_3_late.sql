SELECT order_id, event_id, event_time, amount, stat.horizon - event_time AS late_by
FROM revenue_sink.dead_letter JOIN revenue_sink.stat_sink AS stat USING (sink)
WHERE sink = 'orders' AND reason = 'late' AND resolution IS NULL
ORDER BY event_time;
