CREATE MATERIALIZED VIEW revenue_1h AS
	SELECT date_trunc('hour', minute) AS hour, group_key, sum(revenue) AS revenue, sum(events) AS events
	FROM fact_revenue_1m GROUP BY 1, 2;
CREATE UNIQUE INDEX ON revenue_1h (hour, group_key);
REFRESH MATERIALIZED VIEW CONCURRENTLY revenue_1h;
SELECT * FROM revenue_1h ORDER BY hour DESC, group_key LIMIT 2;
