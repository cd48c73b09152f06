-- One event a transaction: a sink, a bare heap, and the hand-written tables.
SELECT revenue_sink.create_sink('single', 'single_fact', 'single_events');

CREATE TABLE single_bare (order_id text, event_id text, event_time timestamptz, amount numeric)
	WITH (autovacuum_enabled = off);

CREATE TABLE hand_single (order_id text COLLATE "C", event_id text COLLATE "C", event_time timestamptz,
	amount numeric, PRIMARY KEY (order_id, event_id)) WITH (autovacuum_enabled = off);

CREATE TABLE hand_single_fact (minute timestamptz PRIMARY KEY, revenue numeric NOT NULL,
	events bigint NOT NULL) WITH (fillfactor = 20);
