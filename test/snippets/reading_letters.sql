SELECT date_trunc('hour', minute) AS hour, sum(f.revenue) AS revenue, max(r.letters) AS dead_letters, max(r.amount) AS amount
FROM fact_revenue_1m f
	JOIN (SELECT date_trunc('hour', event_time) AS hour, count(*) AS letters, sum(amount) AS amount
		FROM revenue_sink.dead_letter WHERE sink = 'orders' AND resolution IS NULL GROUP BY 1) AS r
	ON f.minute >= r.hour AND f.minute < r.hour + interval '1 hour'
GROUP BY 1 ORDER BY 1;
