SELECT sink, late_policy, dedup_window, retain, discarded
FROM revenue_sink.sink JOIN revenue_sink.stat_sink USING (sink) WHERE retain IS NOT NULL;
