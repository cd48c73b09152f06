-- What you know of the stream.
\set rate 2000
\set dedup_window '7 days'
\set bucket '1 minute'
\set groups 4
\set retain '400 days'
\set dead_letters 10000
-- How it is sent: events of a call, buckets in each call, writers, and for two-phase
-- commit the time between two checkpoints and how many are prepared and not committed.
\set call_events 1000
\set call_buckets 3
\set writers 4
\set checkpoint '1 minute'
\set in_flight 1
-- Who else is there: readers' connections, databases that have the extension, sinks.
\set readers 20
\set databases 1
\set max_sinks 64
WITH stream AS (
	SELECT :rate::float8 AS rate, :rate * extract(epoch FROM interval :'dedup_window')::float8 AS known,
		:rate / :call_events::float8 AS calls, :call_buckets * :groups::float8 AS call_rows,
		extract(epoch FROM interval :'checkpoint')::float8 AS checkpoint,
		extract(epoch FROM interval :'retain') / extract(epoch FROM interval :'bucket') * :groups AS facts
), held AS (
	SELECT *, rate * checkpoint * (:in_flight + 1) AS unfinished, :writers * (:in_flight + 1) AS prepared,
		calls * least(:call_events, call_rows) AS deltas FROM stream
), memory AS (
	SELECT * FROM held CROSS JOIN LATERAL (SELECT step * 2 ^ power AS memory
			FROM generate_series(20, 36) AS power, unnest('{2, 3}'::int[]) AS step) AS m
		CROSS JOIN LATERAL (SELECT least(1e6, memory / 70) AS slice, least(17.3e6, memory / 4) AS waiting,
			greatest(least(13e6, memory / 4), 12.8 * unfinished) AS others,
			(SELECT min(2 ^ i) FROM generate_series(16, 32) AS i WHERE 2 ^ i >= memory / 8192) AS chunk) AS s
		CROSS JOIN LATERAL (SELECT least(known, 16384 * slice) AS sealed) AS e
		CROSS JOIN LATERAL (SELECT
			greatest(12.8 * (known - sealed + unfinished),
				greatest(waiting, memory / 20) + greatest(others, memory / 16)) AS index,
			2.3 * (sealed + least(63 * slice, sealed + 8 * slice)) AS tags, ceil(greatest(least(sealed / slice, 1024), sealed / slice / 8)) * chunk AS fences) AS b
	WHERE index <= memory / 2 AND index + tags + fences <= memory * 31 / 32
	ORDER BY memory LIMIT 1
)
SELECT need, round(amount) AS amount, CASE WHEN need ~ 'bytes' THEN pg_size_pretty(amount::bigint) END AS is
FROM memory CROSS JOIN LATERAL (VALUES
	('events in the window', known),
	('dedup_memory, bytes', memory),
	('other shared memory, bytes', 157e3 * :max_sinks + 47e3 * prepared),
	('index, bytes', index),
	('tags, bytes', tags),
	('fences, bytes', fences),
	('disk of seen events, bytes', 21.9 * known + 20.5 * (slice * 4 / 3 + unfinished)),
	('disk of facts, bytes', 110 * facts),
	('disk of dead letters, bytes', (210 + 260) * :dead_letters),
	('WAL of calls, bytes a second', 20.5 * rate + 280 * calls + 130 * deltas),
	('WAL of packing, bytes a second', CASE WHEN :call_events < 64 THEN 20.5 * rate + 55 * calls ELSE 0 END),
	('WAL of sealing, bytes a second', 22.7 * rate),
	('WAL of merging, bytes a second', 60 * deltas + 225 * least(deltas, call_rows)),
	('WAL of expiry, bytes a second', 1.0 * rate),
	('WAL of two-phase commit, bytes a second', CASE WHEN prepared > 0 THEN 900 * :writers / checkpoint ELSE 0 END),
	('connections', :writers + 1 + :readers),
	('prepared transactions at most', prepared),
	('max_prepared_transactions', ceil(1.25 * prepared)),
	('background workers', 1 + :databases),
	('max_worker_processes', 8 + 2 + :databases)
) AS v (need, amount);
