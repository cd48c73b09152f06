--
-- Which ids are the same, and which only look alike.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS revenue_sink;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SELECT revenue_sink.create_sink('s', dedup_window => '1000 days');
CREATE FUNCTION pay(order_id text, event_id text) RETURNS text LANGUAGE sql AS $$
	SELECT revenue_sink.apply('s', order_id, event_id, '2024-03-01 10:01:00+00', 1) $$;

-- It matters where an order_id ends and the event_id begins.
SELECT pay('a', 'bc'), pay('ab', 'c'), pay('abc', ' '), pay('a', 'bc');
-- Letter case counts, and so do blanks and leading zeros.
SELECT pay('A', 'bc'), pay('a ', 'bc'), pay('a', 'bc '), pay('7', '1'), pay('07', '1');
-- The bytes of an id count, not its look: precomposed and combining characters
-- differ.
SELECT pay(U&'\00E9', '1'), pay(U&'e\0301', '1'), pay(U&'\00E9', '1');
-- These ids differ in their last byte only.
SELECT pay(repeat('x', 1024), '1'), pay(repeat('x', 1023) || 'y', '1'), pay(repeat('x', 1023), 'x1'),
	pay(repeat('x', 1024), '1');
-- One call has all of these ids.
SELECT * FROM revenue_sink.apply('s', '{a,ab,abc,b}', '{bc,c," ",bc}',
	array_fill('2024-03-01 10:01:00+00'::timestamptz, '{4}'), '{1,1,1,1}');
-- Another sink doesn't know these events.
SELECT revenue_sink.create_sink('other', 'other_fact', 'other_events', dedup_window => '1000 days');
SELECT revenue_sink.apply('other', 'a', 'bc', '2024-03-01 10:01:00+00', 1);
SELECT revenue, events FROM fact_revenue_1m;
SELECT revenue, events FROM other_fact;

DROP FUNCTION pay;
SELECT revenue_sink.drop_sink(sink) FROM unnest('{s,other}'::text[]) AS sink;
