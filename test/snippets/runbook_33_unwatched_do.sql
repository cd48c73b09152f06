GRANT pg_monitor TO prometheus;
SET ROLE prometheus;
SELECT count(*) AS sinks FROM revenue_sink.stat_sink;
RESET ROLE;
