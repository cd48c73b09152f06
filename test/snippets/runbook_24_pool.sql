SELECT used_bytes > 0.8 * bytes AS nearly_full, hot_bytes > 0.5 * bytes AS mostly_hot FROM revenue_sink.stat_pool;
SELECT sink FROM revenue_sink.stat_sink
WHERE seen_bytes_memory > 0.1 * (SELECT bytes FROM revenue_sink.stat_pool) ORDER BY seen_bytes_memory DESC;
