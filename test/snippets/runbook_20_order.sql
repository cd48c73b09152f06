SELECT sink, owner, fact, ingest, problem FROM revenue_sink.sink WHERE problem IS NOT NULL;
