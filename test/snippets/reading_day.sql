SELECT date_trunc('hour', minute, 'Europe/Berlin') AT TIME ZONE 'Europe/Berlin' AS hour, sum(revenue) AS revenue
FROM fact_revenue_1m
WHERE minute >= '2024-03-31 00:00 Europe/Berlin' AND minute < '2024-03-31 06:00 Europe/Berlin'
GROUP BY 1 ORDER BY 1;
