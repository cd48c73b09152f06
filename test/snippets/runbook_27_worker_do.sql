ALTER SYSTEM SET max_worker_processes = 30;
