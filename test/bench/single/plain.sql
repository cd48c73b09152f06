\set order random(100000000000, 999999999999)
\set second random(1, :span)
\set cents random(1, 99999)
INSERT INTO single_bare VALUES (:order::text, gen_random_uuid()::text,
	to_timestamp(:base::int + :second::int), :cents / 100.0);
