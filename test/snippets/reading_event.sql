SELECT fact, late_by, split_part(detail, '; ', 1) AS detail
FROM revenue_sink.explain_event('orders', 'o700', 'e');
