-- A table over the sink. Columns are found by their names.
CREATE TABLE revenue (
  order_id STRING,
  event_id STRING,
  event_time TIMESTAMP_LTZ(3),
  amount DECIMAL(12, 2)
) WITH (
  'connector' = 'revenue-sink',
  'url' = 'jdbc:postgresql://localhost:5440/postgres',
  'username' = 'postgres',
  'sink-name' = 'orders',
  'job-name' = 'tour'
);

-- Three events: two parts of one payment, and another order's; and the first one once more.
INSERT INTO revenue
SELECT order_id, event_id, TO_TIMESTAMP_LTZ(millis, 3), amount
FROM (VALUES
  ('order-7', 'evt-1', 1709287272000, 40.00),
  ('order-7', 'evt-2', 1709287308000, 25.00),
  ('order-8', 'evt-1', 1709287323000, 12.50),
  ('order-7', 'evt-1', 1709287272000, 40.00)
) AS events (order_id, event_id, millis, amount);
