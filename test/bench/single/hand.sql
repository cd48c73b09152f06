\set order random(100000000000, 999999999999)
\set second random(1, :span)
\set cents random(1, 99999)
WITH fresh AS (INSERT INTO hand_single VALUES (:order::text, gen_random_uuid()::text,
	to_timestamp(:base::int + :second::int), :cents / 100.0)
	ON CONFLICT DO NOTHING RETURNING event_time, amount)
INSERT INTO hand_single_fact AS f SELECT date_trunc('minute', event_time), amount, 1 FROM fresh
	ON CONFLICT (minute) DO UPDATE SET revenue = f.revenue + excluded.revenue, events = f.events + excluded.events;
