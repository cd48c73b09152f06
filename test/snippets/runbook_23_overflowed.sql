SELECT sink, seen_events, pg_size_pretty(seen_bytes_hot) AS hot
FROM revenue_sink.stat_sink WHERE index_state = 'overflowed';
