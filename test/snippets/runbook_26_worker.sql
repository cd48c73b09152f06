SELECT backend_type, datname FROM pg_stat_activity
WHERE backend_type LIKE 'revenue_sink %' AND (datname = current_database() OR datname IS NULL) ORDER BY backend_type;
SELECT name, setting FROM pg_settings
WHERE name IN ('max_worker_processes', 'shared_preload_libraries') ORDER BY name;
