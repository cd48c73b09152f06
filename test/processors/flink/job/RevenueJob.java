package revenuesink.test;

import java.time.Instant;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.connector.jdbc.JdbcConnectionOptions;
import org.apache.flink.connector.jdbc.JdbcExactlyOnceOptions;
import org.apache.flink.connector.jdbc.JdbcExecutionOptions;
import org.apache.flink.connector.jdbc.JdbcStatementBuilder;
import org.apache.flink.connector.jdbc.core.datastream.sink.JdbcSink;
import org.apache.flink.connector.jdbc.core.datastream.sink.JdbcSinkBuilder;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;
import org.apache.flink.util.ParameterTool;
import org.postgresql.xa.PGXADataSource;
import revenuesink.OrderEvent;
import revenuesink.RevenueSink;

/**
 * Kafka to a sink, from a topic's beginning to its present end.
 *
 *	--bootstrap A --topic T --url JDBC --name N --progress FILE
 *	--sink two_phase	revenue_sink, two-phase
 *	       stock		the JDBC connector, INSERT INTO order_events
 *	       stock_xa		the same in XA transactions
 *	       hand			the JDBC connector, tables made by hand
 *	       hand_xa		the same in XA transactions
 *	       discard		nothing
 *	--keyed BOOL		by order
 *	--rate N			records a second and subtask at most
 *	--batch N			events a call
 */
public final class RevenueJob {
	private RevenueJob() {
	}

	public static void main(String[] args) throws Exception {
		ParameterTool given = ParameterTool.fromArgs(args);
		StreamExecutionEnvironment env = StreamExecutionEnvironment.getExecutionEnvironment();
		env.getConfig().enableObjectReuse(); // events don't change
		KafkaSource<OrderEvent> source = KafkaSource.<OrderEvent>builder()
				.setBootstrapServers(given.getRequired("bootstrap"))
				.setTopics(given.getRequired("topic"))
				.setGroupId(given.getRequired("name"))
				.setClientIdPrefix(given.getRequired("name"))
				.setStartingOffsets(OffsetsInitializer.earliest())
				.setBounded(OffsetsInitializer.latest())
				.setProperty("isolation.level", "read_committed")
				.setProperty("reconnect.backoff.max.ms", "200")
				.setDeserializer(new OrderEventSchema(given.getRequired("progress")))
				.build();
		DataStream<OrderEvent> events = env
				.fromSource(source, WatermarkStrategy.noWatermarks(), "payments").uid("payments");

		if (given.has("rate"))
			events = events.map(new Throttle(given.getInt("rate"))).name("throttle").uid("throttle");
		if (given.getBoolean("keyed", false))
			events = events.keyBy(event -> event.orderId());
		events.sinkTo(sink(given)).name("sink").uid("sink");
		env.execute(given.getRequired("name"));
	}

	private static Sink<OrderEvent> sink(ParameterTool given) {
		String url = given.get("url");
		int batch = given.getInt("batch", 10_000);

		return switch (given.getRequired("sink")) {
			case "two_phase" -> new RevenueSink(new RevenueSink.Options(url, "orders", given.getRequired("name"), batch));
			case "stock" -> atLeastOnce(url, batch, events());
			case "stock_xa" -> exactlyOnce(url, batch, events());
			case "hand" -> atLeastOnce(url, batch, byHand());
			case "hand_xa" -> exactlyOnce(url, batch, byHand());
			case "discard" -> new DiscardingSink<>();
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
