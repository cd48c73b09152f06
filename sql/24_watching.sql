--
-- Watching: whoever may read all statistics of the server sees how its memory is
-- used and what each sink and writer does, and no event.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS revenue_sink;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
\set SHOW_CONTEXT never
CREATE ROLE regress_rsink_owner;
CREATE ROLE regress_rsink_watcher IN ROLE pg_monitor;
CREATE ROLE regress_rsink_heir NOINHERIT IN ROLE pg_monitor;
CREATE ROLE regress_rsink_nobody;
CREATE SCHEMA regress_watched AUTHORIZATION regress_rsink_owner;
SET ROLE regress_rsink_owner;
SELECT revenue_sink.create_sink('watched', 'regress_watched.fact', 'regress_watched.events', on_bad_event => 'reject');
SELECT revenue_sink.create_sink('totals', 'regress_watched.totals', 'regress_watched.totals_in', mode => 'totals');
CALL revenue_sink.open_writer('watched', 'job', 'w', epoch => 1);
BEGIN;
SELECT revenue_sink.begin_batch('watched', 'job', 'w', 1, 1);
SELECT revenue_sink.apply('watched', 'o', 'one', '2024-03-01 10:01+00', 1);
SELECT revenue_sink.pre_commit('watched') AS gid \gset
PREPARE TRANSACTION :'gid';
SELECT revenue_sink.apply('watched', 'o', 'one', '2024-03-01 10:01+00', 1);
SELECT revenue_sink.apply('watched', 'o', 'bad', NULL, 1);
SELECT applied + duplicate, deferred, rejected FROM revenue_sink.apply('watched',
	array(SELECT 'o' || i FROM generate_series(1, 10000) i), array(SELECT 'e' || i FROM generate_series(1, 10000) i),
	array_fill('2024-03-01 10:01+00'::timestamptz, '{10000}'), array_fill(1::numeric, '{10000}'));
RESET ROLE;

-- A line per view, with what a role sees of these two sinks.
CREATE FUNCTION regress_watched.sees(as_role text) RETURNS TABLE (view text, rows bigint) LANGUAGE plpgsql AS $$
BEGIN
	FOREACH view IN ARRAY '{sink,stat_sink,writer,prepared,dead_letter,rejected_event,deferred}'::text[] LOOP
		EXECUTE format('SET LOCAL ROLE %I', as_role);
		EXECUTE format('SELECT count(*) FROM revenue_sink.%I WHERE sink IN (''watched'', ''totals'')', view) INTO rows;
		RESET ROLE;
		RETURN NEXT;
	END LOOP;
	view := 'stat_pool';
	EXECUTE format('SET LOCAL ROLE %I', as_role);
	SELECT count(*) INTO rows FROM revenue_sink.stat_pool;
	RESET ROLE;
	RETURN NEXT;
END $$;
SELECT * FROM regress_watched.sees('regress_rsink_watcher');
SELECT * FROM regress_watched.sees('regress_rsink_owner');
SELECT * FROM regress_watched.sees('regress_rsink_heir');
SELECT * FROM regress_watched.sees('regress_rsink_nobody');
SELECT * FROM regress_watched.sees(current_user);

-- The functions behind the views ask for the right themselves, and those that tell
-- of events or change anything ask for more.
CREATE FUNCTION regress_watched.may(as_role text) RETURNS TABLE (call text, answer text) LANGUAGE plpgsql AS $$
BEGIN
	FOREACH call IN ARRAY ARRAY[
		'SELECT revenue_sink.counters(''watched'')',
		'SELECT revenue_sink.prepared_batches(''watched'')',
		'SELECT revenue_sink.unresolved(''watched'')',
		'SELECT 1 / count(*) FROM revenue_sink.pool_usage()',
		'SELECT revenue_sink.seen(''watched'', ''o'', ''one'')',
		'SELECT revenue_sink.offsets(''watched'')',
		'SELECT revenue_sink."check"(''watched'')',
		'SELECT revenue_sink.apply(''watched'', ''o'', ''one'', ''2024-03-01 10:01+00'', 1)',
		'SELECT * FROM regress_watched.fact'] LOOP
		BEGIN
			EXECUTE format('SET LOCAL ROLE %I', as_role);
			EXECUTE call;
			answer := 'ok';
		EXCEPTION WHEN OTHERS THEN
			answer := SQLSTATE || ': ' || SQLERRM;
		END;
		RESET ROLE;
		RETURN NEXT;
	END LOOP;
END $$;
GRANT USAGE ON SCHEMA regress_watched TO PUBLIC;
SELECT * FROM regress_watched.may('regress_rsink_watcher');
SELECT * FROM regress_watched.may('regress_rsink_nobody');

-- What the watcher sees of it. The kinds of memory add up.
SET ROLE regress_rsink_watcher;
SELECT sink, applied, deferred, rejected, seen_events, index_state, seen_bytes_hot > 0 AS hot,
	seen_bytes_filters, seen_bytes_fences, seen_bytes_hot + seen_bytes_filters + seen_bytes_fences = seen_bytes_memory AS adds_up
FROM revenue_sink.stat_sink WHERE sink IN ('watched', 'totals') ORDER BY sink;
-- No worker makes rounds here.
SELECT sink, deferred_waiting, oldest_deferred BETWEEN stats_since AND now() AS waits,
	last_round, last_error, last_error_sqlstate, last_error_message
FROM revenue_sink.stat_sink WHERE sink IN ('watched', 'totals') ORDER BY sink;
SELECT sink, job, writer, epoch, last_number FROM revenue_sink.writer WHERE sink = 'watched';
SELECT sink, writer, number, events, state FROM revenue_sink.prepared WHERE sink = 'watched';
SELECT bytes - max_sinks * 65536 = pg_size_bytes(current_setting('revenue_sink.dedup_memory')) AS bytes,
	used_bytes BETWEEN 1 AND bytes AS used, sinks BETWEEN 2 AND max_sinks AS sinks,
	max_sinks = current_setting('revenue_sink.max_sinks')::int AS max_sinks,
	hot_bytes + filter_bytes + fence_bytes = used_bytes AS adds_up
FROM revenue_sink.stat_pool;
SELECT hot_bytes >= sum(seen_bytes_hot) AS all_databases FROM revenue_sink.stat_pool, revenue_sink.stat_sink GROUP BY hot_bytes;
RESET ROLE;

-- An event waits until it is settled. Events of other sinks, and events that are deferred in
-- a transaction that is rolled back, don't count.
SET ROLE regress_rsink_owner;
PREPARE waiting AS SELECT sink, deferred_waiting, oldest_deferred IS NOT NULL AS oldest
FROM revenue_sink.stat_sink WHERE sink IN ('watched', 'totals', 'other') ORDER BY sink;
SELECT revenue_sink.create_sink('other', 'regress_watched.other', 'regress_watched.other_in');
BEGIN;
SELECT revenue_sink.apply('watched', 'o', 'one', '2024-03-01 10:01+00', 2);
EXECUTE waiting;
ROLLBACK;
EXECUTE waiting;
SELECT oldest_deferred = (SELECT deferred_at FROM revenue_sink.deferred WHERE sink = 'watched') AS same
FROM revenue_sink.stat_sink WHERE sink = 'watched';
BEGIN;
SELECT revenue_sink.apply('other', 'o', 'one', '2024-03-01 10:01+00', 1);
PREPARE TRANSACTION 'regress_watched';
SELECT revenue_sink.apply('other', 'o', 'one', '2024-03-01 10:01+00', 1);
EXECUTE waiting;
COMMIT PREPARED 'regress_watched';
SELECT revenue_sink.merge('other'), revenue_sink.merge('watched');
EXECUTE waiting;
SELECT revenue_sink.drop_sink('other');
RESET ROLE;

-- Of very many only some are counted.
BEGIN;
INSERT INTO revenue_sink.deferred_event
SELECT id, 'o', 'e' || i, '2024-03-01 10:01+00', 1, '', '2024-03-01 10:02+00'::timestamptz + i * interval '1 second'
FROM revenue_sink.sink_catalog, generate_series(1, 100001) AS i WHERE name = 'watched';
SELECT deferred_waiting, oldest_deferred FROM revenue_sink.stat_sink WHERE sink = 'watched';
ROLLBACK;

-- A sink that has lost a trigger, and one that has lost a view or both, show all the
-- same, and why they take no events. The owner of the view that is left gets no error.
CREATE FUNCTION regress_watched.problems(as_role text) RETURNS TABLE (sink text, index_state text, problem text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('SET LOCAL ROLE %I', as_role);
	RETURN QUERY SELECT s.sink, s.index_state, p.problem
		FROM revenue_sink.stat_sink s LEFT JOIN revenue_sink.sink p USING (sink)
		WHERE s.sink IN ('watched', 'totals') ORDER BY s.sink;
	RESET ROLE;
END $$;
SELECT * FROM regress_watched.problems('regress_rsink_watcher');
SET ROLE regress_rsink_owner;
DROP TRIGGER revenue_sink_row ON regress_watched.events;
DROP VIEW regress_watched.totals;
RESET ROLE;
SELECT * FROM regress_watched.problems('regress_rsink_watcher');
SELECT sink, fact, ingest, problem FROM revenue_sink.sink WHERE sink IN ('watched', 'totals') ORDER BY sink;
SELECT * FROM regress_watched.sees('regress_rsink_watcher');
SELECT * FROM regress_watched.sees('regress_rsink_owner');
SELECT * FROM regress_watched.sees('regress_rsink_nobody');
SELECT * FROM regress_watched.may('regress_rsink_watcher');
SELECT * FROM regress_watched.may('regress_rsink_nobody');
SET ROLE regress_rsink_owner;
DROP VIEW regress_watched.fact, regress_watched.events, regress_watched.totals_in;
RESET ROLE;
SELECT * FROM regress_watched.sees('regress_rsink_watcher');
SELECT * FROM regress_watched.sees('regress_rsink_owner');

ROLLBACK PREPARED :'gid';
SELECT revenue_sink.drop_sink('watched'), revenue_sink.drop_sink('totals');
SET client_min_messages = warning;
DROP SCHEMA regress_watched CASCADE;
DROP ROLE regress_rsink_owner, regress_rsink_watcher, regress_rsink_heir, regress_rsink_nobody;
