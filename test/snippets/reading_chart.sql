SELECT to_char(date_trunc('hour', minute), 'DD HH24:MI') AS hour,
	repeat('#', (20 * sum(revenue) / max(sum(revenue)) OVER ())::int) AS revenue
FROM fact_revenue_1m
WHERE minute >= '2024-04-01 06:00'
GROUP BY date_trunc('hour', minute) ORDER BY date_trunc('hour', minute);
