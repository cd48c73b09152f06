SELECT group_key, sum(revenue) AS revenue, sum(events) AS events,
	round(100 * sum(revenue) / sum(sum(revenue)) OVER (), 1) AS percent
FROM fact_revenue_1m
WHERE minute >= '2024-03-31' AND minute < '2024-04-01'
GROUP BY group_key ORDER BY revenue DESC;
