SELECT now() - max(minute) AS behind FROM fact_revenue_1m \gset
