-- The topic as SQL reads it: lines of order_id,event_id,event_time,amount.
CREATE TABLE payments (line STRING) WITH (
  'connector' = 'kafka',
  'topic' = '@TOPIC@',
  'properties.bootstrap.servers' = '@BOOTSTRAP@',
  'properties.group.id' = 'sql',
  'properties.isolation.level' = 'read_committed',
  'scan.startup.mode' = 'earliest-offset',
  'format' = 'raw'
);
CREATE TABLE revenue (
  amount DECIMAL(12, 2),
  event_time TIMESTAMP_LTZ(3),
  event_id STRING,
  order_id STRING
) WITH (
  'connector' = 'revenue-sink',
  'url' = '@URL@',
  'sink-name' = 'orders',
  'job-name' = 'sql',
  'sink.delivery' = '@DELIVERY@',
  'sink.batch-size' = '500'
);
INSERT INTO revenue
SELECT CAST(SPLIT_INDEX(line, ',', 3) AS DECIMAL(12, 2)),
  TO_TIMESTAMP_LTZ(UNIX_TIMESTAMP(SPLIT_INDEX(line, ',', 2), 'yyyy-MM-dd''T''HH:mm:ssX'), 0),
  SPLIT_INDEX(line, ',', 1),
  SPLIT_INDEX(line, ',', 0)
FROM payments;
