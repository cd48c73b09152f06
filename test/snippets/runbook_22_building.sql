SELECT sink, index_state, index_percent FROM revenue_sink.stat_sink WHERE sink = 'orders';
