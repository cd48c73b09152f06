SELECT sink, job, writer, newest_event_time,
	last_batch_at > now() - current_setting('revenue_sink.writer_idle')::interval AS live
FROM revenue_sink.writer ORDER BY newest_event_time;
