SELECT sink, last_error_sqlstate, last_error_message
FROM revenue_sink.stat_sink WHERE last_error > coalesce(last_round, stats_since);
