SELECT sink, reason, count(*) AS letters, sum(amount) AS amount,
	min(arrived_at) < now() - interval '1 day' AS over_a_day
FROM revenue_sink.dead_letter WHERE resolution IS NULL GROUP BY sink, reason ORDER BY sink, reason;
