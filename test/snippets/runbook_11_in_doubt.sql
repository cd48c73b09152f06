SELECT sink, job, writer, epoch, number, events
FROM revenue_sink.prepared WHERE state = 'in doubt' ORDER BY prepared_at;
