SELECT revenue_sink.alter_sink('orders', retain => '500 days', late_policy => 'reject');
