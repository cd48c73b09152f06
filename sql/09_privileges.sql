--
-- Privileges are ordinary ones, on the two views of a sink: INSERT on the ingest
-- view is the right to write, SELECT on the fact view is the right to read, and
-- the views' owner may do the rest.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS revenue_sink;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
\set SHOW_CONTEXT never
CREATE ROLE regress_rsink_owner;
CREATE ROLE regress_rsink_heir;
CREATE ROLE regress_rsink_writer;
CREATE ROLE regress_rsink_reader;
CREATE ROLE regress_rsink_nobody;
CREATE ROLE regress_rsink_member IN ROLE regress_rsink_owner;
CREATE SCHEMA regress_shop;
GRANT USAGE ON SCHEMA regress_shop TO PUBLIC;
GRANT CREATE ON SCHEMA regress_shop TO regress_rsink_owner, regress_rsink_heir;

-- Whoever may create views may create a sink, whose views he then owns.
SET ROLE regress_rsink_nobody;
SELECT revenue_sink.create_sink('shop', 'regress_shop.fact', 'regress_shop.events');
\echo SQLSTATE :SQLSTATE
SET ROLE regress_rsink_owner;
SELECT revenue_sink.create_sink('shop', 'regress_shop.fact', 'regress_shop.events', dedup_window => '1000 days');
SELECT sink, owner, fact, ingest FROM revenue_sink.sink;
SET ROLE regress_rsink_heir;
SELECT revenue_sink.create_sink('shop', 'regress_shop.f', 'regress_shop.e');
SELECT revenue_sink.create_sink('secret', 'regress_shop.secret_fact', 'regress_shop.secret_events', mode => 'totals');

-- This function shows what a role may do: a line per call, with its SQLSTATE
-- (42501 is "permission denied").
RESET ROLE;
CREATE FUNCTION regress_shop.may(as_role text) RETURNS TABLE (call text, answer text) LANGUAGE plpgsql AS $$
DECLARE
	message text;
BEGIN
	FOREACH call IN ARRAY ARRAY[
		'SELECT * FROM regress_shop.fact',
		'SELECT * FROM regress_shop.events',
		'INSERT INTO regress_shop.events VALUES (''o'', ''insert'', ''2024-03-01 10:01+00'', 1)',
		'SELECT revenue_sink.apply(''shop'', ''o'', ''one'', ''2024-03-01 10:01+00'', 1)',
		'SELECT revenue_sink.apply(''shop'', ''[]''::jsonb)',
		'SELECT revenue_sink.apply(''shop'', ''{}''::text[], ''{}''::text[], ''{}''::timestamptz[], ''{}''::numeric[])',
		'SELECT revenue_sink.apply_each(''shop'', ''{o}'', ''{each}'', ''{2024-03-01 10:01+00}'', ''{1}'')',
		'SELECT revenue_sink.apply_rows(''shop'', ''\x5047434f50590aff0d0a000000000000000000ffff'')',
		'SELECT revenue_sink.upsert(''secret'', ''{}'', ''{}'')',
		'SELECT revenue_sink.store_offsets(''shop'', ''topic'', ''{0}'', ''{1}'')',
		'SELECT revenue_sink.offsets(''shop'')',
		'SELECT revenue_sink.seen(''shop'', ''o'', ''one'')',
		'SELECT revenue_sink.counters(''shop'')',
		'SELECT revenue_sink.merge(''shop'')',
		'SELECT revenue_sink.expire(''shop'')',
		'SELECT revenue_sink."check"(''shop'')',
		'SELECT revenue_sink.alter_sink(''shop'')',
		'SELECT revenue_sink.drop_sink(''shop'')',
		'SELECT revenue_sink.start_worker()',
		'SELECT nextval(''revenue_sink.sink_id'')',
		'CREATE TABLE revenue_sink.mine ()'] LOOP
		BEGIN
			EXECUTE format('SET LOCAL ROLE %I', as_role);
			EXECUTE call;
			RESET ROLE;
			-- undo the call, so that every role finds the same state
			RAISE EXCEPTION USING ERRCODE = 'TTTTT', MESSAGE = 'ok';
		EXCEPTION WHEN OTHERS THEN
			GET STACKED DIAGNOSTICS message = MESSAGE_TEXT;
			RESET ROLE;
			answer := CASE SQLSTATE WHEN 'TTTTT' THEN 'ok' WHEN '42501' THEN 'denied: ' || message ELSE SQLSTATE || ': ' || message END;
			RETURN NEXT;
		END;
	END LOOP;
END $$;
SELECT * FROM regress_shop.may('regress_rsink_nobody');
SELECT * FROM regress_shop.may('regress_rsink_writer');

-- INSERT on the ingest view is enough to write, by every door, and to read the
-- stored offsets; SELECT on the fact view is enough to read.
SET ROLE regress_rsink_owner;
GRANT INSERT ON regress_shop.events TO regress_rsink_writer;
GRANT SELECT ON regress_shop.fact TO regress_rsink_reader;
RESET ROLE;
SELECT * FROM regress_shop.may('regress_rsink_writer');
SELECT * FROM regress_shop.may('regress_rsink_reader');
SELECT * FROM regress_shop.may('regress_rsink_owner');
-- A member of the owner's role may do what the owner may; a superuser may do all.
SELECT * FROM regress_shop.may('regress_rsink_member') EXCEPT SELECT * FROM regress_shop.may('regress_rsink_owner');
SELECT * FROM regress_shop.may(current_user) WHERE answer <> 'ok';

-- The writer writes.
SET ROLE regress_rsink_writer;
CALL revenue_sink.open_writer('shop', 'job', 'w', epoch => 1);
CALL revenue_sink.recover('shop', 'job', NULL, 2);
BEGIN;
SELECT revenue_sink.begin_batch('shop', 'job', 'w', 2, 1);
SELECT revenue_sink.apply('shop', 'o', 'one', '2024-03-01 10:01+00', 1);
INSERT INTO regress_shop.events VALUES ('o', 'two', '2024-03-01 10:01+00', 2);
COPY regress_shop.events FROM STDIN;
o	three	2024-03-01 10:01+00	4	\N
\.
SELECT revenue_sink.apply('shop', 'o', 'three', '2024-03-01 10:01+00', 5);
SELECT revenue_sink.store_offsets('shop', 'topic', '{0}', '{1}');
COMMIT;
-- Only the owner may finish what a former incarnation has left prepared.
CALL revenue_sink.open_writer('shop', 'job', 'w', 5);
\echo SQLSTATE :SQLSTATE
CALL revenue_sink.recover('shop', 'job', 5);
\echo SQLSTATE :SQLSTATE
-- The reader reads, and may not write.
SET ROLE regress_rsink_reader;
SELECT minute, revenue, events FROM regress_shop.fact;
SELECT revenue_sink.begin_batch('shop', 'job', 'w', 2, 2);
CALL revenue_sink.open_writer('shop', 'job', 'w');
\echo SQLSTATE :SQLSTATE
CALL revenue_sink.recover('shop', 'job', NULL);
\copy regress_shop.events FROM /dev/null
RESET ROLE;

-- The extension's views show each role only the sinks that concern it.
CREATE FUNCTION regress_shop.sees(as_role text)
RETURNS TABLE (role text, sinks text, stats bigint, rejected bigint, deferred bigint, settled bigint, writers bigint)
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('SET LOCAL ROLE %I', as_role);
	RETURN QUERY SELECT as_role, (SELECT string_agg(s.sink, ' ' ORDER BY s.sink) FROM revenue_sink.sink s),
		(SELECT count(*) FROM revenue_sink.stat_sink), (SELECT count(*) FROM revenue_sink.dead_letter),
		(SELECT count(*) FROM revenue_sink.deferred), (SELECT count(*) FROM revenue_sink.settled),
		(SELECT count(*) FROM revenue_sink.writer);
	RESET ROLE;
END $$;
-- There is an event that waits for another transaction, and one that did.
SET ROLE regress_rsink_writer;
BEGIN;
SELECT revenue_sink.apply('shop', 'o', 'settled', '2024-03-01 10:01+00', 0);
PREPARE TRANSACTION 'settled';
SELECT revenue_sink.apply('shop', 'o', 'settled', '2024-03-01 10:01+00', 0);
COMMIT PREPARED 'settled';
BEGIN;
SELECT revenue_sink.apply('shop', 'o', 'deferred', '2024-03-01 10:01+00', 0);
PREPARE TRANSACTION 'deferred';
SELECT revenue_sink.apply('shop', 'o', 'deferred', '2024-03-01 10:01+00', 0);
RESET ROLE;
SELECT revenue_sink.merge('shop') > 0 AS settled;
SELECT * FROM regress_shop.sees('regress_rsink_owner');
SELECT * FROM regress_shop.sees('regress_rsink_writer');
SELECT * FROM regress_shop.sees('regress_rsink_reader');
SELECT * FROM regress_shop.sees('regress_rsink_heir');
SELECT * FROM regress_shop.sees('regress_rsink_nobody');
SELECT sinks, stats, rejected, deferred, settled, writers FROM regress_shop.sees(current_user);
-- A user's function in a query doesn't get to see the rows of others.
CREATE FUNCTION regress_shop.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$
BEGIN
	RAISE NOTICE 'leaked: %', $1;
	RETURN true;
END $$;
SET ROLE regress_rsink_nobody;
SELECT * FROM revenue_sink.dead_letter WHERE regress_shop.leak(order_id);
SELECT * FROM revenue_sink.rejected_event WHERE regress_shop.leak(order_id);
SELECT * FROM revenue_sink.settled WHERE regress_shop.leak(order_id);
SELECT sink FROM revenue_sink.sink WHERE regress_shop.leak(sink);
RESET ROLE;

-- No table of the schema is open to any role; the owner of the views has SELECT
-- on the tables that the views read, and no more.
SELECT r.rolname AS role, regexp_replace(c.relname, '_\d+$', '_N') AS "table", p.privilege
FROM (SELECT * FROM pg_class WHERE relnamespace = 'revenue_sink'::regnamespace AND relkind = 'r') AS c
	CROSS JOIN (SELECT * FROM pg_roles WHERE rolname ~ '^regress_rsink') AS r
	CROSS JOIN unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) AS p (privilege)
WHERE has_table_privilege(r.oid, c.oid, p.privilege) ORDER BY 1, 2, 3;
SELECT format('revenue_sink.total_%s', id) AS total_table FROM revenue_sink.sink_catalog WHERE name = 'shop' \gset
SET ROLE regress_rsink_owner;
SELECT revenue FROM :total_table;
\set VERBOSITY sqlstate
DELETE FROM :total_table;
INSERT INTO :total_table VALUES ('2024-03-01 10:01+00', '', 1, 1);
SELECT hash_key FROM revenue_sink.sink_catalog;
INSERT INTO revenue_sink.ledger VALUES (1);
SELECT * FROM revenue_sink.dead_letter_event;
SELECT * FROM revenue_sink.settled_event;
INSERT INTO revenue_sink.stat_sink (sink) VALUES ('x');
DELETE FROM revenue_sink.deferred;
DELETE FROM revenue_sink.settled;
-- The tables can't be changed through the ingest view either, which takes no
-- updates.
UPDATE regress_shop.events SET event_time = now();
DELETE FROM regress_shop.events;
\set VERBOSITY default
RESET ROLE;
ROLLBACK PREPARED 'deferred';

-- A privilege ends when it is revoked.
REVOKE INSERT ON regress_shop.events FROM regress_rsink_writer;
REVOKE SELECT ON regress_shop.fact FROM regress_rsink_reader;
SET ROLE regress_rsink_writer;
SELECT revenue_sink.apply('shop', 'o', 'four', '2024-03-01 10:01+00', 1);
\echo SQLSTATE :SQLSTATE
SET ROLE regress_rsink_reader;
SELECT * FROM regress_shop.fact;
RESET ROLE;
GRANT INSERT ON regress_shop.events TO regress_rsink_writer;
GRANT SELECT ON regress_shop.fact TO regress_rsink_reader;

-- Both views get a new owner. alter_sink() gives the new owner the rights on the
-- tables.
ALTER VIEW regress_shop.fact OWNER TO regress_rsink_heir;
ALTER VIEW regress_shop.events OWNER TO regress_rsink_heir;
SET ROLE regress_rsink_owner;
SELECT revenue_sink.alter_sink('shop', max_future => '1 hour');
\echo SQLSTATE :SQLSTATE
SET ROLE regress_rsink_heir;
SELECT revenue_sink.alter_sink('shop', max_future => '1 hour');
SELECT sink, owner, max_future FROM revenue_sink.sink ORDER BY sink;
SELECT minute, revenue, events FROM regress_shop.fact;
SELECT revenue_sink.merge('shop');
SELECT * FROM revenue_sink.check('shop');
SET ROLE regress_rsink_reader;
SELECT minute, revenue, events FROM regress_shop.fact;
SET ROLE regress_rsink_writer;
INSERT INTO regress_shop.events VALUES ('o', 'five', '2024-03-01 10:01+00', 8);
RESET ROLE;
SELECT * FROM regress_shop.may('regress_rsink_heir') WHERE answer <> 'ok';
SELECT * FROM regress_shop.sees('regress_rsink_owner');
-- The former owner has no rights on the tables any more.
SELECT count(*) FROM pg_class WHERE relnamespace = 'revenue_sink'::regnamespace AND relkind = 'r'
	AND has_table_privilege('regress_rsink_owner', oid, 'SELECT');

-- Only the extension's owner may drop it.
SET ROLE regress_rsink_heir;
DROP EXTENSION revenue_sink CASCADE;
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.drop_sink('shop');
SELECT revenue_sink.drop_sink('secret');
RESET ROLE;
DROP SCHEMA regress_shop CASCADE;
DROP ROLE regress_rsink_member, regress_rsink_owner, regress_rsink_heir, regress_rsink_writer, regress_rsink_reader, regress_rsink_nobody;
