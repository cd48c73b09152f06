--
-- The surface: what the extension puts into a database, who may use it, and
-- that all of it is documented, owned and dumped. Everything happens in one
-- transaction that is rolled back.
--
--	pg_prove -d DATABASE test/pgtap/surface.sql
--	psql -XqAt -f test/pgtap/surface.sql DATABASE
--
\set ON_ERROR_STOP on
\set QUIET on
SET client_min_messages = warning;
BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS revenue_sink;
SET LOCAL intervalstyle = 'postgres';
SET LOCAL search_path = public, pg_catalog;
SELECT * FROM no_plan();

SELECT has_extension('revenue_sink');
SELECT has_schema('revenue_sink');
SELECT is((SELECT extrelocatable FROM pg_extension WHERE extname = 'revenue_sink'), false, 'it stays in its schema');

--
-- Functions and procedures: the contract, argument by argument. "result" is
-- NULL for procedures; "volatility" is v(olatile), s(table), i(mmutable).
--
CREATE TEMPORARY TABLE contract (name text, arguments text, result text, volatility "char");
INSERT INTO contract VALUES
	('create_sink', 'sink text, fact text DEFAULT ''fact_revenue_1m''::text, ingest text DEFAULT ''order_events''::text, '
		'bucket interval DEFAULT ''00:01:00''::interval, dedup_window interval DEFAULT ''1 day''::interval, '
		'max_future interval DEFAULT ''00:05:00''::interval, mode text DEFAULT ''events''::text, '
		'late_policy text DEFAULT ''reject''::text, on_bad_event text DEFAULT ''error''::text, '
		'retain interval DEFAULT NULL::interval', 'void', 'v'),
	('alter_sink', 'sink text, dedup_window interval DEFAULT NULL::interval, max_future interval DEFAULT NULL::interval, '
		'late_policy text DEFAULT NULL::text, on_bad_event text DEFAULT NULL::text, '
		'retain interval DEFAULT NULL::interval', 'void', 'v'),
	('drop_sink', 'sink text', 'void', 'v'),
	('adopt_sink', 'sink text', 'void', 'v'),
	('apply', 'sink text, order_id text[], event_id text[], event_time timestamp with time zone[], amount numeric[], '
		'group_key text[] DEFAULT NULL::text[], OUT applied bigint, OUT duplicate bigint, OUT deferred bigint, '
		'OUT conflict bigint, OUT late bigint, OUT rejected bigint', 'record', 'v'),
	('apply', 'sink text, events jsonb, OUT applied bigint, OUT duplicate bigint, OUT deferred bigint, '
		'OUT conflict bigint, OUT late bigint, OUT rejected bigint', 'record', 'v'),
	('apply', 'sink text, order_id text, event_id text, event_time timestamp with time zone, amount numeric, '
		'group_key text DEFAULT ''''::text', 'text', 'v'),
	('apply_each', 'sink text, order_id text[], event_id text[], event_time timestamp with time zone[], amount numeric[], '
		'group_key text[] DEFAULT NULL::text[]', 'text[]', 'v'),
	('apply_rows', 'sink text, rows bytea, OUT applied bigint, OUT duplicate bigint, OUT deferred bigint, '
		'OUT conflict bigint, OUT late bigint, OUT rejected bigint', 'record', 'v'),
	('upsert', 'sink text, minute timestamp with time zone[], revenue numeric[], group_key text[] DEFAULT NULL::text[], '
		'version bigint DEFAULT NULL::bigint', 'bigint', 'v'),
	('import_totals', 'sink text, minute timestamp with time zone[], revenue numeric[], group_key text[] DEFAULT NULL::text[], '
		'events bigint[] DEFAULT NULL::bigint[]', 'bigint', 'v'),
	('import_seen', 'sink text, order_id text[], event_id text[], event_time timestamp with time zone[], amount numeric[], '
		'group_key text[] DEFAULT NULL::text[], OUT applied bigint, OUT duplicate bigint, OUT deferred bigint, '
		'OUT conflict bigint, OUT late bigint, OUT rejected bigint', 'record', 'v'),
	('store_offsets', 'sink text, source text, partition integer[], next_offset bigint[]', 'void', 'v'),
	('offsets', 'sink text, source text DEFAULT NULL::text', 'TABLE(source text, partition integer, next_offset bigint)', 'v'),
	('begin_batch', 'sink text, job text, writer text, epoch bigint, number bigint', 'boolean', 'v'),
	('merge', 'sink text', 'bigint', 'v'),
	('expire', 'sink text', 'bigint', 'v'),
	('seen', 'sink text, order_id text, event_id text', 'boolean', 'v'),
	('explain_event', 'sink text, order_id text, event_id text', 'TABLE(fact text, since timestamp with time zone, '
		'late_by interval, gid text, detail text)', 'v'),
	('check', 'sink text', 'TABLE(problem text)', 'v'),
	('resolve', 'sink text, resolution text, letter bytea[], note text DEFAULT NULL::text', 'bigint', 'v'),
	('pre_commit', 'sink text', 'text', 'v'),
	('outcome', 'gid text', 'text', 'v'),
	('open_writer', 'IN sink text, IN job text, IN writer text, IN restored bigint DEFAULT NULL::bigint, '
		'INOUT epoch bigint DEFAULT NULL::bigint', NULL, 'v'),
	('recover', 'IN sink text, IN job text, IN restored bigint, INOUT epoch bigint DEFAULT NULL::bigint', NULL, 'v'),
	('commit_prepared', 'IN gid text, INOUT outcome text DEFAULT NULL::text', NULL, 'v'),
	('rollback_prepared', 'IN gid text, INOUT outcome text DEFAULT NULL::text', NULL, 'v'),
	('commit_checkpoint', 'IN sink text, IN job text, IN checkpoint bigint, IN gids text[] DEFAULT NULL::text[], '
		'INOUT committed bigint DEFAULT NULL::bigint', NULL, 'v');
-- Not in the contract: what views, triggers, merging and the install script call.
CREATE TEMPORARY TABLE internal (name text);
INSERT INTO internal VALUES ('ingest'), ('counters'), ('pool_usage'), ('may_see'), ('may_watch'), ('may_dispose'), ('prepared_batches'), ('start_worker'),
	('refuse_write'), ('sink_problem'), ('relation_of'), ('note_copy'), ('stands'), ('stands_support'),
	('revenue_of'), ('events_of'), ('winner_of'), ('winner'), ('unresolved');

CREATE TEMPORARY VIEW function AS
	SELECT p.oid, p.proname::text AS name, replace(pg_get_function_arguments(p.oid), 'pg_catalog.', '') AS arguments,
		pg_get_function_result(p.oid) AS result, p.provolatile AS volatility, p.prokind, p.prosecdef, p.proparallel, p.proacl, p.proowner
	FROM pg_proc p WHERE p.pronamespace = 'revenue_sink'::regnamespace;

SELECT is((SELECT string_agg(f.arguments, E'\n') FROM function f WHERE f.name = c.name AND f.arguments = c.arguments),
	c.arguments, format('revenue_sink.%s has the arguments of the contract', c.name))
FROM contract c ORDER BY c.name, c.arguments;
SELECT is(f.result, c.result, format('result of revenue_sink.%s(%s)', c.name, left(c.arguments, 30)))
FROM contract c JOIN function f USING (name, arguments) ORDER BY c.name, c.arguments;
SELECT is(f.volatility, c.volatility, format('volatility of revenue_sink.%s(%s)', c.name, left(c.arguments, 30)))
FROM contract c JOIN function f USING (name, arguments) ORDER BY c.name, c.arguments;
SELECT is(f.prokind, CASE WHEN c.result IS NULL THEN 'p' ELSE 'f' END::"char", format('revenue_sink.%s is a %s', c.name,
	CASE WHEN c.result IS NULL THEN 'procedure' ELSE 'function' END))
FROM contract c JOIN function f USING (name, arguments) ORDER BY c.name, c.arguments;
SELECT is_empty($$ SELECT name, arguments FROM function WHERE name NOT IN (SELECT name FROM internal)
	EXCEPT SELECT name, arguments FROM contract $$, 'no function but those of the contract and the internal ones');
SELECT is_empty($$ SELECT name FROM internal EXCEPT SELECT name FROM function $$, 'no internal function is missing');
SELECT is_empty($$ SELECT name FROM function WHERE prosecdef $$, 'no function is SECURITY DEFINER');
SELECT is_empty($$ SELECT name FROM function WHERE proparallel <> 'u' AND volatility = 'v' $$,
	'no function that writes, or looks into shared memory, runs in a parallel worker');

--
-- Views, column by column
--
SELECT is((SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum)
		FROM pg_attribute a WHERE a.attrelid = to_regclass('revenue_sink.' || v.name) AND a.attnum > 0 AND NOT a.attisdropped),
	v.columns, format('columns of the view revenue_sink.%s', v.name))
FROM (VALUES
	('sink', 'sink text, owner name, mode text, fact regclass, ingest regclass, bucket interval, dedup_window interval, '
		'max_future interval, late_policy text, on_bad_event text, problem text, retain interval'),
	('stat_sink', 'sink text, applied bigint, duplicate bigint, deferred bigint, conflict bigint, late bigint, rejected bigint, '
		'batches bigint, horizon timestamp with time zone, watermark timestamp with time zone, seen_events bigint, '
		'seen_bytes_disk bigint, seen_bytes_memory bigint, unmerged_deltas bigint, last_merge timestamp with time zone, '
		'index_state text, index_percent real, stats_since timestamp with time zone, retained_from timestamp with time zone, '
		'removed bigint, discarded bigint, unresolved_letters bigint, oldest_unresolved timestamp with time zone, '
		'seen_bytes_hot bigint, seen_bytes_filters bigint, seen_bytes_fences bigint, deferred_waiting bigint, '
		'oldest_deferred timestamp with time zone, last_round timestamp with time zone, last_error timestamp with time zone, '
		'last_error_sqlstate text, last_error_message text'),
	('stat_pool', 'bytes bigint, used_bytes bigint, sinks integer, max_sinks integer, hot_bytes bigint, filter_bytes bigint, '
		'fence_bytes bigint'),
	('writer', 'sink text, job text, writer text, epoch bigint, opened_at timestamp with time zone, last_number bigint, '
		'events bigint, newest_event_time timestamp with time zone, last_batch_at timestamp with time zone'),
	('rejected_event', 'sink text, reason text, order_id text, event_id text, event_time timestamp with time zone, '
		'amount numeric, group_key text, rejected_at timestamp with time zone'),
	('dead_letter', 'sink text, reason text, order_id text, event_id text, event_time timestamp with time zone, '
		'amount numeric, group_key text, arrived_at timestamp with time zone, letter bytea, resolution text, '
		'resolved_at timestamp with time zone, resolved_by name, note text, '
		'resolved_letter bytea'),
	('deferred', 'sink text, order_id text, event_id text, event_time timestamp with time zone, amount numeric, '
		'group_key text, deferred_at timestamp with time zone, age interval'),
	('settled', 'sink text, order_id text, event_id text, answer text, settled_at timestamp with time zone'),
	('prepared', 'sink text, job text, writer text, epoch bigint, number bigint, gid text, '
		'prepared_at timestamp with time zone, age interval, events bigint, state text')) AS v (name, columns);
SELECT views_are('revenue_sink', ARRAY['sink', 'stat_sink', 'stat_pool', 'writer', 'dead_letter', 'rejected_event', 'deferred', 'settled', 'prepared']);
SELECT is_empty($$ SELECT relname FROM pg_class WHERE relnamespace = 'revenue_sink'::regnamespace AND relkind = 'v'
	AND NOT coalesce('security_barrier=true' = ANY (reloptions), false) $$, 'each view is a security barrier');

--
-- Sinks: their views and tables
--
CREATE SCHEMA surface;
SELECT lives_ok($$ SELECT revenue_sink.create_sink('surface', 'surface.fact', 'surface.ingest') $$, 'a sink of events');
SELECT lives_ok($$ SELECT revenue_sink.create_sink('surface totals', 'surface.totals', 'surface.total_ingest', mode => 'totals') $$,
	'a sink of totals');
SELECT is((SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum)
		FROM pg_attribute a WHERE a.attrelid = to_regclass('surface.' || v.name) AND a.attnum > 0), v.columns, format('columns of %s', v.what))
FROM (VALUES
	('fact', 'the fact view', 'minute timestamp with time zone, group_key text, revenue numeric, events bigint'),
	('ingest', 'the ingest view', 'order_id text, event_id text, event_time timestamp with time zone, amount numeric, group_key text'),
	('totals', 'the fact view of totals', 'minute timestamp with time zone, group_key text, revenue numeric, events bigint'),
	('total_ingest', 'the ingest view of totals', 'minute timestamp with time zone, group_key text, revenue numeric, version bigint'))
	AS v (name, what, columns);
SELECT is(obj_description(c.oid, 'pg_class') IS NOT NULL, true, format('surface.%s has a comment', c.relname))
FROM pg_class c WHERE c.relnamespace = 'surface'::regnamespace ORDER BY c.relname;
SELECT is_empty($$ SELECT c.relname, a.grantee::regrole FROM pg_class c, aclexplode(c.relacl) AS a
	WHERE c.relnamespace = 'surface'::regnamespace AND a.grantee <> c.relowner $$, 'PUBLIC has nothing on the views of a sink');

--
-- Tables
--
SELECT is_empty($$ SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'revenue_sink'::regnamespace AND c.relkind IN ('r', 'p')
	AND NOT (c.relreplident = 'f' OR c.relreplident = 'd' AND EXISTS
		(SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
		OR c.relreplident = 'i') $$, 'every table, those of sinks included, has a replica identity');
SELECT is_empty($$ SELECT relname FROM pg_class WHERE relnamespace = 'revenue_sink'::regnamespace AND relkind IN ('r', 'p', 'S')
	AND relpersistence <> 'p' $$, 'every table is logged');
SELECT is_empty($$ SELECT c.relname FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
	WHERE c.relnamespace = 'revenue_sink'::regnamespace AND c.relkind IN ('r', 'S')
	AND c.oid <> ALL (SELECT unnest(extconfig) FROM pg_extension WHERE extname = 'revenue_sink')
	AND c.relname <> 'letter_count' $$,
	'pg_dump saves every table and sequence of the extension, but for counts that the worker makes anew');

--
-- Ownership: everything in the schema is a member of the extension, except for
-- the tables of sinks, which pg_dump would leave out if they were members.
--
SELECT is_empty($$ SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'revenue_sink'::regnamespace AND NOT EXISTS
	(SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
		AND d.deptype = 'e' AND e.extname = 'revenue_sink') $$, 'the extension owns all functions');
SELECT is_empty($$ SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'revenue_sink'::regnamespace AND c.relkind IN ('r', 'v', 'S', 'm', 'p', 'f')
	AND (c.relname ~ '^(seen|slice|sealed|filter|delta|total)_\d+$') = EXISTS
	(SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
		AND d.deptype = 'e' AND e.extname = 'revenue_sink') $$, 'the extension owns all relations but those of sinks');
SELECT ok(EXISTS (SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid WHERE d.classid = 'pg_namespace'::regclass
	AND d.objid = 'revenue_sink'::regnamespace AND e.extname = 'revenue_sink'), 'the extension owns its schema');
SELECT is_empty($$ SELECT pg_describe_object(classid, objid, objsubid) FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
	WHERE e.extname = 'revenue_sink' AND d.deptype = 'e' AND NOT (d.classid = 'pg_namespace'::regclass OR EXISTS
		(SELECT FROM pg_class c WHERE d.classid = 'pg_class'::regclass AND c.oid = d.objid AND c.relnamespace = 'revenue_sink'::regnamespace) OR EXISTS
		(SELECT FROM pg_type t WHERE d.classid = 'pg_type'::regclass AND t.oid = d.objid AND t.typnamespace = 'revenue_sink'::regnamespace) OR EXISTS
		(SELECT FROM pg_proc p WHERE d.classid = 'pg_proc'::regclass AND p.oid = d.objid AND p.pronamespace = 'revenue_sink'::regnamespace)) $$,
	'the extension owns nothing outside of its schema');

--
-- Comments
--
SELECT is_empty($$ SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'revenue_sink'::regnamespace
	AND coalesce(obj_description(p.oid, 'pg_proc'), '') = '' $$, 'every function has a comment');
SELECT is_empty($$ SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'revenue_sink'::regnamespace AND c.relkind IN ('r', 'v', 'S')
	AND c.relname !~ '^(seen|slice|sealed|filter|delta|total)_\d+$' AND coalesce(obj_description(c.oid, 'pg_class'), '') = '' $$,
	'every table, view and sequence has a comment');
SELECT isnt(obj_description('revenue_sink'::regnamespace, 'pg_namespace'), NULL, 'the schema has a comment');
SELECT isnt((SELECT obj_description(oid, 'pg_extension') FROM pg_extension WHERE extname = 'revenue_sink'), NULL,
	'the extension has a comment');

--
-- What a role may do that has been granted nothing
--
CREATE ROLE regress_surface;
SELECT ok(has_schema_privilege('regress_surface', 'revenue_sink', 'USAGE'), 'everybody may use the schema');
SELECT ok(NOT has_schema_privilege('regress_surface', 'revenue_sink', 'CREATE'), 'nobody may create anything in the schema');
SELECT is_empty($$ SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'revenue_sink'::regnamespace AND c.relkind IN ('r', 'p')
	AND (has_table_privilege('regress_surface', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
		OR has_any_column_privilege('regress_surface', c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')) $$,
	'no table, those of sinks included, is open to others in any way');
SELECT is_empty($$ SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'revenue_sink'::regnamespace AND
	CASE WHEN c.relkind = 'S' THEN has_sequence_privilege('regress_surface', c.oid, 'USAGE, SELECT, UPDATE') END $$, 'no sequence is open to others');
SELECT is_empty($$ SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'revenue_sink'::regnamespace AND c.relkind = 'v'
	AND NOT (has_table_privilege('regress_surface', c.oid, 'SELECT')
		AND NOT has_table_privilege('regress_surface', c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')) $$,
	'everybody may read the views, and nobody else may do more');
SELECT set_eq($$ SELECT name FROM function WHERE NOT has_function_privilege('regress_surface', oid, 'EXECUTE') $$,
	ARRAY['start_worker', 'ingest', 'refuse_write', 'note_copy', 'winner'], 'others may not call functions that ask for no privilege of a sink, or mark its views');
SET LOCAL ROLE regress_surface;
SELECT is_empty('SELECT * FROM revenue_sink.' || v, format('revenue_sink.%s shows nothing to a role without privileges', v))
FROM unnest('{sink,stat_sink,stat_pool,writer,dead_letter,rejected_event,deferred,settled,prepared}'::text[]) AS v;
RESET ROLE;

--
-- Dropping
--
SELECT lives_ok($$ DROP EXTENSION revenue_sink CASCADE $$, 'DROP EXTENSION CASCADE works');
SELECT hasnt_schema('revenue_sink');
SELECT is_empty($$ SELECT relname FROM pg_class WHERE relnamespace = 'surface'::regnamespace $$, 'DROP EXTENSION drops the views of sinks, too');

SELECT * FROM finish();
ROLLBACK;
