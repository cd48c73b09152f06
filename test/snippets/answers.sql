-- Tables of your own: what was accepted, what is to be published, what waits.
CREATE TABLE payment (order_id text, event_id text, event_time timestamptz, amount numeric,
    PRIMARY KEY (order_id, event_id));
CREATE TABLE outbox (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, topic text, event jsonb);
CREATE TABLE waiting (LIKE payment);

-- Each event goes to the sink, and by its answer into one of these tables.
PREPARE send(text[], text[], timestamptz[], numeric[]) AS
WITH event AS MATERIALIZED (
        SELECT * FROM unnest($1, $2, $3, $4, revenue_sink.apply_each('orders', $1, $2, $3, $4))
            AS e (order_id, event_id, event_time, amount, answer)),
    accepted AS (
        INSERT INTO payment SELECT order_id, event_id, event_time, amount
        FROM event WHERE answer = 'applied'),
    deferred AS (
        INSERT INTO waiting SELECT order_id, event_id, event_time, amount
        FROM event WHERE answer = 'deferred'),
    published AS (
        INSERT INTO outbox (topic, event)
        SELECT CASE answer WHEN 'applied' THEN 'payments' ELSE 'dead-letters' END, to_jsonb(event)
        FROM event WHERE answer NOT IN ('duplicate', 'deferred'))
SELECT order_id, event_id, amount, answer FROM event;

-- A transaction with two events is prepared, and not finished yet.
BEGIN;
EXECUTE send(ARRAY['order-21', 'order-22'], ARRAY['evt-1', 'evt-1'],
    ARRAY['2024-03-01 10:05:01+00', '2024-03-01 10:05:02+00']::timestamptz[], ARRAY[20, 30]);
PREPARE TRANSACTION 'another writer';

-- A batch with a copy of each of these, a new event that comes twice, and a
-- known event with another amount.
BEGIN;
EXECUTE send(ARRAY['order-21', 'order-23', 'order-23', 'order-7', 'order-22'],
    ARRAY['evt-1', 'evt-1', 'evt-1', 'evt-1', 'evt-1'],
    ARRAY['2024-03-01 10:05:01+00', '2024-03-01 10:05:03+00', '2024-03-01 10:05:03+00',
        '2024-03-01 10:01:12+00', '2024-03-01 10:05:02+00']::timestamptz[],
    ARRAY[20, 40, 40, 41, 30]);
COMMIT;

-- How what waits has ended. Run this again and again, such as every few seconds.
PREPARE settle AS
WITH ended AS (
        DELETE FROM waiting w
        WHERE NOT EXISTS (SELECT FROM revenue_sink.deferred d
            WHERE d.sink = 'orders' AND (d.order_id, d.event_id) = (w.order_id, w.event_id))
        RETURNING w.*, CASE
            WHEN (w.order_id, w.event_id, w.event_time, w.amount) IN (
                SELECT l.order_id, l.event_id, l.event_time, l.amount
                FROM revenue_sink.dead_letter l WHERE l.sink = 'orders' AND l.reason = 'conflict')
            THEN 'conflict'
            ELSE coalesce((SELECT min(s.answer) FROM revenue_sink.settled s
                WHERE s.sink = 'orders' AND (s.order_id, s.event_id) = (w.order_id, w.event_id)
                    AND s.answer <> 'conflict'), 'unknown')
            END AS answer),
    accepted AS (
        INSERT INTO payment SELECT order_id, event_id, event_time, amount
        FROM ended WHERE answer = 'applied' ON CONFLICT DO NOTHING
        RETURNING *, 'applied' AS answer),
    published AS (
        INSERT INTO outbox (topic, event)
        SELECT 'payments', to_jsonb(accepted) FROM accepted
        UNION ALL
        SELECT 'dead-letters', to_jsonb(ended) FROM ended WHERE answer NOT IN ('applied', 'duplicate'))
SELECT order_id, event_id, amount, answer FROM ended ORDER BY order_id;
EXECUTE settle;

-- The other transaction is rolled back, and the worker settles the copies. (Its
-- next round does that; merge() does it now.)
ROLLBACK PREPARED 'another writer';
SELECT revenue_sink.merge('orders') \g /dev/null
SELECT order_id, event_id, answer FROM revenue_sink.settled WHERE sink = 'orders' ORDER BY order_id;
EXECUTE settle;
EXECUTE settle;
SELECT * FROM payment ORDER BY order_id;
SELECT topic, event->>'order_id' AS order_id, event->>'amount' AS amount, event->>'answer' AS answer
FROM outbox ORDER BY id;
