SELECT gid FROM revenue_sink.prepared
WHERE sink = 'orders' AND job = 'billing' AND writer = 'reader-2' AND number = 2 AND state = 'in doubt' \gset
CALL revenue_sink.rollback_prepared(:'gid');
SELECT revenue_sink.outcome(:'gid');
