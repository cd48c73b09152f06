SELECT gid, owner FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared;
SELECT pid, usename, application_name, state FROM pg_stat_activity
WHERE xact_start < now() - interval '10 minutes' AND datname = current_database() ORDER BY xact_start;
SELECT sink, order_id, event_id FROM revenue_sink.deferred ORDER BY deferred_at;
