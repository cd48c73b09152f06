--
-- The traced example: what this extension is for, step by step.
--
-- Order 7 is paid in two parts: 40 at 10:01:12 and 25 at 10:01:48. The stream
-- delivers each event at least once; the minute 10:01 must say 65, whatever
-- happens on the way. (test/t/001_crash_example.pl does the same with a server
-- that really crashes.)
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS revenue_sink;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';

-- We make a sink: fact_revenue_1m is the table that one reads, and order_events
-- is the one that a connector may write to.
SELECT revenue_sink.create_sink('orders');

-- These queries show what a reader sees of the minute, and where the processor
-- would go on.
PREPARE minute AS
	SELECT minute, revenue, events FROM fact_revenue_1m ORDER BY minute;
PREPARE next_offset AS
	SELECT source, partition, next_offset FROM revenue_sink.offsets('orders') ORDER BY 1, 2;

-- The processor starts: it opens an epoch, and is told where to seek (nowhere).
CALL revenue_sink.open_writer('orders', 'billing', 'consumer-1', epoch => 1);
EXECUTE next_offset;

-- The first part of the payment arrives, at offset 41 of the topic.
BEGIN;
SELECT revenue_sink.begin_batch('orders', 'billing', 'consumer-1', 1, 1);
SELECT revenue_sink.apply('orders', 'order-7', 'evt-9f2', '2024-03-01 10:01:12+00', 40);
SELECT revenue_sink.store_offsets('orders', 'payments', '{0}', '{42}');
COMMIT;
EXECUTE minute;

-- evt-9f3 arrives. The minute and the offset commit together: 65, and 43.
BEGIN;
SELECT revenue_sink.begin_batch('orders', 'billing', 'consumer-1', 1, 2);
SELECT revenue_sink.apply('orders', 'order-7', 'evt-9f3', '2024-03-01 10:01:48+00', 25);
SELECT revenue_sink.store_offsets('orders', 'payments', '{0}', '{43}');
COMMIT;
EXECUTE minute;
EXECUTE next_offset;

-- The next event belongs to another minute. Its row is written, and the
-- processor's own transaction sees it ...
BEGIN;
SELECT revenue_sink.begin_batch('orders', 'billing', 'consumer-1', 1, 3);
SELECT revenue_sink.apply('orders', 'order-7', 'evt-9f4', '2024-03-01 10:02:03+00', 12.50);
SELECT revenue_sink.store_offsets('orders', 'payments', '{0}', '{44}');
EXECUTE minute;
-- ... but before the commit everything is lost, as in a crash.
ROLLBACK;

-- The minute and the offset are those of the last commit: neither is ahead of the
-- other.
EXECUTE minute;
EXECUTE next_offset;
SELECT e AS event, revenue_sink.seen('orders', 'order-7', e)
FROM unnest('{evt-9f2,evt-9f3,evt-9f4}'::text[]) AS e ORDER BY e;

-- The processor starts again: it opens a new epoch, which its former self can't
-- use.
CALL revenue_sink.open_writer('orders', 'billing', 'consumer-1', epoch => 2);
SELECT revenue_sink.begin_batch('orders', 'billing', 'consumer-1', 1, 3);
\echo SQLSTATE :SQLSTATE

-- The processor replays, and goes back further than it must.
BEGIN;
SELECT revenue_sink.begin_batch('orders', 'billing', 'consumer-1', 2, 1);
SELECT * FROM revenue_sink.apply('orders',
	ARRAY['order-7', 'order-7'], ARRAY['evt-9f3', 'evt-9f4'],
	ARRAY['2024-03-01 10:01:48+00', '2024-03-01 10:02:03+00']::timestamptz[],
	ARRAY[25, 12.50]);
SELECT revenue_sink.store_offsets('orders', 'payments', '{0}', '{44}');
COMMIT;

-- The minute still says 65.
EXECUTE minute;
EXECUTE next_offset;

-- The answer to that COMMIT was lost, so the processor tries once more: false
-- says that the batch is there, and is to be skipped. The processor sends COMMIT,
-- because that makes this answer as durable as the batch that the answer speaks
-- of.
BEGIN;
SELECT revenue_sink.begin_batch('orders', 'billing', 'consumer-1', 2, 1);
COMMIT;

-- The source itself, which has its own retries, delivers the same event once
-- more, with another offset and without any protocol.
INSERT INTO order_events (order_id, event_id, event_time, amount)
VALUES ('order-7', 'evt-9f3', '2024-03-01 10:01:48+00', 25);

-- The minute still says 65; and merging changes how the revenue is stored, not
-- what it is.
EXECUTE minute;
SELECT revenue_sink.merge('orders');
EXECUTE minute;
SELECT * FROM revenue_sink.check('orders');
SELECT applied, duplicate, batches, seen_events, unmerged_deltas
FROM revenue_sink.stat_sink WHERE sink = 'orders';

SELECT revenue_sink.drop_sink('orders');
