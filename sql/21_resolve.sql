--
-- Dead letters and what a person does with them: resolve() counts or discards the event
-- of each once, and the event that comes again is neither counted nor kept once more.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS revenue_sink;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
\set SHOW_CONTEXT never
SELECT revenue_sink.create_sink('s', dedup_window => '1 hour', on_bad_event => 'reject');
CREATE FUNCTION pay(id text, at interval, amount numeric DEFAULT 1, key text DEFAULT '') RETURNS text LANGUAGE sql AS $$
	SELECT revenue_sink.apply('s', 'o', id, '2024-03-01 00:00:00+00'::timestamptz + at, amount, key) $$;
CREATE FUNCTION letters_of(id text, why text DEFAULT NULL) RETURNS bytea[] LANGUAGE sql AS $$
	SELECT array_agg(letter ORDER BY amount, reason) FROM revenue_sink.dead_letter
	WHERE sink = 's' AND event_id = id AND reason = coalesce(why, reason) $$;
CREATE FUNCTION count(id text, why text DEFAULT NULL) RETURNS bigint LANGUAGE sql AS $$
	SELECT revenue_sink.resolve('s', 'count', letters_of(id, why)) $$;
CREATE FUNCTION discard(id text, why text DEFAULT NULL) RETURNS bigint LANGUAGE sql AS $$
	SELECT revenue_sink.resolve('s', 'discard', letters_of(id, why)) $$;
-- What a call says, without what differs from run to run
CREATE FUNCTION say(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
	more text;
	what text;
BEGIN
	EXECUTE statement INTO result;
	RETURN result;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS result = MESSAGE_TEXT, more = PG_EXCEPTION_DETAIL, what = PG_EXCEPTION_HINT;
	RETURN SQLSTATE || ' ' || regexp_replace(regexp_replace(concat_ws(' ', result || ':', nullif(more, ''), nullif(what, '')),
		'\\x[0-9a-f]{64}', '<letter>', 'g'), 'at 20[0-9: .-]*\+00|at 20[0-9: .-]* UTC', 'at <time>', 'g');
END $$;
PREPARE letters AS SELECT reason, event_id, amount, resolution, resolved_by = current_user AS by_me, resolved_at > arrived_at AS after, note
	FROM revenue_sink.dead_letter WHERE sink = 's' ORDER BY event_id, amount, reason;
PREPARE facts AS SELECT minute, revenue, events FROM fact_revenue_1m ORDER BY minute;
PREPARE stat AS SELECT applied, duplicate, conflict, late, rejected, unresolved_letters,
	oldest_unresolved = (SELECT min(arrived_at) FROM revenue_sink.dead_letter WHERE sink = 's' AND resolution IS NULL) AS oldest
	FROM revenue_sink.stat_sink WHERE sink = 's';

-- There is nothing to resolve.
EXECUTE stat;
SELECT revenue_sink.resolve('s', 'count', '{}');

-- The horizon is 10:00. Late events, conflicts and bad events wait for a person.
SELECT pay('a', '10:30'), pay('b', '11:00');
SELECT revenue_sink.expire('s');
SELECT pay('late 1', '9:00', 10), pay('late 2', '9:01', 20), pay('late 3', '9:01', 40),
	pay('a', '10:30', 2), pay('null', '10:30', NULL), pay('', '10:31', 5), pay(NULL, '10:31', 5);
EXECUTE letters;
EXECUTE facts;
EXECUTE stat;
SELECT count(DISTINCT letter), min(length(letter)), max(length(letter)) FROM revenue_sink.dead_letter;

-- One is counted, one discarded. A call may be repeated.
SELECT revenue_sink.resolve('s', 'count', letters_of('late 1'), 'the truck was slow');
SELECT revenue_sink.resolve('s', 'discard', letters_of('late 2'), note => NULL);
SELECT count('late 1'), count('late 1'), discard('late 2');
EXECUTE letters;
EXECUTE facts;
EXECUTE stat;
SELECT * FROM revenue_sink.check('s');
-- A counted event is seen until it expires, which it does at once.
SELECT revenue_sink.seen('s', 'o', 'late 1');
SELECT revenue_sink.merge('s') > 0 AS merged, revenue_sink.expire('s') AS expired;
SELECT revenue_sink.seen('s', 'o', 'late 1');
EXECUTE facts;
SELECT * FROM revenue_sink.check('s');

-- Not the other way round
SELECT say($$ SELECT discard('late 1') $$);
SELECT say($$ SELECT count('late 2') $$);
EXECUTE facts;

-- The event that comes again is a duplicate, by each door, and is no dead letter.
SELECT pay('late 1', '9:00', 10), pay('late 1', '9:00', 10.00), pay('late 2', '9:01', 20);
SELECT * FROM revenue_sink.apply('s', ARRAY['o', 'o', 'o'], ARRAY['late 1', 'late 2', 'late 3'],
	ARRAY['2024-03-01 09:00+00', '2024-03-01 09:01+00', '2024-03-01 09:01+00']::timestamptz[], ARRAY[10, 20, 40]);
SELECT * FROM revenue_sink.apply('s', '[{"order_id": "o", "event_id": "late 2", "event_time": "2024-03-01 09:01+00", "amount": 20}]');
INSERT INTO order_events VALUES ('o', 'late 1', '2024-03-01 09:00+00', 10), ('o', 'late 2', '2024-03-01 09:01+00', 20);
EXECUTE stat;
-- So is not the event with another payload: it contradicts what was counted, or is late,
-- and says so, but it is neither counted nor kept.
SELECT pay('late 1', '9:00', 11), pay('late 1', '9:02', 10), pay('late 1', '9:00', 10, 'g'), pay('late 2', '9:01', 21);
-- Not even when it comes in time
SELECT pay('late 1', '10:45', 10), pay('late 1', '10:45', 10), pay('late 2', '10:45', 20), pay('late 2', '10:45', NULL);
SELECT revenue_sink.apply('s', 'o', 'late 1', '2100-01-01 00:00+00', 10);
EXECUTE letters;
EXECUTE facts;
EXECUTE stat;
-- Two copies of an event wait. Both in one call are refused, and nothing has happened
-- then. One of them is counted, and that resolves the other one, too.
SELECT pay('two', '9:03', 1), pay('two', '9:03', 2);
SELECT say($$ SELECT count('two') $$);
SELECT say($$ SELECT revenue_sink.resolve('s', 'count', letters_of('late 1') || letters_of('two')) $$);
EXECUTE facts;
PREPARE two AS SELECT amount, resolution, resolved_letter = letter AS is_it FROM revenue_sink.dead_letter
	WHERE event_id = 'two' ORDER BY amount;
EXECUTE two;
SELECT revenue_sink.resolve('s', 'count', (letters_of('two'))[2:2]);
EXECUTE two;
EXECUTE facts;
EXECUTE stat;
-- Again, no amount counts, though a warning says so of the other one.
SET client_min_messages = error;
SELECT count('two');
RESET client_min_messages;
SELECT count(*) FROM revenue_sink.dead_letter WHERE event_id = 'two';
SELECT revenue_sink.resolve('s', 'count', (letters_of('two'))[2:2]);
SELECT say($$ SELECT discard('two') $$);
EXECUTE facts;
SELECT pay('two', '9:03', 1), pay('two', '9:03', 2), pay('two', '9:03', 3);
-- Both can be discarded in one call: that is one resolution.
SELECT pay('neither', '9:03', 1), pay('neither', '9:03', 2);
SELECT discard('neither');
SELECT pay('neither', '9:03', 1), pay('neither', '9:03', 2);
SELECT * FROM revenue_sink.check('s');

-- What cannot be counted
SELECT say($$ SELECT revenue_sink.resolve('s', 'count', (letters_of('a'))) $$);
SELECT say($$ SELECT count('null') $$);
SELECT say($$ SELECT count('') $$);
SELECT say($$ SELECT revenue_sink.resolve('s', 'count', ARRAY[letter]) $$ || 'FROM revenue_sink.dead_letter WHERE event_id IS NULL');
-- A call that fails in the midst of its letters has resolved none of them.
SELECT say($$ SELECT revenue_sink.resolve('s', 'count', letters_of('late 3') || letters_of('null')) $$);
EXECUTE facts;
-- All of them can be discarded.
SELECT revenue_sink.resolve('s', 'discard', array_agg(letter)) FROM revenue_sink.dead_letter WHERE event_id IN ('a', 'null', '') OR event_id IS NULL;
SELECT pay('a', '10:30', 2), pay('null', '10:30', NULL), pay('', '10:31', 5), pay(NULL, '10:31', 5);
-- Events without a name are only known by all that they have.
SELECT pay('', '10:31', 6), pay(NULL, '10:31', 6), pay('null', '10:31', NULL);
EXECUTE stat;
-- The event that a person has discarded because it was bad does not count any more,
-- even when it is corrected. So it must have been corrected before.
SELECT pay('null', '10:30', 7);
SELECT pay('null 2', '10:30', NULL), pay('null 2', '10:30', 7), discard('null 2');
SELECT pay('null 2', '10:30', NULL), pay('null 2', '10:30', 7), pay('null 2', '10:30', 8);
EXECUTE facts;
SELECT * FROM revenue_sink.check('s');

-- A late copy after a conflict, which waits: the first copy was counted before. After
-- the conflict was discarded, the first copy that comes again is just late.
SELECT pay('b', '11:00', 3), pay('c', '13:00');
SELECT revenue_sink.expire('s') > 0 AS expired;
SELECT revenue_sink.seen('s', 'o', 'b'), pay('b', '11:00', 1), pay('b', '11:00', 3);
SELECT say($$ SELECT revenue_sink.resolve('s', 'count', (letters_of('b', 'late'))[1:1]) $$);
SELECT discard('b', 'conflict'), discard('b');
SELECT pay('b', '11:00', 1), pay('b', '11:00', 3);
SELECT reason, amount, resolution FROM revenue_sink.dead_letter WHERE event_id = 'b' ORDER BY 1, 2;

-- A discarded event is not counted when it is in time again: what was too far in
-- the future,
SELECT revenue_sink.apply('s', 'o', 'ahead', '2100-01-01 00:00+00', 5), revenue_sink.apply('s', 'o', 'ahead too', '2100-01-01 00:00+00', 5),
	revenue_sink.apply('s', 'o', 'ahead, bad', 'infinity', 5);
SELECT say($$ SELECT count('ahead') $$), say($$ SELECT count('ahead, bad') $$);
SELECT discard('ahead'), discard('ahead, bad');
SELECT revenue_sink.alter_sink('s', max_future => '100000 days');
SELECT revenue_sink.apply('s', 'o', 'ahead', '2100-01-01 00:00+00', 5), revenue_sink.apply('s', 'o', 'ahead, bad', 'infinity', 5);
SELECT * FROM revenue_sink.apply('s', ARRAY['o', 'o'], ARRAY['ahead', 'ahead'],
	ARRAY['2100-01-01 00:00+00', '2100-01-01 00:00+00']::timestamptz[], ARRAY[5, 5]);
SELECT count(*) FROM fact_revenue_1m WHERE minute > '2100-01-01';
-- what contradicted a copy that has expired since,
SELECT pay('d', '13:10'), pay('d', '13:50', 2), discard('d'), pay('e', '14:20');
SELECT revenue_sink.expire('s') > 0 AS expired;
SELECT pay('d', '13:10'), pay('d', '13:50', 2);
-- while the time of another one has come, which can be counted now. A copy of it that
-- comes afterwards is known.
BEGIN;
SELECT count('ahead too'), revenue_sink.apply('s', 'o', 'ahead too', '2100-01-01 00:00+00', 5);
SELECT revenue, events FROM fact_revenue_1m WHERE minute = '2100-01-01';
SELECT * FROM revenue_sink.check('s');
ROLLBACK;
SELECT revenue_sink.alter_sink('s', max_future => '5 minutes');
SELECT * FROM revenue_sink.check('s');

-- late_policy 'apply' counts late events, but none that is resolved.
SELECT revenue_sink.create_sink('p', 'p_fact', 'p_events', dedup_window => '1 hour');
CREATE FUNCTION pay_p(id text, at interval, amount numeric DEFAULT 1) RETURNS text LANGUAGE sql AS $$
	SELECT revenue_sink.apply('p', 'o', id, '2024-03-01 00:00:00+00'::timestamptz + at, amount) $$;
SELECT pay_p('a', '11:00'), revenue_sink.expire('p');
SELECT pay_p('1', '9:00', 10), pay_p('2', '9:00', 20), pay_p('3', '9:00', 40);
SELECT revenue_sink.resolve('p', CASE event_id WHEN '1' THEN 'count' ELSE 'discard' END, ARRAY[letter])
FROM revenue_sink.dead_letter WHERE sink = 'p' AND event_id < '3' ORDER BY event_id;
SELECT revenue_sink.alter_sink('p', late_policy => 'apply');
SELECT revenue_sink.expire('p') AS expired, revenue_sink.seen('p', 'o', '1');
SELECT pay_p('1', '9:00', 10), pay_p('2', '9:00', 20), pay_p('1', '9:00', 11), pay_p('2', '9:00', 21), pay_p('3', '9:00', 40);
SELECT minute, revenue, events FROM p_fact ORDER BY minute;
-- The policy has counted what waited: there is nothing to count any more.
SELECT say($$ SELECT revenue_sink.resolve('p', 'count', ARRAY[letter]) FROM revenue_sink.dead_letter WHERE sink = 'p' AND event_id = '3' $$);
SELECT event_id, amount, reason, resolution FROM revenue_sink.dead_letter WHERE sink = 'p' ORDER BY event_id, amount;
SELECT * FROM revenue_sink.check('p');

-- A bucket that retain has removed takes no event.
SELECT pay_p('4', '7:59', 80) AS applied, revenue_sink.alter_sink('p', late_policy => 'reject', retain => '3 hours');
SELECT pay_p('5', '7:59', 80), pay_p('6', '8:00', 160);
SELECT revenue_sink.expire('p') > 0 AS removed;
SELECT say($$ SELECT revenue_sink.resolve('p', 'count', ARRAY[letter]) FROM revenue_sink.dead_letter WHERE sink = 'p' AND event_id = '5' $$);
SELECT revenue_sink.resolve('p', 'count', ARRAY[letter]) FROM revenue_sink.dead_letter WHERE sink = 'p' AND event_id = '6';
SELECT minute, revenue, events FROM p_fact ORDER BY minute;
SELECT revenue_sink.merge('p') > 0 AS merged, revenue_sink.expire('p') AS expired;
SELECT minute, revenue, events FROM p_fact ORDER BY minute;
SELECT * FROM revenue_sink.check('p');
SELECT revenue_sink.drop_sink('p');

-- A resolution is as transactional as the amount.
SELECT pay('r 1', '9:10', 1000), pay('r 2', '9:10', 2000), pay('r 3', '9:10', 4000);
BEGIN;
SELECT count('r 1');
SELECT pay('r 1', '9:10', 1000);
ROLLBACK;
SELECT pay('r 1', '9:10', 1000), (SELECT count(*) FROM revenue_sink.dead_letter WHERE event_id = 'r 1');
BEGIN;
SAVEPOINT one;
SELECT count('r 1'), discard('r 2');
ROLLBACK TO one;
SELECT discard('r 1'), count('r 2');
SAVEPOINT two;
SELECT count('r 3');
RELEASE two;
SELECT pay('r 1', '9:10', 1000), pay('r 2', '9:10', 2000), pay('r 3', '9:10', 4000);
COMMIT;
SELECT event_id, resolution FROM revenue_sink.dead_letter WHERE event_id LIKE 'r %' ORDER BY event_id;
SELECT revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 09:10+00';
-- Even in a transaction with an old snapshot
SELECT pay('r 4', '9:10', 8000);
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT count('r 4');
SELECT revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 09:10+00';
COMMIT;
SELECT * FROM revenue_sink.check('s');
-- It can't be prepared, not even when it has done nothing.
BEGIN;
SELECT count('r 4');
PREPARE TRANSACTION 'resolve';
-- A prepared transaction has the same event.
SELECT pay('r 5', '9:11', 1), revenue_sink.alter_sink('s', late_policy => 'apply');
BEGIN;
SELECT pay('r 5', '9:11', 1);
PREPARE TRANSACTION 'resolve';
SELECT say($$ SELECT count('r 5') $$);
ROLLBACK PREPARED 'resolve';
SELECT count('r 5');
SELECT revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 09:11+00';
-- A deferred copy is settled as a duplicate.
SELECT revenue_sink.alter_sink('s', late_policy => 'reject');
SELECT pay('r 6', '9:12', 1), revenue_sink.alter_sink('s', late_policy => 'apply');
BEGIN;
SELECT pay('r 6', '9:12', 1);
PREPARE TRANSACTION 'resolve';
SELECT pay('r 6', '9:12', 1);
ROLLBACK PREPARED 'resolve';
SELECT count('r 6');
SELECT revenue_sink.expire('s') > 0 AS expired;
SELECT revenue_sink.merge('s') > 0 AS settled;
SELECT revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 09:12+00';
SELECT count(*) FROM revenue_sink.deferred;
SELECT revenue_sink.alter_sink('s', late_policy => 'reject');
SELECT * FROM revenue_sink.check('s');

-- When the letters are gone, the resolutions stay.
DELETE FROM revenue_sink.dead_letter_event WHERE sink_id > 0 AND event_id IN ('late 1', 'late 2', '', 'r 1', 'ahead');
SELECT pay('late 1', '9:00', 10), pay('late 2', '9:01', 20), pay('', '10:31', 5), pay('r 1', '9:10', 1000);
SELECT count(*) FROM revenue_sink.dead_letter WHERE event_id IN ('late 1', 'late 2', '', 'r 1', 'ahead');
SELECT pay('late 3', '9:01', 40), letters_of('late 3') AS letters \gset
SELECT count('late 3');
DELETE FROM revenue_sink.dead_letter_event WHERE event_id = 'late 3';
SELECT revenue_sink.resolve('s', 'count', :'letters');
SELECT say(format('SELECT revenue_sink.resolve(%L, %L, %L)', 's', 'discard', :'letters'));
-- They have no amount, time or group_key.
SELECT order_id, event_id, reason, resolution, note FROM revenue_sink.resolved_event WHERE sink_id > 0 AND event_id LIKE 'late%' ORDER BY event_id, resolution, reason;
SELECT reason, order_id, event_id FROM revenue_sink.resolved_event WHERE sink_id > 0 AND reason LIKE 'event_id is%' ORDER BY reason;

-- Many at once
CREATE VIEW many AS SELECT a.applied, a.duplicate, a.late FROM (SELECT array_agg('many'::text), array_agg(i::text),
		array_agg('2024-03-01 09:20+00'::timestamptz), array_agg(1::numeric) FROM generate_series(1, 40000) AS i) AS e (o, e, t, a),
	revenue_sink.apply('s', e.o, e.e, e.t, e.a) AS a;
SELECT * FROM many;
SELECT revenue_sink.resolve('s', 'count', array_agg(letter)) FROM revenue_sink.dead_letter WHERE order_id = 'many' AND event_id::int <= 35000;
SELECT revenue_sink.resolve('s', 'discard', array_agg(letter)) FROM revenue_sink.dead_letter WHERE order_id = 'many' AND resolution IS NULL;
SELECT revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 09:20+00';
SELECT * FROM many;
DROP VIEW many;
-- None of them counts when it comes in time, while all others do, whose events are no
-- worse for the crowd.
SELECT revenue_sink.expire('s') > 0 AS expired;
SELECT o, a.applied, a.duplicate, a.conflict FROM (SELECT o, array_agg(o), array_agg(i::text),
		array_agg('2024-03-01 14:30+00'::timestamptz), array_agg(1::numeric)
	FROM generate_series(1, 40000) AS i, unnest('{many,other}'::text[]) AS o GROUP BY o) AS e (o, os, e, t, a),
	revenue_sink.apply('s', e.os, e.e, e.t, e.a) AS a ORDER BY o;
SELECT revenue, events FROM fact_revenue_1m WHERE minute = '2024-03-01 14:30+00';
SELECT count(*) FROM revenue_sink.dead_letter WHERE order_id = 'many';
SELECT * FROM revenue_sink.check('s');

-- Arguments
SELECT say($$ SELECT revenue_sink.resolve('no', 'count', '{}') $$);
SELECT say($$ SELECT revenue_sink.resolve('s', 'Count', '{}') $$);
SELECT say($$ SELECT revenue_sink.resolve('s', NULL, '{}') $$);
-- No letters, as array_agg() has none where it finds no row
SELECT revenue_sink.resolve('s', 'count', NULL), revenue_sink.resolve('s', 'discard', '{}');
SELECT say($$ SELECT revenue_sink.resolve('s', 'count', '{NULL}') $$);
SELECT say($$ SELECT revenue_sink.resolve('s', 'count', '{{"\\x00"},{"\\x01"}}') $$);
SELECT say($$ SELECT revenue_sink.resolve('s', 'count', '{"\\x0001"}') $$);
SELECT say($$ SELECT revenue_sink.resolve('s', 'discard', ARRAY[decode(repeat('ab', 32), 'hex')]) $$);
SELECT say($$ SELECT revenue_sink.resolve('s', 'discard', ARRAY[decode(repeat('ab', 33), 'hex')]) $$);
BEGIN READ ONLY;
SELECT say($$ SELECT revenue_sink.resolve('s', 'discard', '{}') $$);
COMMIT;

-- Resolving is for the owner.
CREATE ROLE regress_clerk;
GRANT INSERT ON order_events TO regress_clerk;
GRANT SELECT ON fact_revenue_1m TO regress_clerk;
SET ROLE regress_clerk;
SELECT count(*) > 0 AS sees_letters FROM revenue_sink.dead_letter WHERE resolution IS NULL;
SELECT unresolved_letters > 0 AS sees_number FROM revenue_sink.stat_sink;
SELECT say($$ SELECT revenue_sink.resolve('s', 'discard', '{}') $$);
SELECT count(*) FROM revenue_sink.resolved_event;
RESET ROLE;
DROP OWNED BY regress_clerk;
DROP ROLE regress_clerk;

-- check() finds what nobody could do through the functions.
SELECT substring(revenue_sink.relation_of('s', 'total')::text FROM '[0-9]+') AS id \gset
BEGIN;
ALTER TABLE revenue_sink.resolved_event DROP CONSTRAINT resolved_event_pkey;
INSERT INTO revenue_sink.resolved_event SELECT sink_id, event, '\x00', reason, order_id, event_id, 'count', now(), 'me'
	FROM revenue_sink.resolved_event WHERE event_id = 'late 3';
UPDATE revenue_sink.dead_letter_event SET letter = '\x00' WHERE event_id = 'two' AND amount = 1;
SELECT * FROM revenue_sink.check('s');
ROLLBACK;

-- What is imported: an event that a person has discarded is not imported any more, and
-- does not count.
SELECT revenue_sink.create_sink('i', 'i_fact', 'i_events', on_bad_event => 'reject');
SELECT revenue_sink.apply('i', 'o', '1', '2024-03-01 10:00+00', NULL::numeric);
SELECT revenue_sink.resolve('i', 'discard', array_agg(letter)) FROM revenue_sink.dead_letter WHERE sink = 'i';
SELECT revenue_sink.import_totals('i', ARRAY['2024-03-01 10:00+00']::timestamptz[], ARRAY[30], NULL, ARRAY[2]);
SELECT * FROM revenue_sink.import_seen('i', ARRAY['o', 'o'], ARRAY['1', '2'],
	ARRAY['2024-03-01 10:00+00', '2024-03-01 10:00+00']::timestamptz[], ARRAY[10, 20]);
SELECT revenue_sink.apply_each('i', ARRAY['o', 'o', 'o', 'o'], ARRAY['1', '1', '2', '3'],
	array_fill('2024-03-01 10:00+00'::timestamptz, ARRAY[4]), ARRAY[NULL, 10, 20, 40]);
SELECT minute, revenue, events FROM i_fact;
SELECT * FROM revenue_sink.check('i');
SELECT revenue_sink.drop_sink('i');
-- In mode 'totals' only totals for removed buckets wait, which can't be counted.
SELECT revenue_sink.create_sink('t', 'totals', 'total_in', mode => 'totals', dedup_window => '1 hour', retain => '1 hour');
SELECT revenue_sink.upsert('t', '{2024-03-01 10:00+00,2024-03-01 12:00+00}', '{1,2}');
SELECT revenue_sink.expire('t');
SELECT revenue_sink.upsert('t', '{2024-03-01 10:01+00,2024-03-01 10:01+00,2024-03-01 10:02+00}', '{5,5,6}', '{a,a,b}');
SELECT say($$ SELECT revenue_sink.resolve('t', 'count', array_agg(letter)) FROM revenue_sink.dead_letter WHERE sink = 't' $$);
SELECT revenue_sink.resolve('t', 'discard', array_agg(letter), 'too old') FROM revenue_sink.dead_letter WHERE sink = 't' AND group_key = 'a';
SELECT revenue_sink.upsert('t', '{2024-03-01 10:01+00,2024-03-01 10:02+00,2024-03-01 10:02+00}', '{5,6,7}', '{a,b,b}');
SELECT event_time, amount, group_key, resolution, note FROM revenue_sink.dead_letter WHERE sink = 't' ORDER BY event_time, amount;
DELETE FROM revenue_sink.dead_letter_event WHERE group_key = 'a';
SELECT revenue_sink.upsert('t', '{2024-03-01 10:01+00}', '{5}', '{a}');
SELECT unresolved_letters FROM revenue_sink.stat_sink WHERE sink = 't';
SELECT minute, revenue FROM totals ORDER BY minute;
SELECT * FROM revenue_sink.check('t');

-- A dropped sink leaves no resolution behind.
SELECT revenue_sink.drop_sink('t'), revenue_sink.drop_sink('s');
SELECT count(*) FROM revenue_sink.resolved_event;
DROP FUNCTION pay, pay_p, letters_of, count(text, text), discard, say;
