SELECT reason, order_id, amount, resolution, resolved_by, note
FROM revenue_sink.dead_letter
WHERE sink = 'orders' AND resolved_at > now() - interval '1 day'
ORDER BY reason, order_id;
