SELECT sink, reason, count(*) AS letters, min(order_id) AS example
FROM revenue_sink.dead_letter WHERE reason NOT IN ('late', 'conflict') AND resolution IS NULL
GROUP BY sink, reason ORDER BY sink, reason;
