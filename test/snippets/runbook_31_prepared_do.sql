ALTER SYSTEM SET max_prepared_transactions = 400;
