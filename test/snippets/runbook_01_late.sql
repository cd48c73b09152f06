SELECT sink, count(*) AS letters, sum(amount) AS amount,
	min(event_time) AS first_event, max(event_time) AS last_event
FROM revenue_sink.dead_letter WHERE reason = 'late' AND resolution IS NULL GROUP BY sink;
SELECT sink, watermark, horizon, watermark > now() AS ahead_of_clock
FROM revenue_sink.stat_sink WHERE sink = 'orders';
