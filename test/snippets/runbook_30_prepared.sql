SELECT count(*) AS prepared, current_setting('max_prepared_transactions') AS most FROM pg_prepared_xacts;
SELECT database, owner, count(*) AS prepared, min(gid) AS example FROM pg_prepared_xacts
GROUP BY database, owner ORDER BY prepared DESC;
