-- What one would write by hand: the events by their key, and an upsert of their
-- minutes for each statement. Part of the key is the transaction where it may be
-- held (XA), since two of them can't have one row, and the session elsewhere.
DROP TABLE IF EXISTS hand_seen, hand_minute;
CREATE TABLE hand_seen (order_id text, event_id text, event_time timestamptz, amount numeric,
	PRIMARY KEY (order_id, event_id));
CREATE TABLE hand_minute (minute timestamptz, part bigint, revenue numeric, events bigint, PRIMARY KEY (minute, part));
CREATE OR REPLACE FUNCTION hand_add() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO hand_minute AS m
		SELECT date_trunc('minute', event_time), CASE TG_ARGV[0] WHEN 'transaction' THEN pg_current_xact_id()::text::bigint
				ELSE pg_backend_pid() END, sum(amount), count(*)
			FROM new_rows GROUP BY 1, 2
		ON CONFLICT (minute, part) DO UPDATE SET revenue = m.revenue + excluded.revenue, events = m.events + excluded.events;
	RETURN NULL;
END $$;
CREATE TRIGGER hand_add AFTER INSERT ON hand_seen REFERENCING NEW TABLE AS new_rows
	FOR EACH STATEMENT EXECUTE FUNCTION hand_add(:'part');
