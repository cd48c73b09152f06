SELECT pg_has_role('prometheus', 'pg_read_all_stats', 'USAGE') AS may_watch;
