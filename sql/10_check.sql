--
-- check() finds damage that only a superuser can do; this test does that damage
-- by hand.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS revenue_sink;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SELECT revenue_sink.create_sink('s', dedup_window => '1000 days');
SELECT revenue_sink.create_sink('other', 'other_fact', 'other_events', dedup_window => '1000 days');
SELECT id, format('revenue_sink.seen_%s', id) AS seen_table, format('revenue_sink.delta_%s', id) AS delta_table,
	format('revenue_sink.total_%s', id) AS total_table FROM revenue_sink.sink_catalog WHERE name = 's' \gset

-- A sink that has rows of every kind is fine.
CALL revenue_sink.open_writer('s', 'job', 'w', epoch => 1);
BEGIN;
SELECT revenue_sink.begin_batch('s', 'job', 'w', 1, 1);
INSERT INTO order_events SELECT 'o' || i, 'e', '2024-03-01 10:01+00'::timestamptz + i % 5 * interval '1 minute', 1
FROM generate_series(1, 1000) AS i;
COMMIT;
SELECT revenue_sink.merge('s') > 0 AS merged;
BEGIN;
SELECT revenue_sink.begin_batch('s', 'job', 'w', 1, 2);
SELECT revenue_sink.apply('s', 'o', 'one', '2024-03-01 10:01+00', 1);
SELECT revenue_sink.apply('s', 'o', 'two', '2024-03-01 10:02+00', 1);
COMMIT;
SELECT revenue_sink.apply('s', 'o', 'two', '2024-03-01 10:02+00', 2);
SELECT * FROM revenue_sink.check('s');
SELECT * FROM revenue_sink.check('other');

-- Revenue is lost: a delta, and a total.
BEGIN;
DELETE FROM :delta_table WHERE minute = '2024-03-01 10:02+00';
SELECT * FROM revenue_sink.check('s');
ROLLBACK;
BEGIN;
DELETE FROM :total_table WHERE minute = '2024-03-01 10:02+00';
SELECT * FROM revenue_sink.check('s');
ROLLBACK;
BEGIN;
TRUNCATE :delta_table;
SELECT * FROM revenue_sink.check('s');
ROLLBACK;
-- There is too much revenue.
BEGIN;
INSERT INTO :delta_table SELECT * FROM :delta_table;
SELECT * FROM revenue_sink.check('s');
ROLLBACK;
BEGIN;
UPDATE :total_table SET events = events + 1 WHERE minute = '2024-03-01 10:02+00';
SELECT * FROM revenue_sink.check('s');
ROLLBACK;
-- A seen event is forgotten: it would count again.
BEGIN;
DELETE FROM :seen_table WHERE events = 1 AND newest = '2024-03-01 10:02+00';
SELECT * FROM revenue_sink.check('s');
ROLLBACK;
-- An event stands in two page rows.
BEGIN;
INSERT INTO :seen_table SELECT * FROM :seen_table WHERE events = 1 AND newest = '2024-03-01 10:02+00';
SELECT regexp_replace(problem, '\(\d+,\d+\)', '(x,y)') AS problem FROM revenue_sink.check('s') ORDER BY 1;
ROLLBACK;
-- A page row contradicts itself.
BEGIN;
UPDATE :seen_table SET oldest = newest + interval '1 minute' WHERE events = 1 AND newest = '2024-03-01 10:02+00';
SELECT regexp_replace(problem, '\(\d+,\d+\)', '(x,y)') AS problem FROM revenue_sink.check('s') ORDER BY 1;
ROLLBACK;
-- The ledger has a batch twice; then it has a range that contains another batch.
BEGIN;
INSERT INTO revenue_sink.ledger SELECT * FROM revenue_sink.ledger WHERE sink_id = :id AND number = 2;
SELECT * FROM revenue_sink.check('s');
ROLLBACK;
BEGIN;
UPDATE revenue_sink.ledger SET last = 7 WHERE sink_id = :id AND number = 1;
SELECT * FROM revenue_sink.check('s');
ROLLBACK;
-- Several problems are found at once; and the other sink isn't concerned.
BEGIN;
DELETE FROM :delta_table WHERE minute = '2024-03-01 10:02+00';
INSERT INTO revenue_sink.ledger SELECT * FROM revenue_sink.ledger WHERE sink_id = :id;
SELECT * FROM revenue_sink.check('s') ORDER BY 1;
SELECT * FROM revenue_sink.check('other');
ROLLBACK;
-- None of these changes was committed.
SELECT * FROM revenue_sink.check('s');

-- A row that was inserted by hand into a block that has been read already is
-- unknown to the index until the file is read anew; check() says so.
INSERT INTO :seen_table SELECT oldest, newest, events, fingerprints FROM :seen_table WHERE events = 1 AND newest = '2024-03-01 10:02+00';
SELECT regexp_replace(problem, '\(\d+,\d+\)', '(x,y)') AS problem FROM revenue_sink.check('s') ORDER BY 1;
-- VACUUM FULL makes a new file, with new addresses, and the index is rebuilt.
VACUUM FULL :seen_table;
SELECT * FROM revenue_sink.check('s') ORDER BY 1;
DELETE FROM :seen_table WHERE ctid = (SELECT max(ctid) FROM :seen_table WHERE events = 1 AND newest = '2024-03-01 10:02+00');
SELECT revenue_sink.apply('s', 'o', 'two', '2024-03-01 10:02+00', 1), revenue_sink.apply('s', 'o1', 'e', '2024-03-01 10:02+00', 1);
SELECT * FROM revenue_sink.check('s');
-- An emptied page table has seen no events, and check() says so.
TRUNCATE :seen_table;
SELECT revenue_sink.seen('s', 'o', 'two');
SELECT * FROM revenue_sink.check('s');
SELECT revenue_sink.drop_sink('s');
SELECT revenue_sink.drop_sink('other');
