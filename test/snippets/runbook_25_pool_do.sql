ALTER SYSTEM SET revenue_sink.dedup_memory = '512MB';
