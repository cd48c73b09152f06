SELECT minute, sum(revenue) AS revenue, sum(events) AS events
FROM fact_revenue_1m
WHERE minute > (SELECT max(minute) - interval '1 hour' FROM fact_revenue_1m)
GROUP BY minute ORDER BY minute DESC LIMIT 3;
