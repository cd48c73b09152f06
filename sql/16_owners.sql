--
-- Owners: a sink's views are gone, given away or hidden, and its owner gets out
-- of that without help. What a sink says when it fails, and that it never says
-- its key. There is no worker here.
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
CREATE ROLE regress_rsink_nobody;
CREATE ROLE regress_rsink_member IN ROLE regress_rsink_owner;
-- The owner's schema has a sink, which somebody writes to and somebody reads.
CREATE FUNCTION set_up() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	CREATE SCHEMA app AUTHORIZATION regress_rsink_owner;
	GRANT ALL ON SCHEMA app TO PUBLIC;
	SET LOCAL ROLE regress_rsink_owner;
	PERFORM revenue_sink.create_sink('app', 'app.fact', 'app.events', dedup_window => '1000 days');
	GRANT INSERT, SELECT ON app.events TO regress_rsink_writer;
	GRANT SELECT ON app.fact TO regress_rsink_writer;
	PERFORM revenue_sink.apply('app', 'o', 'a', '2024-03-01 10:01+00', 1);
	RESET ROLE;
END $$;
-- This function shows what each role may do about the sink: a line per role.
CREATE FUNCTION may() RETURNS TABLE (role text, sees text, reads text, adopts text, drops text, creates text) LANGUAGE plpgsql AS $$
DECLARE
	calls text[] := ARRAY['SELECT count(*) FROM app.fact', 'SELECT revenue_sink.adopt_sink(''app'')', 'SELECT revenue_sink.drop_sink(''app'')',
		'SELECT revenue_sink.create_sink(''app'', ''app.fact'', ''app.events'')'];
	answers text[];
	call text;
BEGIN
	FOR role IN SELECT rolname FROM pg_roles WHERE rolname ~ '^regress_rsink' ORDER BY oid LOOP
		EXECUTE format('SET LOCAL ROLE %I', role);
		sees := coalesce((SELECT format('%s, owner %s, problem %s', sink, s.owner, problem IS NOT NULL) FROM revenue_sink.sink s WHERE sink = 'app'), 'nothing');
		answers := '{}';
		FOREACH call IN ARRAY calls LOOP
			BEGIN
				EXECUTE format('SET LOCAL ROLE %I', role);
				EXECUTE call;
				-- undo the call, so that every role finds the same state
				RAISE EXCEPTION USING ERRCODE = 'TTTTT';
			EXCEPTION WHEN OTHERS THEN
				answers := answers || CASE SQLSTATE WHEN 'TTTTT' THEN 'ok' ELSE SQLSTATE END;
			END;
			RESET ROLE;
		END LOOP;
		reads := answers[1]; adopts := answers[2]; drops := answers[3]; creates := answers[4];
		RETURN NEXT;
	END LOOP;
END $$;
CREATE VIEW left_behind AS SELECT count(*) FROM pg_class WHERE relnamespace = 'revenue_sink'::regnamespace AND relname ~ '_\d+$';
SELECT count AS before FROM left_behind \gset

--
-- The owner drops the schema, with both views
--
SELECT set_up();
SELECT * FROM may();
SET ROLE regress_rsink_owner;
SET client_min_messages = warning;
DROP SCHEMA app CASCADE;
RESET client_min_messages;
SELECT sink, owner, fact, ingest, problem FROM revenue_sink.sink;
RESET ROLE;
CREATE SCHEMA app AUTHORIZATION regress_rsink_owner;
GRANT ALL ON SCHEMA app TO PUBLIC;
SET ROLE regress_rsink_owner;
SELECT revenue_sink.create_sink('app', 'app.fact', 'app.events');
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.apply('app', 'o', 'b', '2024-03-01 10:01+00', 1);
\echo SQLSTATE :SQLSTATE
SELECT * FROM revenue_sink.offsets('app');
\echo SQLSTATE :SQLSTATE
SELECT revenue_sink.alter_sink('app', max_future => '1 hour');
\echo SQLSTATE :SQLSTATE
SET ROLE regress_rsink_writer;
SELECT revenue_sink.drop_sink('app');
\echo SQLSTATE :SQLSTATE
RESET ROLE;
SELECT * FROM may();
-- The owner drops the sink and makes it again.
SET ROLE regress_rsink_owner;
SELECT revenue_sink.drop_sink('app');
SELECT count(*) FROM revenue_sink.sink;
SELECT revenue_sink.create_sink('app', 'app.fact', 'app.events');
SELECT revenue_sink.drop_sink('app');
RESET ROLE;
DROP SCHEMA app CASCADE;
SELECT count - :before AS left FROM left_behind;

--
-- One of the views is gone. If the ingest view is left, its owner owns the sink;
-- else the owner is who may read the tables
--
SELECT set_up();
DROP VIEW app.fact;
SELECT * FROM may();
SET ROLE regress_rsink_member;
SELECT revenue_sink.drop_sink('app');
RESET ROLE;
DROP SCHEMA app CASCADE;
SELECT set_up();
DROP VIEW app.events;
SELECT * FROM may();
SET ROLE regress_rsink_owner;
SELECT revenue_sink.drop_sink('app');
RESET ROLE;
DROP SCHEMA app CASCADE;
-- A view that has lost its marks doesn't belong to the sink, and stays when the
-- sink is dropped.
SELECT set_up();
SET ROLE regress_rsink_owner;
DROP TRIGGER revenue_sink_row ON app.events;
SELECT sink, owner, fact, ingest, problem FROM revenue_sink.sink;
SELECT revenue_sink.adopt_sink('app');
SELECT sink, owner, fact, ingest, problem FROM revenue_sink.sink;
SELECT revenue_sink.drop_sink('app');
RESET ROLE;
DROP SCHEMA app CASCADE;
SELECT count - :before AS left FROM left_behind;

--
-- REASSIGN OWNED: the new owner of the views owns the sink,
--
SELECT set_up();
REASSIGN OWNED BY regress_rsink_owner TO regress_rsink_heir;
SELECT * FROM may();
SET ROLE regress_rsink_heir;
SELECT revenue_sink.alter_sink('app');
SELECT count(*) FROM app.fact;
RESET ROLE;
SELECT * FROM may();
-- also once the views are gone; the former owner does not.
DROP SCHEMA app CASCADE;
SELECT * FROM may();
SET ROLE regress_rsink_heir;
SELECT revenue_sink.drop_sink('app');
RESET ROLE;
-- The views are gone before anyone has given the new owner the rights on the
-- tables.
SELECT set_up();
REASSIGN OWNED BY regress_rsink_owner TO regress_rsink_heir;
SET ROLE regress_rsink_heir;
DROP VIEW app.events, app.fact;
SELECT revenue_sink.drop_sink('app');
\echo SQLSTATE :SQLSTATE
RESET ROLE;
SET client_min_messages = error;
SELECT count(revenue_sink.drop_sink(name)) FROM revenue_sink.sink_catalog;
RESET client_min_messages;
DROP SCHEMA app CASCADE;
-- One view of two is given away: whoever owns the ingest view owns the sink.
SELECT set_up();
ALTER VIEW app.fact OWNER TO regress_rsink_heir;
SELECT * FROM may();
SET ROLE regress_rsink_owner;
SELECT revenue_sink.alter_sink('app');
RESET ROLE;
SELECT * FROM may();
-- A role that has owned only the fact view may not drop the sink.
DROP VIEW app.fact;
SELECT * FROM may();
SELECT revenue_sink.drop_sink('app');
DROP SCHEMA app CASCADE;

--
-- DROP OWNED, and a role that is dropped
--
SELECT set_up();
-- The owner calls DROP OWNED: it can't take away its own right to read the
-- tables, so the owner can still drop the sink.
SET ROLE regress_rsink_owner;
SET client_min_messages = error;
DROP OWNED BY regress_rsink_owner CASCADE;
RESET client_min_messages;
SELECT sink, owner, fact, ingest, problem FROM revenue_sink.sink;
SELECT revenue_sink.drop_sink('app');
RESET ROLE;
-- A superuser calls DROP OWNED for the owner: the sink is left to the extension's
-- owner.
SELECT set_up();
SET client_min_messages = error;
DROP OWNED BY regress_rsink_owner CASCADE;
RESET client_min_messages;
SELECT * FROM may();
SELECT sink, owner, fact, ingest, problem FROM revenue_sink.sink;
SELECT revenue_sink.drop_sink('app');
-- A dropped role leaves its sink to the extension's owner, and to no other role.
CREATE ROLE regress_rsink_leaver;
SELECT set_up();
ALTER VIEW app.fact OWNER TO regress_rsink_leaver;
ALTER VIEW app.events OWNER TO regress_rsink_leaver;
SELECT revenue_sink.alter_sink('app');
DROP OWNED BY regress_rsink_leaver CASCADE;
DROP ROLE regress_rsink_leaver;
SELECT * FROM may();
SELECT sink, owner, fact, ingest, problem FROM revenue_sink.sink;
SELECT revenue_sink.drop_sink('app');
DROP SCHEMA app CASCADE;
-- While a sink has views, a former owner has no rights on it any more.
SELECT set_up();
REASSIGN OWNED BY regress_rsink_owner TO regress_rsink_heir;
DROP OWNED BY regress_rsink_owner;
SELECT * FROM may() WHERE role ~ 'owner|heir';
SELECT revenue_sink.drop_sink('app');
DROP SCHEMA app CASCADE;
SELECT count - :before AS left FROM left_behind;

--
-- Event triggers run amid the extension's statements, with its search_path: if a
-- trigger doesn't find a name, the error explains why
--
CREATE TABLE ddl_log (tag text, search_path text);
CREATE FUNCTION log_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO ddl_log SELECT command_tag, current_setting('search_path') FROM pg_event_trigger_ddl_commands();
END $$;
CREATE FUNCTION ddl_name() RETURNS text LANGUAGE sql AS 'SELECT ''x''';
CREATE FUNCTION call_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM ddl_name();
END $$;
CREATE EVENT TRIGGER regress_log ON ddl_command_end EXECUTE FUNCTION log_ddl();
SELECT revenue_sink.create_sink('app');
\echo SQLSTATE :SQLSTATE
DROP EVENT TRIGGER regress_log;
CREATE EVENT TRIGGER regress_log ON ddl_command_start EXECUTE FUNCTION call_ddl();
SELECT revenue_sink.create_sink('app');
\echo SQLSTATE :SQLSTATE
DROP EVENT TRIGGER regress_log;
-- The function is altered as the hint says.
ALTER FUNCTION log_ddl SET search_path = public;
CREATE EVENT TRIGGER regress_log ON ddl_command_end EXECUTE FUNCTION log_ddl();
SELECT revenue_sink.create_sink('app');
SELECT count(*) > 10 AS logged FROM ddl_log;
DROP EVENT TRIGGER regress_log;
-- A trigger on sql_drop fails in drop_sink().
CREATE EVENT TRIGGER regress_log ON sql_drop EXECUTE FUNCTION call_ddl();
SELECT revenue_sink.drop_sink('app');
\echo SQLSTATE :SQLSTATE
DROP EVENT TRIGGER regress_log;
SELECT revenue_sink.drop_sink('app');
-- If a name isn't found for another reason, outside of the extension's
-- statements, the error has no such hint.
SELECT revenue_sink.create_sink('app', 'no_schema.fact', 'no_schema.events');
DROP TABLE ddl_log;
DROP FUNCTION log_ddl, call_ddl, ddl_name;

--
-- No message has the secret key, however late create_sink() fails. Sequences keep
-- what a failed transaction has noted: here, its key
--
CREATE SEQUENCE noted_1 MINVALUE -9223372036854775808;
CREATE SEQUENCE noted_2 MINVALUE -9223372036854775808;
CREATE FUNCTION note(key bytea) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF length(key) = 16 THEN
		PERFORM setval('public.noted_1', ('x' || encode(substr(key, 1, 8), 'hex'))::bit(64)::bigint),
			setval('public.noted_2', ('x' || encode(substr(key, 9, 8), 'hex'))::bit(64)::bigint);
	END IF;
END $$;
-- This function collects all that an error says of a call, and looks for the key
-- in it, in any form. "known" tells whether there was a key by then.
CREATE FUNCTION secret(call text, OUT state text, OUT message text, OUT known boolean, OUT leaks boolean) LANGUAGE plpgsql AS $$
DECLARE
	one text; two text; three text; four text; five text; six text; seven text;
	told text;
	key bytea;
BEGIN
	PERFORM setval('noted_1', 1), setval('noted_2', 1);
	BEGIN
		EXECUTE call;
		state := 'ok';
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, one = PG_EXCEPTION_DETAIL,
			two = PG_EXCEPTION_HINT, three = PG_EXCEPTION_CONTEXT, four = COLUMN_NAME, five = CONSTRAINT_NAME,
			six = TABLE_NAME, seven = SCHEMA_NAME;
		told := concat_ws(' ', message, one, two, three, four, five, six, seven);
	END;
	key := decode(lpad(to_hex((SELECT last_value FROM noted_1)), 16, '0') || lpad(to_hex((SELECT last_value FROM noted_2)), 16, '0'), 'hex');
	known := (SELECT last_value FROM noted_1) <> 1;
	leaks := position(encode(key, 'hex') IN told) > 0 OR position(encode(key, 'base64') IN told) > 0
		OR position(encode(key, 'escape') IN told) > 0;
END $$;
-- Once there is a key, this trigger notes it and fails at every statement.
CREATE FUNCTION note_and_fail() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE
	stack text;
BEGIN
	PERFORM public.note(hash_key) FROM revenue_sink.sink_catalog ORDER BY id DESC LIMIT 1;
	GET DIAGNOSTICS stack = PG_CONTEXT;
	IF EXISTS (SELECT FROM revenue_sink.sink_catalog WHERE length(hash_key) = 16) THEN
		RAISE EXCEPTION 'late' USING DETAIL = stack, HINT = current_query();
	END IF;
END $$;
CREATE EVENT TRIGGER regress_late ON ddl_command_start EXECUTE FUNCTION note_and_fail();
SELECT * FROM secret('SELECT revenue_sink.create_sink(''app'')');
DROP EVENT TRIGGER regress_late;
-- A constraint on the catalog fails, and so does a trigger on the catalog,
CREATE FUNCTION note_row() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	stack text;
BEGIN
	PERFORM public.note(NEW.hash_key);
	GET DIAGNOSTICS stack = PG_CONTEXT;
	IF TG_WHEN = 'AFTER' THEN
		RAISE EXCEPTION 'row' USING DETAIL = stack, HINT = current_query();
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER regress_note BEFORE INSERT OR UPDATE ON revenue_sink.sink_catalog FOR EACH ROW EXECUTE FUNCTION note_row();
ALTER TABLE revenue_sink.sink_catalog ADD CONSTRAINT regress_never CHECK (max_future < '1 day');
SELECT * FROM secret('SELECT revenue_sink.create_sink(''app'', max_future => ''2 days'')');
ALTER TABLE revenue_sink.sink_catalog DROP CONSTRAINT regress_never;
CREATE TRIGGER regress_fail AFTER INSERT ON revenue_sink.sink_catalog FOR EACH ROW EXECUTE FUNCTION note_row();
SELECT * FROM secret('SELECT revenue_sink.create_sink(''app'')');
DROP TRIGGER regress_fail ON revenue_sink.sink_catalog;
SELECT revenue_sink.create_sink('app');
-- also in alter_sink(), whose row has the key.
ALTER TABLE revenue_sink.sink_catalog ADD CONSTRAINT regress_never CHECK (max_future < '1 day');
SELECT * FROM secret('SELECT revenue_sink.alter_sink(''app'', max_future => ''2 days'')');
ALTER TABLE revenue_sink.sink_catalog DROP CONSTRAINT regress_never;
CREATE TRIGGER regress_fail AFTER UPDATE ON revenue_sink.sink_catalog FOR EACH ROW EXECUTE FUNCTION note_row();
SELECT * FROM secret('SELECT revenue_sink.alter_sink(''app'', max_future => ''1 hour'')');
DROP TRIGGER regress_fail ON revenue_sink.sink_catalog;
DROP TRIGGER regress_note ON revenue_sink.sink_catalog;
SELECT revenue_sink.drop_sink('app');
-- The extension's owner may not use the schema of the new views.
CREATE ROLE regress_rsink_maker;
CREATE SCHEMA hidden;
BEGIN;
GRANT ALL ON SCHEMA revenue_sink TO regress_rsink_maker;
DO $$
DECLARE
	name text;
BEGIN
	FOR name IN SELECT oid::regclass FROM pg_class WHERE relnamespace = 'revenue_sink'::regnamespace AND relkind IN ('r', 'S') LOOP
		EXECUTE format('ALTER TABLE %s OWNER TO regress_rsink_maker', name);
	END LOOP;
END $$;
SELECT * FROM secret('SELECT revenue_sink.create_sink(''app'', ''hidden.fact'', ''hidden.events'')');
ROLLBACK;
DROP SCHEMA hidden;
DROP ROLE regress_rsink_maker;
-- The server logs a call, its nested statements included.
SELECT current_database() AS db \gset
\setenv PGDATABASE :db
\set secret_log `PGOPTIONS="-c client_min_messages=log -c log_statement=all -c log_min_error_statement=debug5 -c log_duration=on -c debug_print_parse=on -c debug_print_rewritten=on -c debug_print_plan=on -c session_preload_libraries=auto_explain -c auto_explain.log_min_duration=0 -c auto_explain.log_nested_statements=on -c auto_explain.log_verbose=on -c auto_explain.log_analyze=on -c auto_explain.log_triggers=on" psql -XqAt -c "SELECT revenue_sink.create_sink('app')" -c "SELECT revenue_sink.apply('app', 'o', 'a', '2024-03-01 10:01+00', 1)" -c "SELECT revenue_sink.alter_sink('app', max_future => '2 hours')" -c "CALL revenue_sink.recover('app', 'job', NULL, 1)" -c "SELECT revenue_sink.merge('app')" -c "SELECT * FROM revenue_sink.sink" -c "SELECT * FROM revenue_sink.stat_sink" 2>&1`
SELECT length(:'secret_log') > 1000 AS logged, position(encode(hash_key, 'hex') IN :'secret_log') AS hex,
	position(encode(hash_key, 'escape') IN :'secret_log') AS escape, position(encode(hash_key, 'base64') IN :'secret_log') AS base64
FROM revenue_sink.sink_catalog;
-- No role may read the key.
SELECT count(*) FROM pg_roles, revenue_sink.sink_catalog WHERE rolname ~ '^regress_rsink'
	AND has_column_privilege(rolname, 'revenue_sink.sink_catalog', 'hash_key', 'SELECT');
SELECT revenue_sink.drop_sink('app');
DROP FUNCTION secret, note, note_row;
DROP FUNCTION note_and_fail;
DROP SEQUENCE noted_1, noted_2;

--
-- The schema has been renamed
--
SELECT revenue_sink.create_sink('app', dedup_window => '1000 days');
ALTER SCHEMA revenue_sink RENAME TO sink_of_mine;
SELECT sink_of_mine.create_sink('other', 'f', 'i');
\echo SQLSTATE :SQLSTATE
SELECT sink_of_mine.apply('app', 'o', 'a', '2024-03-01 10:01+00', 1);
\echo SQLSTATE :SQLSTATE
INSERT INTO order_events VALUES ('o', 'a', '2024-03-01 10:01+00', 1);
\echo SQLSTATE :SQLSTATE
SELECT sink_of_mine.drop_sink('app');
CALL sink_of_mine.recover('app', 'job', NULL);
SELECT * FROM fact_revenue_1m;
ALTER SCHEMA sink_of_mine RENAME TO revenue_sink;
INSERT INTO order_events VALUES ('o', 'a', '2024-03-01 10:01+00', 1);

--
-- ON CONFLICT on the ingest view: without columns there is nothing to say, with
-- columns the hint says what to write instead
--
INSERT INTO order_events VALUES ('o', 'b', '2024-03-01 10:01+00', 1), ('o', 'a', '2024-03-01 10:01+00', 1) ON CONFLICT DO NOTHING;
INSERT INTO order_events VALUES ('o', 'c', '2024-03-01 10:01+00', 1) ON CONFLICT (order_id, event_id) DO NOTHING;
\echo SQLSTATE :SQLSTATE
INSERT INTO order_events VALUES ('o', 'c', '2024-03-01 10:01+00', 1) ON CONFLICT (order_id, event_id) DO UPDATE SET amount = EXCLUDED.amount;
\echo SQLSTATE :SQLSTATE
INSERT INTO order_events SELECT 'o', 'c', '2024-03-01 10:01+00', 1 ON CONFLICT (lower(order_id)) WHERE amount > 0 DO NOTHING;
\echo SQLSTATE :SQLSTATE
PREPARE upsert AS INSERT INTO order_events VALUES ('o', $1, '2024-03-01 10:01+00', 1) ON CONFLICT (order_id, event_id) DO NOTHING;
\echo SQLSTATE :SQLSTATE
DO $$ BEGIN INSERT INTO order_events VALUES ('o', 'c', '2024-03-01 10:01+00', 1) ON CONFLICT (order_id) DO NOTHING; END $$;
\echo SQLSTATE :SQLSTATE
WITH w AS (INSERT INTO order_events VALUES ('o', 'c', '2024-03-01 10:01+00', 1) ON CONFLICT (order_id) DO NOTHING RETURNING 1) SELECT * FROM w;
\echo SQLSTATE :SQLSTATE
EXPLAIN INSERT INTO order_events VALUES ('o', 'c', '2024-03-01 10:01+00', 1) ON CONFLICT (order_id) DO NOTHING;
\echo SQLSTATE :SQLSTATE
-- ON CONFLICT on tables and on other views works as ever.
CREATE TABLE plain (order_id text PRIMARY KEY, amount numeric);
CREATE VIEW plain_view AS SELECT * FROM plain;
INSERT INTO plain VALUES ('o', 1) ON CONFLICT (order_id) DO UPDATE SET amount = 2;
INSERT INTO plain_view VALUES ('o', 1) ON CONFLICT (order_id) DO UPDATE SET amount = 2 RETURNING *;
INSERT INTO plain VALUES ('o', 1) ON CONFLICT (amount) DO NOTHING;
DROP TABLE plain CASCADE;

--
-- The owner adds a column to the ingest view: a value in that column is refused,
-- NULL isn't
--
CREATE FUNCTION add_column(view text, added text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE OR REPLACE VIEW %I AS %s', view,
		replace(pg_get_viewdef(view::regclass), E'\n   FROM', format(E', %s\n   FROM', added)));
END $$;
SELECT add_column('order_events', 'NULL::text AS note, NULL::int AS line');
INSERT INTO order_events VALUES ('o', 'c', '2024-03-01 10:01+00', 1, NULL, 'hello');
\echo SQLSTATE :SQLSTATE
INSERT INTO order_events (order_id, event_id, event_time, amount, line) VALUES ('o', 'c', '2024-03-01 10:01+00', 1, 0);
\echo SQLSTATE :SQLSTATE
COPY order_events (order_id, event_id, event_time, amount, note) FROM STDIN;
o	d	2024-03-01 10:01+00	1	\N
o	e	2024-03-01 10:01+00	1	
\.
\echo SQLSTATE :SQLSTATE
INSERT INTO order_events VALUES ('o', 'c', '2024-03-01 10:01+00', 1, NULL, NULL);
INSERT INTO order_events (order_id, event_id, event_time, amount) VALUES ('o', 'd', '2024-03-01 10:01+00', 1);
COPY order_events (order_id, event_id, event_time, amount, line) FROM STDIN;
o	e	2024-03-01 10:01+00	1	\N
\.
-- A default counts as a value.
ALTER VIEW order_events ALTER COLUMN note SET DEFAULT 'hello';
INSERT INTO order_events (order_id, event_id, event_time, amount) VALUES ('o', 'f', '2024-03-01 10:01+00', 1);
\echo SQLSTATE :SQLSTATE
SELECT revenue, events FROM fact_revenue_1m;
SELECT revenue_sink.create_sink('totals', 'fact_t', 'in_t', mode => 'totals');
SELECT add_column('in_t', 'NULL::text AS note');
INSERT INTO in_t VALUES ('2024-03-01 10:01+00', '', 1, NULL, 'hello');
\echo SQLSTATE :SQLSTATE
INSERT INTO in_t VALUES ('2024-03-01 10:01+00', '', 1, NULL, NULL);
INSERT INTO in_t (minute, revenue) VALUES ('2024-03-01 10:02+00', 1);
SELECT minute, revenue FROM fact_t ORDER BY minute;
-- Renamed columns change nothing.
ALTER VIEW order_events ALTER COLUMN note DROP DEFAULT;
ALTER VIEW order_events RENAME COLUMN order_id TO shop_order;
INSERT INTO order_events (shop_order, event_id, event_time, amount) VALUES ('o', 'a', '2024-03-01 10:01+00', 1), ('o', 'g', '2024-03-01 10:01+00', 1);
SELECT revenue, events FROM fact_revenue_1m;
SELECT * FROM revenue_sink.check('app');

SELECT revenue_sink.drop_sink(sink) FROM unnest('{app,totals}'::text[]) AS sink;
SELECT count - :before AS left FROM left_behind;
DROP VIEW left_behind;
DROP FUNCTION set_up, may, add_column;
DROP ROLE regress_rsink_member, regress_rsink_owner, regress_rsink_heir, regress_rsink_writer, regress_rsink_nobody;
