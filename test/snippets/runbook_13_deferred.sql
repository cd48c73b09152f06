SELECT sink, deferred_waiting, oldest_deferred < now() - interval '10 minutes' AS too_long
FROM revenue_sink.stat_sink WHERE deferred_waiting > 0;
SELECT sink, order_id, event_id FROM revenue_sink.deferred ORDER BY deferred_at;
SELECT fact, gid FROM revenue_sink.explain_event('orders', 'o10', 'paid');
