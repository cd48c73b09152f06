SELECT pid, usename, state FROM pg_stat_activity
WHERE backend_xmin IS NOT NULL AND xact_start < now() - interval '10 minutes' ORDER BY age(backend_xmin) DESC;
SELECT slot_name, active FROM pg_replication_slots WHERE xmin IS NOT NULL ORDER BY age(xmin) DESC;
SELECT gid FROM pg_prepared_xacts ORDER BY prepared;
