\echo Use "ALTER EXTENSION revenue_sink UPDATE" to load this file. \quit

-- Everything is taken without queueing up behind a prepared transaction.
CREATE FUNCTION revenue_sink.lock_for_update()
RETURNS void LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'revenue_sink_lock_for_update';
SELECT revenue_sink.lock_for_update();
DROP FUNCTION revenue_sink.lock_for_update();

--
-- Tables
--

ALTER TABLE revenue_sink.sink_catalog ADD COLUMN encoding text, ADD COLUMN sample bytea,
	ADD COLUMN retain interval;
COMMENT ON TABLE revenue_sink.sink_catalog IS 'the sinks, with their settings and secret hash key';
COMMENT ON COLUMN revenue_sink.sink_catalog.encoding IS 'encoding in which the text of events is hashed';
COMMENT ON COLUMN revenue_sink.sink_catalog.sample IS
	'fingerprint of a known event, made by the server on which the sink was created';
COMMENT ON COLUMN revenue_sink.sink_catalog.retain IS 'how long facts are kept; NULL means for ever';

ALTER TABLE revenue_sink.sink_state ADD COLUMN totals bigint NOT NULL DEFAULT 0,
	ADD COLUMN retained_from timestamptz, ADD COLUMN removed bigint NOT NULL DEFAULT 0,
	ADD COLUMN discarded bigint NOT NULL DEFAULT 0, ADD COLUMN imported_events bigint NOT NULL DEFAULT 0,
	ADD COLUMN imported_seen bigint NOT NULL DEFAULT 0;
COMMENT ON TABLE revenue_sink.sink_state IS
	'per sink: watermark, horizon, how many events were seen and have expired, and what checks compare with the tables';
COMMENT ON COLUMN revenue_sink.sink_state.totals IS
	'in mode ''totals'' how many totals are merged; in mode ''events'' how many imported ones don''t say how many events they have';
COMMENT ON COLUMN revenue_sink.sink_state.retained_from IS
	'facts of buckets that start before this time are removed; never decreases';
COMMENT ON COLUMN revenue_sink.sink_state.removed IS
	'how many events, or in mode ''totals'' how many totals, were removed with their buckets';
COMMENT ON COLUMN revenue_sink.sink_state.discarded IS
	'how many events, or in mode ''totals'' how many versions of totals, came for a bucket that had been removed';
COMMENT ON COLUMN revenue_sink.sink_state.imported_events IS
	'how many events imported totals have, as far as that is known';
COMMENT ON COLUMN revenue_sink.sink_state.imported_seen IS
	'how many seen events were imported, those included that have expired';

ALTER TABLE revenue_sink.epoch ADD COLUMN given boolean;
COMMENT ON TABLE revenue_sink.epoch IS
	'epochs that were opened, for a writer or, where writer is NULL, for a whole job';
COMMENT ON COLUMN revenue_sink.epoch.given IS 'was the number given by the server? NULL in rows of version 1.0';

ALTER TABLE revenue_sink.batch RENAME TO ledger;
ALTER INDEX revenue_sink.batch_sink_id_job_writer_epoch_last_idx RENAME TO ledger_sink_id_job_writer_epoch_last_idx;
COMMENT ON TABLE revenue_sink.ledger IS
	'the ledger: a row is a batch of a writer, or several whose numbers go from number to last';
ALTER TABLE revenue_sink.rejected RENAME TO dead_letter_event;
ALTER TABLE revenue_sink.dead_letter_event RENAME COLUMN digest TO letter;
ALTER TABLE revenue_sink.dead_letter_event RENAME COLUMN rejected_at TO arrived_at;
-- An index keeps the names that its columns had.
DROP INDEX revenue_sink.rejected_sink_id_digest_idx;
CREATE INDEX ON revenue_sink.dead_letter_event (sink_id, letter);
CREATE INDEX ON revenue_sink.dead_letter_event (arrived_at, sink_id);
COMMENT ON TABLE revenue_sink.dead_letter_event IS 'dead letters: events kept aside for a person; see the view dead_letter';

DROP INDEX revenue_sink.deferred_event_sink_id_idx;
CREATE INDEX ON revenue_sink.deferred_event (sink_id, deferred_at);

CREATE TABLE revenue_sink.settled_event (
	sink_id integer NOT NULL,
	order_id text NOT NULL,
	event_id text NOT NULL,
	answer text NOT NULL,
	settled_at timestamptz NOT NULL
) USING heap;
ALTER TABLE revenue_sink.settled_event REPLICA IDENTITY FULL;
CREATE INDEX ON revenue_sink.settled_event (sink_id, settled_at);
-- A hash has room for ids of any length, and does not depend on a collation.
CREATE INDEX ON revenue_sink.settled_event USING hash (order_id);
COMMENT ON TABLE revenue_sink.settled_event IS
	'what became of events that were deferred; see the view settled';

SELECT pg_catalog.pg_extension_config_dump('revenue_sink.settled_event', '');

CREATE TABLE revenue_sink.resolved_event (
	sink_id integer NOT NULL,
	event bytea NOT NULL,
	letter bytea NOT NULL,
	reason text NOT NULL,
	order_id text,
	event_id text,
	resolution text NOT NULL,
	resolved_at timestamptz NOT NULL,
	resolved_by name NOT NULL,
	note text,
	PRIMARY KEY (sink_id, event)
) USING heap;
COMMENT ON TABLE revenue_sink.resolved_event IS
	'resolutions: what a person has decided on events that were dead letters; kept for good, without amounts';
COMMENT ON COLUMN revenue_sink.resolved_event.event IS 'the beginning of the letters of the event';
COMMENT ON COLUMN revenue_sink.resolved_event.letter IS 'names the dead letter that was resolved, the only one whose amount can have been counted';
COMMENT ON COLUMN revenue_sink.resolved_event.reason IS 'of the dead letter that was resolved';

-- Not dumped: where no row says how many there are, dead letters are counted.
CREATE TABLE revenue_sink.letter_count (
	sink_id integer NOT NULL,
	letters bigint NOT NULL,
	oldest timestamptz,
	counted_at timestamptz
) USING heap;
ALTER TABLE revenue_sink.letter_count REPLICA IDENTITY FULL;
COMMENT ON TABLE revenue_sink.letter_count IS
	'how many dead letters of a sink nobody has resolved: a row of the worker, if they are many, and what has changed since';
COMMENT ON COLUMN revenue_sink.letter_count.oldest IS 'none of these dead letters has arrived earlier';
COMMENT ON COLUMN revenue_sink.letter_count.counted_at IS 'when the worker has counted them; NULL means a change';
SELECT pg_catalog.pg_extension_config_dump('revenue_sink.resolved_event', '');

CREATE FUNCTION revenue_sink.rename_constraints(renamed regclass)
RETURNS void LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'revenue_sink_rename_constraints';
SELECT revenue_sink.rename_constraints('revenue_sink.ledger'),
	revenue_sink.rename_constraints('revenue_sink.dead_letter_event');
DROP FUNCTION revenue_sink.rename_constraints(regclass);

--
-- Functions
--

-- Those with another argument take the place of the old ones, and get their grants.
CREATE FUNCTION revenue_sink.create_sink(
	sink text,
	fact text DEFAULT 'fact_revenue_1m',
	ingest text DEFAULT 'order_events',
	bucket interval DEFAULT '1 minute',
	dedup_window interval DEFAULT '1 day',
	max_future interval DEFAULT '5 minutes',
	mode text DEFAULT 'events',
	late_policy text DEFAULT 'reject',
	on_bad_event text DEFAULT 'error',
	retain interval DEFAULT NULL)
RETURNS void LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'revenue_sink_create_sink';
COMMENT ON FUNCTION revenue_sink.create_sink(text, text, text, interval, interval, interval, text, text, text, interval) IS
	'create a sink, with a fact view to read and an ingest view to write, both owned by the caller';

CREATE FUNCTION revenue_sink.alter_sink(
	sink text,
	dedup_window interval DEFAULT NULL,
	max_future interval DEFAULT NULL,
	late_policy text DEFAULT NULL,
	on_bad_event text DEFAULT NULL,
	retain interval DEFAULT NULL)
RETURNS void LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'revenue_sink_alter_sink';
COMMENT ON FUNCTION revenue_sink.alter_sink(text, interval, interval, text, text, interval) IS
	'change settings of a sink: NULL leaves a setting as it is, a retain of 0 keeps facts for ever. For the sink''s owner';

CREATE FUNCTION revenue_sink.carry_grants(former regprocedure, latter regprocedure)
RETURNS void LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'revenue_sink_carry_grants';
SELECT revenue_sink.carry_grants(
		'revenue_sink.create_sink(text, text, text, interval, interval, interval, text, text, text)',
		'revenue_sink.create_sink(text, text, text, interval, interval, interval, text, text, text, interval)'),
	revenue_sink.carry_grants(
		'revenue_sink.alter_sink(text, interval, interval, text, text)',
		'revenue_sink.alter_sink(text, interval, interval, text, text, interval)');
DROP FUNCTION revenue_sink.carry_grants(regprocedure, regprocedure),
	revenue_sink.create_sink(text, text, text, interval, interval, interval, text, text, text),
	revenue_sink.alter_sink(text, interval, interval, text, text);

CREATE FUNCTION revenue_sink.note_copy()
RETURNS trigger LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'revenue_sink_note_copy';
COMMENT ON FUNCTION revenue_sink.note_copy() IS
	'trigger of sink_catalog: notes that a sink which a subscription brings is a copy';
CREATE TRIGGER note_copy AFTER INSERT ON revenue_sink.sink_catalog
	FOR EACH ROW EXECUTE FUNCTION revenue_sink.note_copy();
ALTER TABLE revenue_sink.sink_catalog ENABLE REPLICA TRIGGER note_copy;

CREATE FUNCTION revenue_sink.adopt_sink(sink text)
RETURNS void LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'revenue_sink_adopt_sink';
COMMENT ON FUNCTION revenue_sink.adopt_sink(text) IS
	'make this database the home of a sink that has come by a restore or a subscription, whole or not. For the sink''s owner';

CREATE FUNCTION revenue_sink.apply_each(
	sink text, order_id text[], event_id text[], event_time timestamptz[], amount numeric[],
	group_key text[] DEFAULT NULL)
RETURNS text[] LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'revenue_sink_apply_each';
COMMENT ON FUNCTION revenue_sink.apply_each(text, text[], text[], timestamptz[], numeric[], text[]) IS
	'apply events, each of which is one element of every array; returns the answer to each event, in their order';

CREATE FUNCTION revenue_sink.apply_rows(
	sink text, rows bytea,
	OUT applied bigint, OUT duplicate bigint, OUT deferred bigint,
	OUT conflict bigint, OUT late bigint, OUT rejected bigint)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'revenue_sink_apply_rows';
COMMENT ON FUNCTION revenue_sink.apply_rows(text, bytea) IS
	'apply events that are rows in the format of COPY BINARY; returns counts as apply does';

CREATE FUNCTION revenue_sink.import_totals(
	sink text, minute timestamptz[], revenue numeric[],
	group_key text[] DEFAULT NULL, events bigint[] DEFAULT NULL)
RETURNS bigint LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'revenue_sink_import_totals';
COMMENT ON FUNCTION revenue_sink.import_totals(text, timestamptz[], numeric[], text[], bigint[]) IS
	'set totals that were counted elsewhere, before the sink has events of its own; returns how many. For the sink''s owner';

CREATE FUNCTION revenue_sink.import_seen(
	sink text, order_id text[], event_id text[], event_time timestamptz[], amount numeric[],
	group_key text[] DEFAULT NULL,
	OUT applied bigint, OUT duplicate bigint, OUT deferred bigint,
	OUT conflict bigint, OUT late bigint, OUT rejected bigint)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'revenue_sink_import_seen';
COMMENT ON FUNCTION revenue_sink.import_seen(text, text[], text[], timestamptz[], numeric[], text[]) IS
	'remember events that imported totals contain, without counting them; returns counts as apply does. For the sink''s owner';

CREATE FUNCTION revenue_sink.refuse_write()
RETURNS trigger LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'revenue_sink_refuse_write';
COMMENT ON FUNCTION revenue_sink.refuse_write() IS 'trigger of fact views: refuses writes';

CREATE FUNCTION revenue_sink.stands_support(internal)
RETURNS internal LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'revenue_sink_stands_support';
COMMENT ON FUNCTION revenue_sink.stands_support(internal) IS 'tells the planner for how many rows stands() is true';

CREATE FUNCTION revenue_sink.stands(deltas regclass, secret text, minute timestamptz, group_key text, delta tid)
RETURNS boolean LANGUAGE c STABLE PARALLEL SAFE SUPPORT revenue_sink.stands_support
AS 'MODULE_PATHNAME', 'revenue_sink_stands';
COMMENT ON FUNCTION revenue_sink.stands(regclass, text, timestamptz, text, tid) IS
	'for fact views: is this row, a total or the delta at an address, the one that shows its bucket and group_key?';

CREATE FUNCTION revenue_sink.revenue_of(deltas regclass, secret text, minute timestamptz, group_key text)
RETURNS numeric LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'revenue_sink_revenue_of';
COMMENT ON FUNCTION revenue_sink.revenue_of(regclass, text, timestamptz, text) IS
	'for fact views: the revenue of a bucket and group_key, from its deltas and its total';

CREATE FUNCTION revenue_sink.events_of(deltas regclass, secret text, minute timestamptz, group_key text)
RETURNS bigint LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'revenue_sink_events_of';
COMMENT ON FUNCTION revenue_sink.events_of(regclass, text, timestamptz, text) IS
	'for fact views: the number of events of a bucket and group_key, from its deltas and its total';

CREATE FUNCTION revenue_sink.winner_of(deltas regclass, secret text, minute timestamptz, group_key text)
RETURNS numeric LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'revenue_sink_winner_of';
COMMENT ON FUNCTION revenue_sink.winner_of(regclass, text, timestamptz, text) IS
	'for fact views, in mode ''totals'': the revenue of a bucket and group_key, from the version that wins';

CREATE FUNCTION revenue_sink.winner(
	revenues numeric[], versions bigint[], epochs bigint[], numbers bigint[], sequences bigint[],
	OUT revenue numeric, OUT version bigint, OUT epoch bigint, OUT number bigint, OUT sequence bigint)
RETURNS record LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'revenue_sink_winner';
COMMENT ON FUNCTION revenue_sink.winner(numeric[], bigint[], bigint[], bigint[], bigint[]) IS
	'for merging, in mode ''totals'': the total that takes the place of these versions of a bucket and group_key';

CREATE FUNCTION revenue_sink.resolve(sink text, resolution text, letter bytea[], note text DEFAULT NULL)
RETURNS bigint LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'revenue_sink_resolve';
COMMENT ON FUNCTION revenue_sink.resolve(text, text, bytea[], text) IS
	'count or discard dead letters, once and for good; returns how many resolutions that made. For the sink''s owner';

CREATE FUNCTION revenue_sink.unresolved(sink text, OUT letters bigint, OUT oldest timestamptz)
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'revenue_sink_unresolved';
COMMENT ON FUNCTION revenue_sink.unresolved(text) IS
	'how many dead letters nobody has resolved, and when the oldest arrived; for the view stat_sink';

CREATE FUNCTION revenue_sink.explain_event(sink text, order_id text, event_id text)
RETURNS TABLE (fact text, since timestamptz, late_by interval, gid text, detail text)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'revenue_sink_explain_event';
COMMENT ON FUNCTION revenue_sink.explain_event(text, text, text) IS
	'what the sink knows of an event: is it counted, and which copies are deferred, settled or dead letters?';

-- The view stat_sink still calls the old one.
ALTER FUNCTION revenue_sink.counters(text) RENAME TO former_counters;
CREATE FUNCTION revenue_sink.counters(
	sink text,
	OUT applied bigint, OUT duplicate bigint, OUT deferred bigint, OUT conflict bigint,
	OUT late bigint, OUT rejected bigint, OUT batches bigint,
	OUT seen_events bigint, OUT unmerged_deltas bigint, OUT deferred_waiting bigint, OUT oldest_deferred timestamptz,
	OUT seen_bytes_memory bigint, OUT last_merge timestamptz,
	OUT index_state text, OUT index_percent real, OUT stats_since timestamptz,
	OUT horizon timestamptz,
	OUT seen_bytes_hot bigint, OUT seen_bytes_filters bigint, OUT seen_bytes_fences bigint,
	OUT last_round timestamptz, OUT last_error timestamptz, OUT last_error_sqlstate text, OUT last_error_message text)
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'revenue_sink_counters';
COMMENT ON FUNCTION revenue_sink.counters(text) IS 'what stat_sink shows of a sink''s tables and shared memory';

CREATE FUNCTION revenue_sink.pool_usage(
	OUT bytes bigint, OUT used_bytes bigint, OUT sinks integer, OUT max_sinks integer,
	OUT hot_bytes bigint, OUT filter_bytes bigint, OUT fence_bytes bigint)
RETURNS SETOF record LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'revenue_sink_pool_usage';
COMMENT ON FUNCTION revenue_sink.pool_usage() IS 'what the view stat_pool shows';

CREATE FUNCTION revenue_sink.may_see(sink text)
RETURNS boolean LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'revenue_sink_may_see';
COMMENT ON FUNCTION revenue_sink.may_see(text) IS
	'may the current user read or write the sink, or does the user own it?';

CREATE FUNCTION revenue_sink.may_watch(sink text)
RETURNS boolean LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'revenue_sink_may_watch';
COMMENT ON FUNCTION revenue_sink.may_watch(text) IS
	'may the current user see counters of the sink, as whoever reads all statistics may?';

CREATE FUNCTION revenue_sink.may_dispose(sink text)
RETURNS boolean LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'revenue_sink_may_dispose';
COMMENT ON FUNCTION revenue_sink.may_dispose(text) IS 'may the current user drop the sink, or adopt it?';

CREATE FUNCTION revenue_sink.relation_of(sink text, kind text)
RETURNS regclass LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'revenue_sink_relation_of';
COMMENT ON FUNCTION revenue_sink.relation_of(text, text) IS
	'a sink''s own view or table: fact, ingest, seen, slice, sealed, filter, delta or total; NULL if it is gone';

CREATE FUNCTION revenue_sink.sink_problem(sink text)
RETURNS text LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'revenue_sink_sink_problem';
COMMENT ON FUNCTION revenue_sink.sink_problem(text) IS 'why a sink takes no events, or NULL';

REVOKE ALL ON FUNCTION revenue_sink.winner(numeric[], bigint[], bigint[], bigint[], bigint[]) FROM PUBLIC;

-- Their triggers are what a sink knows its views by: nobody else can make one.
REVOKE ALL ON FUNCTION revenue_sink.ingest(), revenue_sink.refuse_write() FROM PUBLIC;
-- Its trigger is believed to tell of sinks.
REVOKE ALL ON FUNCTION revenue_sink.note_copy() FROM PUBLIC;

--
-- The sinks that there are get their marks and their home.
--

SELECT revenue_sink.adopt_sink(name) FROM revenue_sink.sink_catalog;

-- The letters of version 1.0 do not say which of them are of the same event.
CREATE FUNCTION revenue_sink.letter_of(
	sink text, reason text, order_id text, event_id text, event_time timestamptz, amount numeric, group_key text)
RETURNS bytea LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'revenue_sink_letter_of';
UPDATE revenue_sink.dead_letter_event d
SET letter = revenue_sink.letter_of(s.name, d.reason, d.order_id, d.event_id, d.event_time, d.amount, d.group_key)
FROM revenue_sink.sink_catalog s WHERE s.id = d.sink_id;
DROP FUNCTION revenue_sink.letter_of(text, text, text, text, timestamptz, numeric, text);

--
-- Views. The catalog no longer says which relations are a sink's.
--

CREATE OR REPLACE VIEW revenue_sink.sink WITH (security_barrier) AS
	SELECT s.name AS sink, pg_get_userbyid(c.relowner) AS owner, s.mode,
		revenue_sink.relation_of(s.name, 'fact') AS fact, revenue_sink.relation_of(s.name, 'ingest') AS ingest,
		s.bucket, s.dedup_window, s.max_future, s.late_policy, s.on_bad_event,
		revenue_sink.sink_problem(s.name) AS problem, s.retain
	FROM revenue_sink.sink_catalog s LEFT JOIN pg_catalog.pg_class c
		ON c.oid = revenue_sink.relation_of(s.name, 'ingest')
	WHERE revenue_sink.may_watch(s.name) OR revenue_sink.may_dispose(s.name);
COMMENT ON VIEW revenue_sink.sink IS
	'the sinks that the current user owns or may read or write; all sinks for whoever owns the extension or may read all statistics';

CREATE OR REPLACE VIEW revenue_sink.stat_sink WITH (security_barrier) AS
	SELECT s.name AS sink, c.applied, c.duplicate, c.deferred, c.conflict, c.late, c.rejected, c.batches,
		coalesce(t.horizon, c.horizon) AS horizon, t.watermark,
		c.seen_events,
		(SELECT sum(pg_relation_size(revenue_sink.relation_of(s.name, kind)))::bigint
			FROM unnest(ARRAY['seen', 'slice', 'sealed', 'filter']) AS kind) AS seen_bytes_disk,
		c.seen_bytes_memory, c.unmerged_deltas,
		c.last_merge, c.index_state, c.index_percent, c.stats_since,
		t.retained_from, t.removed, t.discarded,
		u.letters AS unresolved_letters, u.oldest AS oldest_unresolved,
		c.seen_bytes_hot, c.seen_bytes_filters, c.seen_bytes_fences,
		c.deferred_waiting, c.oldest_deferred,
		c.last_round, c.last_error, c.last_error_sqlstate, c.last_error_message
	FROM revenue_sink.sink_catalog s
		LEFT JOIN revenue_sink.sink_state t ON t.sink_id = s.id
		CROSS JOIN LATERAL revenue_sink.counters(s.name) c
		CROSS JOIN LATERAL revenue_sink.unresolved(s.name) u
	WHERE revenue_sink.may_watch(s.name);
COMMENT ON VIEW revenue_sink.stat_sink IS
	'counters since stats_since, and the state of each sink that the current user may see';

CREATE VIEW revenue_sink.stat_pool WITH (security_barrier) AS
	SELECT bytes, used_bytes, sinks, max_sinks, hot_bytes, filter_bytes, fence_bytes
	FROM revenue_sink.pool_usage();
COMMENT ON VIEW revenue_sink.stat_pool IS
	'the server''s shared memory for seen events, for whoever may read all statistics';

CREATE VIEW revenue_sink.dead_letter WITH (security_barrier) AS
	SELECT s.name AS sink, d.reason, d.order_id, d.event_id, d.event_time, d.amount, d.group_key,
		d.arrived_at, d.letter, r.resolution, r.resolved_at, r.resolved_by, r.note, r.letter AS resolved_letter
	FROM (SELECT DISTINCT ON (sink_id, letter) * FROM revenue_sink.dead_letter_event
			ORDER BY sink_id, letter, arrived_at) d
		JOIN revenue_sink.sink_catalog s ON s.id = d.sink_id
		LEFT JOIN revenue_sink.resolved_event r ON r.sink_id = d.sink_id AND r.event = substring(d.letter, 1, 16)
	WHERE revenue_sink.may_see(s.name);
COMMENT ON VIEW revenue_sink.dead_letter IS
	'dead letters, one row per event and reason: conflict, late, or what was bad; and how they were resolved';

CREATE OR REPLACE VIEW revenue_sink.rejected_event WITH (security_barrier) AS
	SELECT sink, reason, order_id, event_id, event_time, amount, group_key, arrived_at AS rejected_at
	FROM revenue_sink.dead_letter;
COMMENT ON VIEW revenue_sink.rejected_event IS 'deprecated: see the view dead_letter';

CREATE OR REPLACE VIEW revenue_sink.deferred WITH (security_barrier) AS
	SELECT s.name AS sink, d.order_id, d.event_id, d.event_time, d.amount, d.group_key, d.deferred_at,
		now() - d.deferred_at AS age
	FROM revenue_sink.deferred_event d JOIN revenue_sink.sink_catalog s ON s.id = d.sink_id
	WHERE revenue_sink.may_see(s.name);
COMMENT ON VIEW revenue_sink.deferred IS 'events that wait for another transaction to end';

CREATE VIEW revenue_sink.settled WITH (security_barrier) AS
	SELECT s.name AS sink, e.order_id, e.event_id, e.answer, e.settled_at
	FROM revenue_sink.settled_event e JOIN revenue_sink.sink_catalog s ON s.id = e.sink_id
	WHERE revenue_sink.may_see(s.name);
COMMENT ON VIEW revenue_sink.settled IS 'the final answers to events that had been deferred';

CREATE OR REPLACE VIEW revenue_sink.writer WITH (security_barrier) AS
	SELECT s.name AS sink, w.job, w.writer, w.epoch, w.opened_at,
		b.last_number, b.events, b.newest AS newest_event_time, b.ended_at AS last_batch_at
	FROM revenue_sink.sink_catalog s
		JOIN (SELECT n.sink_id, n.job, n.writer, max(e.epoch) AS epoch, max(e.opened_at) AS opened_at
				FROM (SELECT DISTINCT sink_id, job, writer FROM revenue_sink.ledger
						UNION SELECT sink_id, job, writer FROM revenue_sink.epoch WHERE writer IS NOT NULL) n
					JOIN revenue_sink.epoch e ON e.sink_id = n.sink_id AND e.job = n.job
						AND (e.writer IS NULL OR e.writer = n.writer)
				GROUP BY n.sink_id, n.job, n.writer) w ON w.sink_id = s.id
		LEFT JOIN LATERAL (SELECT max(last) FILTER (WHERE b.epoch = w.epoch) AS last_number,
				sum(events)::bigint AS events, max(newest) AS newest, max(ended_at) AS ended_at
				FROM revenue_sink.ledger b
				WHERE b.sink_id = w.sink_id AND b.job = w.job AND b.writer = w.writer) b ON true
	WHERE revenue_sink.may_watch(s.name);
COMMENT ON VIEW revenue_sink.writer IS 'the writers of each sink, their epochs and last batches';

CREATE OR REPLACE VIEW revenue_sink.prepared WITH (security_barrier) AS
	SELECT s.name AS sink, p.job, p.writer, p.epoch, p.number, p.gid, p.prepared_at,
		clock_timestamp() - p.prepared_at AS age, p.events, p.state
	FROM revenue_sink.sink_catalog s CROSS JOIN LATERAL revenue_sink.prepared_batches(s.name) p
	WHERE revenue_sink.may_watch(s.name);
COMMENT ON VIEW revenue_sink.prepared IS 'prepared batches, and whether anyone has decided on them';

REVOKE ALL ON revenue_sink.settled_event, revenue_sink.resolved_event, revenue_sink.letter_count, revenue_sink.dead_letter,
	revenue_sink.settled, revenue_sink.stat_pool FROM PUBLIC;
GRANT SELECT ON revenue_sink.dead_letter, revenue_sink.settled, revenue_sink.stat_pool TO PUBLIC;

-- Comments on what was there in 1.0, and is described in other words now.
COMMENT ON TABLE revenue_sink.decision IS 'decisions on prepared batches, to commit or to roll back';
COMMENT ON FUNCTION revenue_sink.drop_sink(text) IS
	'remove a sink with its views, tables, ledger and dead letters. For the sink''s owner';
COMMENT ON FUNCTION revenue_sink.apply(text, text[], text[], timestamptz[], numeric[], text[]) IS
	'apply events, each of which is one element of every array; returns how many events got each of the six answers';
COMMENT ON FUNCTION revenue_sink.apply(text, jsonb) IS
	'apply events, given as a JSON object or an array of objects; returns how many events got each of the six answers';
COMMENT ON FUNCTION revenue_sink.apply(text, text, text, timestamptz, numeric, text) IS
	'apply one event; returns its answer';
COMMENT ON FUNCTION revenue_sink.upsert(text, timestamptz[], numeric[], text[], bigint) IS
	'set totals, in mode ''totals'': the highest version wins, else the last commit; returns how many were set';
COMMENT ON PROCEDURE revenue_sink.open_writer(text, text, text, bigint, bigint) IS
	'open a new epoch for a writer, and fence off the writer''s former incarnation';
COMMENT ON PROCEDURE revenue_sink.recover(text, text, bigint, bigint) IS
	'open a new epoch for all writers of a job, and fence off their former incarnations';
COMMENT ON FUNCTION revenue_sink.begin_batch(text, text, text, bigint, bigint) IS
	'begin a batch, as the first call in its transaction; false means that the batch is committed or prepared already: skip it';
COMMENT ON FUNCTION revenue_sink.store_offsets(text, text, int[], bigint[]) IS
	'store the offsets from which to go on reading, together with the events of this transaction';
COMMENT ON FUNCTION revenue_sink.pre_commit(text) IS
	'phase one: returns the gid under which to PREPARE the batch of this transaction';
COMMENT ON PROCEDURE revenue_sink.commit_prepared(text, text) IS
	'phase two for one batch: commit it; may be called any number of times. For the sink''s owner';
COMMENT ON PROCEDURE revenue_sink.rollback_prepared(text, text) IS
	'roll back one prepared batch; may be called any number of times. For the sink''s owner';
COMMENT ON PROCEDURE revenue_sink.commit_checkpoint(text, text, bigint, text[], bigint) IS
	'phase two for all batches of a job up to a completed checkpoint: commit them. For the sink''s owner';
COMMENT ON FUNCTION revenue_sink.offsets(text, text) IS 'the offsets from which to go on reading';
COMMENT ON FUNCTION revenue_sink.merge(text) IS
	'settle deferred events and merge deltas now; returns how many rows were removed. For the sink''s owner';
COMMENT ON FUNCTION revenue_sink.expire(text) IS
	'remove expired events and facts now, a bounded number per call; returns how many rows were removed. For the sink''s owner';
COMMENT ON FUNCTION revenue_sink.start_worker() IS
	'ask for a worker in this database, to start once the transaction has committed';
COMMENT ON FUNCTION revenue_sink."check"(text) IS
	'compare index, pages, revenue and ledger: one row per disagreement. For the sink''s owner';

DROP FUNCTION revenue_sink.may_see(regclass, regclass), revenue_sink.former_counters(text);
ALTER TABLE revenue_sink.sink_catalog DROP COLUMN fact, DROP COLUMN ingest, DROP COLUMN seen, DROP COLUMN spill,
	DROP COLUMN delta, DROP COLUMN total;

SELECT revenue_sink.start_worker();
