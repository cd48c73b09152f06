SELECT reason, count(*) AS letters, sum(amount) AS amount, min(event_time) AS first_event, max(event_time) AS last_event
FROM revenue_sink.dead_letter
WHERE sink = 'orders' AND resolution IS NULL
GROUP BY reason ORDER BY letters DESC, reason;
