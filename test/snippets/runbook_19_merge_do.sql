SELECT revenue_sink.merge('orders') IS NOT NULL AS merged;
