package revenuesink.test;

import java.time.Instant;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.connector.jdbc.JdbcConnectionOptions;
import org.apache.flink.connector.jdbc.JdbcExactlyOnceOptions;
import org.apache.flink.connector.jdbc.JdbcExecutionOptions;
import org.apache.flink.connector.jdbc.JdbcStatementBuilder;
import org.apache.flink.connector.jdbc.core.datastream.sink.JdbcSink;
import org.apache.flink.connector.jdbc.core.datastream.sink.JdbcSinkBuilder;
import org.postgresql.xa.PGXADataSource;

/**
 * The JDBC connector's sinks.
 *
 *	stock		INSERT INTO order_events
 *	stock_xa	the same in XA transactions
 *	hand		tables made by hand
 *	hand_xa		the same in XA transactions
 */
final class Stock {
	private Stock() {
	}

	static Sink<OrderEvent> sink(Arguments given) {
		String url = given.get("url");
		int batch = given.number("batch", 10_000);

		return switch (given.get("sink")) {
			case "stock" -> atLeastOnce(url, batch, events());
			case "stock_xa" -> exactlyOnce(url, batch, events());
			case "hand" -> atLeastOnce(url, batch, byHand());
			case "hand_xa" -> exactlyOnce(url, batch, byHand());
			default -> throw new IllegalArgumentException(given.get("sink"));
		};
	}

	private static JdbcSinkBuilder<OrderEvent> events() {
		return inserts("order_events", "");
	}

	private static JdbcSinkBuilder<OrderEvent> byHand() {
		return inserts("hand_seen", " ON CONFLICT (order_id, event_id) DO NOTHING");
	}

	private static JdbcSinkBuilder<OrderEvent> inserts(String table, String clause) {
		JdbcStatementBuilder<OrderEvent> values = (insert, event) -> {
			insert.setString(1, event.orderId());
			insert.setString(2, event.eventId());
			insert.setObject(3, time(event));
			insert.setBigDecimal(4, event.amount());
		};

		return JdbcSink.<OrderEvent>builder().withQueryStatement("INSERT INTO " + table
				+ " (order_id, event_id, event_time, amount) VALUES (?, ?, ?, ?)" + clause, values);
	}

	private static OffsetDateTime time(OrderEvent event) {
		return Instant.ofEpochSecond(event.eventTime() / 1_000_000, event.eventTime() % 1_000_000 * 1000)
				.atOffset(ZoneOffset.UTC);
	}

	private static JdbcSink<OrderEvent> atLeastOnce(String url, int batch, JdbcSinkBuilder<OrderEvent> builder) {
		return builder
				.withExecutionOptions(JdbcExecutionOptions.builder().withBatchSize(batch).withBatchIntervalMs(200)
						.withMaxRetries(3).build())
				.buildAtLeastOnce(new JdbcConnectionOptions.JdbcConnectionOptionsBuilder().withUrl(url)
						.withDriverName("org.postgresql.Driver").build());
	}

	/** One connection may run one transaction at a time, hence a connection for each. */
	private static JdbcSink<OrderEvent> exactlyOnce(String url, int batch, JdbcSinkBuilder<OrderEvent> builder) {
		return builder
				.withExecutionOptions(JdbcExecutionOptions.builder().withBatchSize(batch).withMaxRetries(0).build())
				.buildExactlyOnce(JdbcExactlyOnceOptions.builder().withTransactionPerConnection(true).build(), () -> {
					PGXADataSource xa = new PGXADataSource();

					xa.setUrl(url);
					return xa;
				});
	}
}
