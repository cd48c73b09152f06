SELECT minute, revenue, sum(revenue) OVER (ORDER BY minute) AS so_far
FROM fact_revenue_1m
WHERE minute >= '2024-03-31' AND minute < '2024-04-01' AND group_key = 'web'
ORDER BY minute LIMIT 3;
