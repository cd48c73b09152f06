COMMIT PREPARED 'load of Saturday';
SELECT revenue_sink.merge('orders') IS NOT NULL AS merged;
SELECT order_id, event_id, answer FROM revenue_sink.settled WHERE sink = 'orders';
