ALTER TABLE revenue_sink.total_2 DROP CONSTRAINT refunds_are_negative;
SELECT revenue_sink.merge('refunds') IS NOT NULL AS merged;
