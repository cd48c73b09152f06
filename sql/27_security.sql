--
-- What docs/security.md says of roles, and is tested nowhere else.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS revenue_sink;
RESET client_min_messages;
SET timezone = 'UTC';
\set SHOW_CONTEXT never
\set VERBOSITY terse
CREATE ROLE regress_safe_owner;
CREATE ROLE regress_safe_writer;
CREATE ROLE regress_safe_nobody;
CREATE ROLE regress_safe_reads_all IN ROLE pg_read_all_data;
CREATE ROLE regress_safe_writes_all IN ROLE pg_write_all_data;
CREATE SCHEMA regress_safe AUTHORIZATION regress_safe_owner;
GRANT USAGE ON SCHEMA regress_safe TO PUBLIC;
SET ROLE regress_safe_owner;
SELECT revenue_sink.create_sink('safe', 'regress_safe.fact', 'regress_safe.events', dedup_window => '1000 days',
	on_bad_event => 'reject');
GRANT INSERT ON regress_safe.events TO regress_safe_writer;

-- A writer reads dead letters, and no facts.
SET ROLE regress_safe_writer;
SELECT revenue_sink.apply('safe', 'o', 'one', '2024-03-01 10:01+00', 1);
SELECT revenue_sink.apply('safe', 'o', 'two', NULL, 2);
SELECT reason, amount FROM revenue_sink.dead_letter;
SELECT * FROM regress_safe.fact;
-- A writer resolves nothing.
SELECT revenue_sink.resolve('safe', 'discard', ARRAY(SELECT letter FROM revenue_sink.dead_letter));

-- Who reads all tables reads the hash keys, and all sinks.
SET ROLE regress_safe_reads_all;
SELECT length(hash_key) FROM revenue_sink.sink_catalog WHERE name = 'safe';
SELECT reason, amount FROM revenue_sink.dead_letter WHERE sink = 'safe';
SELECT revenue FROM regress_safe.fact;
SELECT revenue_sink.apply('safe', 'o', 'three', '2024-03-01 10:01+00', 4);
-- Who writes all tables sends events, and writes by hand.
SET ROLE regress_safe_writes_all;
SELECT revenue_sink.apply('safe', 'o', 'three', '2024-03-01 10:01+00', 4);
BEGIN;
INSERT INTO revenue_sink.sink_state (sink_id) VALUES (-5);
ROLLBACK;

-- The owner doesn't read the hash key.
SET ROLE regress_safe_owner;
SELECT count(hash_key) FROM revenue_sink.sink_catalog;

-- What a role without rights is told.
SET ROLE regress_safe_nobody;
SELECT revenue_sink.may_see('safe') OR revenue_sink.may_dispose('safe') OR revenue_sink.may_watch('safe') AS may,
	revenue_sink.relation_of('safe', 'fact') AS fact, revenue_sink.sink_problem('safe') AS problem;
\set VERBOSITY sqlstate
SELECT revenue_sink.seen('safe', 'o', 'one');
SELECT revenue_sink.seen('none', 'o', 'one');
SELECT revenue_sink.counters('safe');
SELECT revenue_sink.unresolved('safe');
SELECT revenue_sink.prepared_batches('safe');
SELECT revenue_sink.explain_event('safe', 'o', 'one');
SELECT count(*) FROM revenue_sink.pool_usage();
\set VERBOSITY terse
-- It gets no names of jobs and writers from a gid, if these are not plain.
SET ROLE regress_safe_writer;
CALL revenue_sink.open_writer('safe', 'a job', 'plain', epoch => 1);
BEGIN;
SELECT revenue_sink.begin_batch('safe', 'a job', 'plain', 1, 1);
SELECT revenue_sink.pre_commit('safe') AS gid \gset
PREPARE TRANSACTION :'gid';
SET ROLE regress_safe_nobody;
SELECT regexp_replace(gid, '^(rs:)[^:]*:\d+:-\d+-\d+:plain:1:1:\d+:[0-9a-f]{16}$', '\1..') AS gid FROM pg_prepared_xacts;
SELECT revenue_sink.outcome(:'gid');
CALL revenue_sink.rollback_prepared(:'gid');
SET ROLE regress_safe_owner;
CALL revenue_sink.rollback_prepared(:'gid');

-- Who may create sinks is for the extension's owner to say.
RESET ROLE;
REVOKE EXECUTE ON FUNCTION revenue_sink.create_sink FROM PUBLIC;
SET ROLE regress_safe_owner;
SELECT revenue_sink.create_sink('unsafe', 'regress_safe.f', 'regress_safe.e');
RESET ROLE;
GRANT EXECUTE ON FUNCTION revenue_sink.create_sink TO PUBLIC;

SET ROLE regress_safe_owner;
SELECT revenue_sink.drop_sink('safe');
RESET ROLE;
DROP SCHEMA regress_safe;
-- A schema that somebody has made before is not taken over.
BEGIN;
SET LOCAL client_min_messages = warning;
DROP EXTENSION revenue_sink CASCADE;
CREATE SCHEMA revenue_sink AUTHORIZATION regress_safe_nobody;
CREATE EXTENSION revenue_sink;
ROLLBACK;
DROP ROLE regress_safe_owner, regress_safe_writer, regress_safe_nobody, regress_safe_reads_all, regress_safe_writes_all;
