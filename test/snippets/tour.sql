-- A sink: the view fact_revenue_1m to read, the view order_events to write.
CREATE EXTENSION revenue_sink;
SELECT revenue_sink.create_sink('orders');

-- Three events: two parts of one payment, and another order's.
SELECT * FROM revenue_sink.apply('orders',
    ARRAY['order-7', 'order-7', 'order-8'],
    ARRAY['evt-1', 'evt-2', 'evt-1'],
    ARRAY['2024-03-01 10:01:12+00', '2024-03-01 10:01:48+00', '2024-03-01 10:02:03+00']::timestamptz[],
    ARRAY[40, 25, 12.50]);
SELECT * FROM fact_revenue_1m ORDER BY minute, group_key;

-- The very same call again, as a processor does that has lost the answer.
SELECT * FROM revenue_sink.apply('orders',
    ARRAY['order-7', 'order-7', 'order-8'],
    ARRAY['evt-1', 'evt-2', 'evt-1'],
    ARRAY['2024-03-01 10:01:12+00', '2024-03-01 10:01:48+00', '2024-03-01 10:02:03+00']::timestamptz[],
    ARRAY[40, 25, 12.50]);
SELECT * FROM fact_revenue_1m ORDER BY minute, group_key;

-- The other doors: a table to INSERT and COPY into, jsonb, one event.
INSERT INTO order_events (order_id, event_id, event_time, amount, group_key)
VALUES ('order-9', 'evt-1', '2024-03-01 10:02:30+00', 9.99, 'web'),
       ('order-7', 'evt-2', '2024-03-01 10:01:48+00', 25, NULL);
\copy order_events FROM PROGRAM 'echo order-9,evt-2,2024-03-01 10:02:41+00,-9.99,web' WITH (FORMAT csv)
SELECT * FROM revenue_sink.apply('orders', '[{"order_id": "order-10", "event_id": "evt-1",
    "event_time": "2024-03-01T10:03:00Z", "amount": 5, "group_key": "app"}]');

-- A known event with another amount: the first one stands, this one becomes a dead letter.
SELECT revenue_sink.apply('orders', 'order-7', 'evt-2', '2024-03-01 10:01:48+00', 26);
SELECT reason, order_id, event_id, amount FROM revenue_sink.dead_letter;

-- What it all came to.
SELECT * FROM fact_revenue_1m ORDER BY minute, group_key;
SELECT applied, duplicate, deferred, conflict, late, rejected, seen_events
FROM revenue_sink.stat_sink WHERE sink = 'orders';
SELECT * FROM revenue_sink.check('orders');
