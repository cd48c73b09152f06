SELECT DISTINCT ON (events) to_char(events / 1e6, 'FM99,999') AS "million events",
	pg_size_pretty(memory::bigint) AS dedup_memory, pg_size_pretty(index::bigint) AS index,
	pg_size_pretty(tags::bigint) AS tags, pg_size_pretty(fences::bigint) AS fences
FROM unnest('{1e6, 1e7, 3e7, 1e8, 3e8, 1e9, 3e9, 1e10}'::float8[]) AS events
	CROSS JOIN (SELECT step * 2 ^ power AS memory FROM generate_series(20, 36) AS power,
		unnest('{2, 3}'::int[]) AS step) AS m
	CROSS JOIN LATERAL (SELECT least(1e6, memory / 70) AS slice,
		least(17.3e6, memory / 4) AS waiting, least(13e6, memory / 4) AS others,
		(SELECT min(2 ^ i) FROM generate_series(16, 32) AS i WHERE 2 ^ i >= memory / 8192) AS chunk) AS s
	CROSS JOIN LATERAL (SELECT least(events, 16384 * slice) AS sealed) AS e
	CROSS JOIN LATERAL (SELECT
		greatest(12.8 * (events - sealed), greatest(waiting, memory / 20) + greatest(others, memory / 16)) AS index,
		2.3 * (sealed + least(63 * slice, sealed + 8 * slice)) AS tags, ceil(greatest(least(sealed / slice, 1024), sealed / slice / 8)) * chunk AS fences) AS b
WHERE index <= memory / 2 AND index + tags + fences <= memory * 31 / 32
ORDER BY events, memory;
