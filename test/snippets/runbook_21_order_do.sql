SELECT revenue_sink.adopt_sink('refunds');
SELECT sink, problem FROM revenue_sink.sink WHERE problem IS NOT NULL;
