--
-- The setting retain: which minutes are removed, which events come too late for
-- them, and that a reader sees a minute whole or not at all.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS revenue_sink;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
\set SHOW_CONTEXT never

-- These values are refused.
SELECT revenue_sink.create_sink('s', retain => '0');
SELECT revenue_sink.create_sink('s', retain => '-1 day');
SELECT revenue_sink.create_sink('s', retain => '1 month');
SELECT revenue_sink.create_sink('s', retain => '23 hours');
SELECT revenue_sink.create_sink('s', dedup_window => '1 hour', retain => '59 minutes');
SELECT count(*) FROM revenue_sink.sink;

-- The default, NULL, keeps all minutes for ever. retain may not be shorter than
-- the dedup window.
SELECT revenue_sink.create_sink('s', dedup_window => '1 hour');
PREPARE setting AS SELECT dedup_window, retain FROM revenue_sink.sink WHERE sink = 's';
EXECUTE setting;
SELECT revenue_sink.alter_sink('s', retain => '59 minutes');
SELECT revenue_sink.alter_sink('s', retain => '-1 day');
SELECT revenue_sink.alter_sink('s', retain => '1 month');
SELECT revenue_sink.alter_sink('s', retain => '1 hour');
EXECUTE setting;
-- Such a setting is refused, whichever of the two is altered; if both are altered
-- at once, the new values count.
SELECT revenue_sink.alter_sink('s', dedup_window => '61 minutes');
SELECT revenue_sink.alter_sink('s', dedup_window => '3 hours', retain => '2 hours');
SELECT revenue_sink.alter_sink('s', dedup_window => '2 hours', retain => '4 hours');
EXECUTE setting;
SELECT revenue_sink.alter_sink('s', dedup_window => '1 hour');
-- NULL leaves retain as it is, and 0 turns it off.
SELECT revenue_sink.alter_sink('s', retain => NULL);
EXECUTE setting;
SELECT revenue_sink.alter_sink('s', retain => '0');
EXECUTE setting;
SELECT revenue_sink.alter_sink('s', dedup_window => '1 day');
SELECT revenue_sink.alter_sink('s', dedup_window => '1 hour');

CREATE FUNCTION pay(id text, at interval, amount numeric DEFAULT 1) RETURNS text LANGUAGE sql AS $$
	SELECT revenue_sink.apply('s', 'o', id, '2024-03-01 00:00:00+00'::timestamptz + at, amount) $$;
PREPARE state AS SELECT horizon, retained_from, removed, discarded, late FROM revenue_sink.stat_sink WHERE sink = 's';
PREPARE fact AS SELECT minute, revenue, events FROM fact_revenue_1m ORDER BY minute;
SELECT substring(revenue_sink.relation_of('s', 'total')::text FROM '[0-9]+') AS id \gset
PREPARE tables AS SELECT (SELECT count(*) FROM revenue_sink.total_:id) AS totals,
	(SELECT count(*) FROM revenue_sink.delta_:id WHERE minute > '-infinity') AS deltas;

-- Without retain nothing is removed.
SELECT pay('a', '10:00'), pay('b', '10:30:59'), pay('c', '10:31'), pay('d', '11:00'), pay('e', '13:00');
SELECT revenue_sink.merge('s'), revenue_sink.expire('s');
EXECUTE state;
EXECUTE fact;

-- The horizon is 12:00. The sink keeps two and a half hours, of which the dedup
-- window is one: the limit is 10:30. The limit is the start of a bucket, even if
-- the horizon isn't.
SELECT revenue_sink.alter_sink('s', retain => '2 hours 30 minutes');
SELECT pay('f', '13:00:59.9');
SELECT revenue_sink.expire('s');
EXECUTE state;
EXECUTE fact;
EXECUTE tables;
SELECT * FROM revenue_sink.check('s');
-- An event for a removed bucket is late,
SELECT pay('a', '10:00'), pay('g', '10:29:59.999999');
SELECT reason, event_id FROM revenue_sink.dead_letter WHERE sink = 's' ORDER BY event_id;

-- whatever late_policy says: 'apply' counts only events between the limit and the
-- horizon.
SELECT revenue_sink.alter_sink('s', late_policy => 'apply');
SELECT pay('h', '10:29:59.999999', 5), pay('h', '10:30', 5), pay('i', '10:30:30', 7);
SELECT * FROM revenue_sink.apply('s', ARRAY['o', 'o', 'o'], ARRAY['j', 'k', 'l'],
	ARRAY['2024-03-01 10:00+00', '2024-03-01 10:59+00', '2024-03-01 13:01+00']::timestamptz[], ARRAY[1, 2, 3]);
EXECUTE fact;
SELECT * FROM revenue_sink.check('s');

-- Unmerged deltas are removed with their bucket, too.
EXECUTE tables;
SELECT pay('m', '13:31');
SELECT revenue_sink.expire('s');
EXECUTE state;
EXECUTE fact;
EXECUTE tables;
SELECT * FROM revenue_sink.check('s');

-- Like the horizon, the limit never falls: a longer retain, or none, brings no
-- bucket back and lets no event in.
SELECT revenue_sink.alter_sink('s', retain => '10 days');
SELECT revenue_sink.expire('s');
SELECT pay('n', '10:59:59');
EXECUTE state;
SELECT revenue_sink.alter_sink('s', retain => '0');
SELECT revenue_sink.expire('s');
SELECT pay('n', '10:59:59');
EXECUTE state;
-- A longer dedup window lets the limit rise up to the horizon, and not past it.
SELECT revenue_sink.alter_sink('s', dedup_window => '5 hours', retain => '5 hours');
SELECT revenue_sink.expire('s');
EXECUTE state;
EXECUTE fact;
SELECT * FROM revenue_sink.check('s');
SELECT revenue_sink.alter_sink('s', dedup_window => '1 hour', retain => '2 hours');

-- If expire() is rolled back, nothing is removed, and no event is late. The
-- rollback of a savepoint does the same.
BEGIN;
SELECT pay('p', '15:00');
SELECT revenue_sink.expire('s');
EXECUTE fact;
ROLLBACK;
EXECUTE state;
EXECUTE fact;
SELECT pay('q', '12:31');
BEGIN;
SAVEPOINT one;
SELECT pay('p', '15:00');
SELECT revenue_sink.expire('s');
SELECT pay('r', '12:31');
ROLLBACK TO one;
SELECT pay('s', '12:31');
COMMIT;
EXECUTE fact;
SELECT * FROM revenue_sink.check('s');

-- An event of a prepared transaction holds the horizon back, and thereby the
-- limit.
BEGIN;
SELECT pay('t', '13:05');
PREPARE TRANSACTION 'held';
SELECT pay('u', '20:00');
SELECT revenue_sink.expire('s');
EXECUTE state;
-- A deferred event does the same.
SELECT pay('t', '13:05');
SELECT revenue_sink.expire('s');
ROLLBACK PREPARED 'held';
SELECT revenue_sink.expire('s');
EXECUTE state;
SELECT revenue_sink.merge('s');
EXECUTE fact;
SELECT revenue_sink.expire('s');
EXECUTE state;
EXECUTE fact;
SELECT * FROM revenue_sink.check('s');

-- late_policy 'apply' promises nothing. An event of a prepared transaction, whose
-- bucket is removed meanwhile, is discarded and counted as such, and no reader
-- ever sees it.
BEGIN;
SELECT pay('v', '18:30', 100);
PREPARE TRANSACTION 'held';
SELECT pay('v', '18:30', 100), pay('w', '23:00');
SELECT revenue_sink.expire('s');
EXECUTE state;
COMMIT PREPARED 'held';
EXECUTE fact;
EXECUTE tables;
SELECT revenue_sink.merge('s');
EXECUTE state;
EXECUTE fact;
EXECUTE tables;
SELECT * FROM revenue_sink.check('s');
-- The deferred copy of that event is no duplicate any more: it is late like any
-- other event.
SELECT reason, event_id FROM revenue_sink.dead_letter WHERE sink = 's' ORDER BY event_id;
SELECT * FROM revenue_sink.deferred;

-- A long time is removed at once, and then the limit would lie before the first
-- timestamp that there is.
SELECT revenue_sink.alter_sink('s', retain => '100000000 days');
SELECT revenue_sink.expire('s');
SELECT revenue_sink.alter_sink('s', dedup_window => '1 microsecond', retain => '1 microsecond');
SELECT revenue_sink.expire('s') > 0 AS expired;
EXECUTE state;
EXECUTE fact;
SELECT * FROM revenue_sink.check('s');

-- Other queries on the fact view see the limit, too.
SELECT revenue_sink.alter_sink('s', dedup_window => '1 hour', retain => '1 hour', late_policy => 'reject');
SELECT * FROM revenue_sink.apply('s', ARRAY(SELECT 'o' || i FROM generate_series(1, 300) i), ARRAY(SELECT 'e' FROM generate_series(1, 300)),
	ARRAY(SELECT '2024-03-02 00:00+00'::timestamptz + i * interval '1 minute' FROM generate_series(1, 300) i), ARRAY(SELECT 1 FROM generate_series(1, 300)));
SELECT revenue_sink.merge('s') > 0 AS merged, revenue_sink.expire('s') > 0 AS expired;
SELECT min(minute), max(minute), count(*), sum(revenue), sum(events) FROM fact_revenue_1m;
SELECT count(*) FROM fact_revenue_1m WHERE minute < '2024-03-02 04:00+00';
SELECT count(*) FROM fact_revenue_1m WHERE minute = '2024-03-02 03:59+00';
SELECT minute FROM fact_revenue_1m ORDER BY minute LIMIT 1;
SELECT * FROM revenue_sink.check('s');

-- Another sink has a limit of its own.
SELECT revenue_sink.create_sink('other', 'fact_other', 'events_other', dedup_window => '1 hour', retain => '1 day');
SELECT revenue_sink.apply('other', 'o', 'e', '2024-03-01 10:00+00', 1);
SELECT revenue_sink.expire('other');
SELECT minute, revenue FROM fact_other;
SELECT sink, retained_from, removed, discarded FROM revenue_sink.stat_sink ORDER BY sink;
SELECT revenue_sink.drop_sink('other');
SELECT revenue_sink.drop_sink('s');
DROP FUNCTION pay;
DEALLOCATE ALL;

--
-- Mode 'totals': the limit counts from the newest minute
--
SELECT revenue_sink.create_sink('t', 'totals', 'total_events', mode => 'totals', dedup_window => '1 hour', retain => '2 hours');
CREATE FUNCTION put(at interval, revenue numeric, version bigint DEFAULT NULL) RETURNS bigint LANGUAGE sql AS $$
	SELECT revenue_sink.upsert('t', ARRAY['2024-03-01 00:00:00+00'::timestamptz + at], ARRAY[revenue], NULL, version) $$;
PREPARE state AS SELECT retained_from, removed, discarded, applied, late FROM revenue_sink.stat_sink WHERE sink = 't';
PREPARE fact AS SELECT minute, revenue FROM totals WHERE minute < '2024-04-01' ORDER BY minute;
SELECT revenue_sink.expire('t');
EXECUTE state;
SELECT put('10:00', 1), put('10:01', 2), put('12:00', 3);
SELECT revenue_sink.expire('t');
EXECUTE state;
EXECUTE fact;
SELECT put('12:01', 4);
SELECT revenue_sink.expire('t');
EXECUTE state;
EXECUTE fact;
SELECT * FROM revenue_sink.check('t');
-- A total that comes too late is not taken, and becomes a dead letter once,
-- through whichever door it comes.
SELECT put('10:00', 9);
SELECT revenue_sink.upsert('t', ARRAY['2024-03-01 10:00+00', '2024-03-01 10:01+00', '2024-03-01 09:00+00']::timestamptz[],
	ARRAY[9, 8, 7], ARRAY['', '', 'EUR']);
INSERT INTO total_events VALUES ('2024-03-01 09:30+00', NULL, 6), ('2024-03-01 12:02+00', NULL, 5);
EXECUTE fact;
SELECT reason, order_id, event_id, event_time, amount, group_key FROM revenue_sink.dead_letter WHERE sink = 't' ORDER BY event_time;
EXECUTE state;
-- A minute in the future, which must be a mistake, removes nothing.
SELECT revenue_sink.upsert('t', ARRAY[date_trunc('minute', now()) + interval '10 days'], ARRAY[1]);
SELECT revenue_sink.expire('t');
EXECUTE state;
SELECT count(*) FROM totals;
-- Minutes that an unfinished transaction may still set are kept, and so are all
-- later ones.
BEGIN;
SELECT put('10:30', 1);
PREPARE TRANSACTION 'held';
SELECT put('14:00', 1);
SELECT revenue_sink.expire('t');
EXECUTE state;
COMMIT PREPARED 'held';
EXECUTE fact;
SELECT revenue_sink.expire('t');
EXECUTE state;
SELECT * FROM revenue_sink.check('t');
-- The minutes that expire()'s own transaction has set are kept, too: their totals
-- can't be ranked before the commit, and are shown until then.
BEGIN;
SELECT put('12:02', 1), put('15:00', 1);
SELECT revenue_sink.expire('t');
SELECT count(*) FROM totals;
COMMIT;
EXECUTE state;
SELECT revenue_sink.expire('t');
EXECUTE state;
-- If expire() is rolled back, the limit is as before.
BEGIN;
SELECT put('20:00', 1);
COMMIT;
BEGIN;
SELECT revenue_sink.expire('t');
ROLLBACK;
EXECUTE state;
SELECT put('13:30', 1);
SELECT revenue_sink.merge('t') > 0 AS merged;
SELECT revenue_sink.expire('t');
EXECUTE state;
EXECUTE fact;
SELECT * FROM revenue_sink.check('t');
SELECT revenue_sink.drop_sink('t');
DROP FUNCTION put;
