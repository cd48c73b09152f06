--
-- The horizon: which events expire, which are late, and what that means for
-- duplicates.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS revenue_sink;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SELECT revenue_sink.create_sink('s', dedup_window => '1 hour');
CREATE FUNCTION pay(id text, at time, amount numeric DEFAULT 1) RETURNS text LANGUAGE sql AS $$
	SELECT revenue_sink.apply('s', 'o', id, '2024-03-01 00:00:00+00'::timestamptz + at::interval, amount) $$;
PREPARE state AS SELECT watermark, horizon, seen_events FROM revenue_sink.stat_sink WHERE sink = 's';
PREPARE fact AS SELECT minute, revenue, events FROM fact_revenue_1m ORDER BY minute;

-- There is nothing to expire, and no watermark.
SELECT revenue_sink.expire('s');
EXECUTE state;

-- Each of these calls makes a page row of its own.
SELECT pay('a', '10:00'), pay('b', '10:30'), pay('c', '10:30:00.000001'), pay('d', '11:30');
-- The watermark is 11:30, so all events up to 10:30 expire.
SELECT revenue_sink.expire('s');
EXECUTE state;
SELECT id, revenue_sink.seen('s', 'o', id) FROM unnest('{a,b,c,d}'::text[]) AS id ORDER BY id;
-- The revenue of expired events stays.
EXECUTE fact;
SELECT * FROM revenue_sink.check('s');

-- A duplicate of an expired event is late: it never counts, and becomes a dead
-- letter once.
SELECT pay('a', '10:00'), pay('b', '10:30'), pay('a', '10:00');
-- An event that nobody has seen is late, too, if it is at the horizon, but not if
-- it is just behind it.
SELECT pay('e', '10:30'), pay('f', '10:30:00.000001'), pay('f', '10:30:00.000001');
-- Late events come in one call with all other kinds.
SELECT * FROM revenue_sink.apply('s', ARRAY['o', 'o', 'o', 'o'], ARRAY['a', 'c', 'g', 'd'],
	ARRAY['2024-03-01 10:00+00', '2024-03-01 10:30:00.000001+00', '2024-03-01 11:45+00', '2024-03-01 11:30+00']::timestamptz[], ARRAY[1, 1, 1, 2]);
INSERT INTO order_events VALUES ('o', 'a', '2024-03-01 10:00:00+00', 1), ('o', 'h', '2024-03-01 09:00:00+00', 1);
SELECT reason, event_id, event_time, amount FROM revenue_sink.dead_letter WHERE sink = 's' ORDER BY event_id;
EXECUTE fact;

-- Inside the window, a duplicate with another time is recognized, as a conflict.
SELECT pay('d', '11:31');
-- Outside of the window it can't be recognized: an event that has the name of an
-- expired event and a new time is a new event. (A retry keeps its event_time;
-- only for a source that stamps its events anew must the window be wider.)
SELECT pay('a', '11:31');
EXECUTE fact;

-- expire() may be repeated, and the horizon never goes back.
SELECT revenue_sink.expire('s');
EXECUTE state;
SELECT revenue_sink.alter_sink('s', dedup_window => '2 hours');
SELECT revenue_sink.expire('s');
EXECUTE state;
SELECT pay('e', '10:40');
SELECT revenue_sink.alter_sink('s', dedup_window => '30 minutes');
SELECT revenue_sink.expire('s');
EXECUTE state;
SELECT * FROM revenue_sink.check('s');

-- A page row stays as long as its newest event; older events in the row are late.
SELECT * FROM revenue_sink.apply('s', ARRAY['o', 'o'], ARRAY['i1', 'i2'],
	ARRAY['2024-03-01 11:50+00', '2024-03-01 12:30+00']::timestamptz[], ARRAY[1, 1]);
SELECT revenue_sink.expire('s') > 0 AS expired;
EXECUTE state;
SELECT pay('i1', '11:50'), pay('i2', '12:30');

-- If the transaction of an expire() is rolled back, no event has expired and none
-- is late.
BEGIN;
SELECT pay('j', '13:30');
SELECT revenue_sink.expire('s');
ROLLBACK;
EXECUTE state;
SELECT pay('i2', '12:30'), pay('k', '12:20');
-- Rolling back another savepoint doesn't take the expire() back.
BEGIN;
SELECT revenue_sink.create_sink('t', 'fact_t', 'events_t', dedup_window => '1 hour');
SELECT revenue_sink.apply('t', 'o', id, at, 1) FROM (VALUES ('early', '2024-03-01 10:00+00'::timestamptz),
	('late', '2024-03-01 12:00+00')) AS e (id, at);
COMMIT;
BEGIN;
SELECT revenue_sink.expire('t');
SAVEPOINT one;
ROLLBACK TO one;
DO $$ BEGIN RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN END $$;
SELECT revenue_sink.apply('t', 'o', 'early', '2024-03-01 10:00+00', 1);
COMMIT;
SELECT revenue_sink.apply('t', 'o', 'early', '2024-03-01 10:00+00', 1);
-- What expired in a savepoint that was released belongs to the savepoint around
-- it.
BEGIN;
SELECT revenue_sink.apply('t', 'o', 'later', '2024-03-01 14:00+00', 1);
COMMIT;
BEGIN;
SAVEPOINT one;
SAVEPOINT two;
SELECT revenue_sink.expire('t');
RELEASE two;
ROLLBACK TO one;
COMMIT;
SELECT revenue_sink.apply('t', 'o', 'late', '2024-03-01 12:00+00', 1);
-- Several sinks expire in a transaction that is rolled back.
BEGIN;
SELECT pay('j', '13:00');
SELECT revenue_sink.expire('s') >= 0 AS s, revenue_sink.expire('t') >= 0 AS t;
ROLLBACK;
SELECT revenue_sink.apply('t', 'o', 'late', '2024-03-01 12:00+00', 1);
EXECUTE state;
-- Late events that late_policy 'apply' counts are no promise: while their
-- transaction is undecided, they don't hold the horizon back.
SELECT revenue_sink.alter_sink('t', late_policy => 'apply');
SELECT revenue_sink.expire('t') > 0 AS expired;
BEGIN;
SELECT revenue_sink.apply('t', 'o', 'very late', '2024-02-01 10:00+00', 1);
PREPARE TRANSACTION 'late';
SELECT revenue_sink.apply('t', 'o', 'very late', '2024-02-01 10:00+00', 1),
	revenue_sink.apply('t', 'o', 'new', '2024-03-01 18:00+00', 1);
SELECT revenue_sink.expire('t') > 0 AS expired;
SELECT horizon FROM revenue_sink.stat_sink WHERE sink = 't';
COMMIT PREPARED 'late';
-- An event that isn't late holds the horizon back, though late events came with
-- it.
BEGIN;
SELECT applied FROM revenue_sink.apply('t', ARRAY['o', 'o'], ARRAY['too late', 'in time'],
	ARRAY['2024-02-01 10:00+00', '2024-03-01 17:30+00']::timestamptz[], ARRAY[1, 1]);
PREPARE TRANSACTION 'late';
SELECT revenue_sink.apply('t', 'o', 'newer', '2024-03-01 20:00+00', 1);
SELECT revenue_sink.expire('t') > 0 AS expired;
SELECT horizon FROM revenue_sink.stat_sink WHERE sink = 't';
ROLLBACK PREPARED 'late';
SELECT revenue_sink.drop_sink('t');
BEGIN;
SELECT pay('j', '13:30');
SAVEPOINT one;
SELECT revenue_sink.expire('s') >= 0 AS done;
ROLLBACK TO one;
COMMIT;
SELECT pay('i2', '12:30'), pay('k', '12:20');
SELECT * FROM revenue_sink.check('s');

-- Events of undecided transactions hold the horizon back: if their transactions
-- roll back the events come again, and must not be late then.
BEGIN;
SELECT pay('l', '13:10');
PREPARE TRANSACTION 'undecided';
SELECT pay('m', '15:00');
SELECT revenue_sink.expire('s') > 0 AS expired;
EXECUTE state;
-- A deferred event holds the horizon back, too.
SELECT pay('l', '13:10');
ROLLBACK PREPARED 'undecided';
SELECT revenue_sink.expire('s');
EXECUTE state;
SELECT revenue_sink.merge('s') > 0 AS merged;
SELECT revenue_sink.seen('s', 'o', 'l');
SELECT revenue_sink.expire('s') > 0 AS expired;
EXECUTE state;
SELECT pay('l', '13:10');
SELECT * FROM revenue_sink.check('s');

--
-- late_policy 'apply': late events count, without a promise.
--
SELECT revenue_sink.alter_sink('s', late_policy => 'apply');
SELECT pay('late', '08:00'), pay('late', '08:00');
SELECT minute, revenue FROM fact_revenue_1m WHERE minute < '2024-03-01 09:00+00';
SELECT revenue_sink.expire('s') > 0 AS expired;
SELECT pay('late', '08:00');
SELECT minute, revenue FROM fact_revenue_1m WHERE minute < '2024-03-01 09:00+00';
SELECT count(*) FROM revenue_sink.dead_letter WHERE event_id = 'late';
SELECT revenue_sink.alter_sink('s', late_policy => 'reject');
SELECT pay('late', '08:00');
SELECT * FROM revenue_sink.check('s');
SELECT revenue_sink.drop_sink('s');
DROP FUNCTION pay;

--
-- Writers: the slowest live writer decides on the watermark
--
SELECT revenue_sink.create_sink('s', dedup_window => '1 hour');
CALL revenue_sink.recover('s', 'job', NULL, 1);
BEGIN;
SELECT revenue_sink.begin_batch('s', 'job', 'fast', 1, 1), revenue_sink.apply('s', 'o', '1', '2024-03-01 20:00+00', 1);
COMMIT;
BEGIN;
SELECT revenue_sink.begin_batch('s', 'job', 'slow', 1, 1), revenue_sink.apply('s', 'o', '2', '2024-03-01 12:00+00', 1);
COMMIT;
SELECT revenue_sink.expire('s');
EXECUTE state;
-- An event a little behind the slow writer isn't late, however far ahead the fast
-- writer is.
SELECT revenue_sink.apply('s', 'o', '3', '2024-03-01 11:00:01+00', 1), revenue_sink.apply('s', 'o', '4', '2024-03-01 11:00:00+00', 1);
BEGIN;
SELECT revenue_sink.begin_batch('s', 'job', 'slow', 1, 2), revenue_sink.apply('s', 'o', '5', '2024-03-01 19:00+00', 1);
COMMIT;
SELECT revenue_sink.expire('s');
EXECUTE state;
SELECT * FROM revenue_sink.check('s');
SELECT revenue_sink.drop_sink('s');

--
-- State shrinks when events expire: rows and index entries go at once; the space
-- in the file is used again after a VACUUM.
--
SELECT revenue_sink.create_sink('s', dedup_window => '1 hour');
INSERT INTO order_events SELECT 'o' || i, 'e', '2024-03-01 10:00+00'::timestamptz + i * interval '10 milliseconds', 0.5
FROM generate_series(1, 100000) AS i;
SELECT seen_bytes_memory AS memory, seen_bytes_disk AS disk FROM revenue_sink.stat_sink WHERE sink = 's' \gset
SELECT format('revenue_sink.seen_%s', id) AS seen_table FROM revenue_sink.sink_catalog WHERE name = 's' \gset
SELECT seen_events, :memory >= 100000 * 8 AS memory_used, :disk >= 100000 * 16 AS disk_used FROM revenue_sink.stat_sink WHERE sink = 's';
INSERT INTO order_events VALUES ('last', 'e', '2024-03-01 14:00+00', 0.5);
SELECT revenue_sink.expire('s') > 0 AS expired;
VACUUM :seen_table;
SELECT seen_events, seen_bytes_memory < :memory / 2 AS less_memory FROM revenue_sink.stat_sink WHERE sink = 's';
INSERT INTO order_events SELECT 'o' || i, 'e', '2024-03-01 14:10+00'::timestamptz + i * interval '10 milliseconds', 0.5
FROM generate_series(1, 100000) AS i;
SELECT seen_events, seen_bytes_memory < :memory * 1.5 AS no_more_memory, seen_bytes_disk < :disk * 1.5 AS no_more_disk
FROM revenue_sink.stat_sink WHERE sink = 's';
SELECT revenue_sink.apply('s', 'o77', 'e', '2024-03-01 10:00:00.77+00', 0.5);
SELECT sum(revenue) AS revenue, sum(events) AS events FROM fact_revenue_1m;
SELECT * FROM revenue_sink.check('s');
SELECT revenue_sink.drop_sink('s');
