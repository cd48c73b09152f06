package revenuesink.test;

import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;
import org.revenuesink.flink.Delivery;
import org.revenuesink.flink.RevenueSink;

/**
 * Kafka to a sink, from a topic's beginning to its present end.
 *
 *	--bootstrap A --topic T --url JDBC --name N --progress FILE
 *	--sink two_phase	revenue_sink, two-phase
 *	       one_phase	revenue_sink, one-phase
 *	       late			revenue_sink, two-phase, with one attempt too late: see Late
 *	       stock, stock_xa, hand, hand_xa	see Stock
 *	       discard		nothing
 *	--keyed BOOL		by order
 *	--rate N			records a second and subtask at most
 *	--batch N			events a call
 */
public final class RevenueJob {
	private RevenueJob() {
	}

	public static void main(String[] args) throws Exception {
		Arguments given = Arguments.of(args);
		StreamExecutionEnvironment env = StreamExecutionEnvironment.getExecutionEnvironment();
		env.getConfig().enableObjectReuse(); // events don't change
		KafkaSource<OrderEvent> source = KafkaSource.<OrderEvent>builder()
				.setBootstrapServers(given.get("bootstrap"))
				.setTopics(given.get("topic"))
				.setGroupId(given.get("name"))
				.setClientIdPrefix(given.get("name"))
				.setStartingOffsets(OffsetsInitializer.earliest())
				.setBounded(OffsetsInitializer.latest())
				.setProperty("isolation.level", "read_committed")
				.setProperty("reconnect.backoff.max.ms", "200")
				.setDeserializer(new OrderEventSchema(given.get("progress")))
				.build();
		DataStream<OrderEvent> events = env
				.fromSource(source, WatermarkStrategy.noWatermarks(), "payments").uid("payments");

		if (given.has("rate"))
			events = events.map(new Throttle(given.number("rate", 0))).name("throttle").uid("throttle");
		if (given.has("keyed") && given.get("keyed").equals("true"))
			events = events.keyBy(event -> event.orderId());
		events.sinkTo(sink(given)).name("sink").uid("sink");
		env.execute(given.get("name"));
	}

	private static Sink<OrderEvent> sink(Arguments given) throws ReflectiveOperationException {
		return switch (given.get("sink")) {
			case "two_phase" -> revenue(given, Delivery.TWO_PHASE);
			case "one_phase" -> revenue(given, Delivery.ONE_PHASE);
			case "discard" -> new DiscardingSink<>();
			case "late" -> elsewhere("Late", given);
			default -> elsewhere("Stock", given);
		};
	}

	static RevenueSink<OrderEvent> revenue(Arguments given, Delivery delivery) {
		return RevenueSink.<OrderEvent>builder()
				.setUrl(given.get("url"))
				.setSinkName("orders")
				.setJobName(given.get("name"))
				.setDelivery(delivery)
				.setBatchSize(given.number("batch", 10_000))
				.setEncoder((event, batch) -> batch.add(event.orderId(), event.eventId(), event.eventTime(),
						event.amount(), null))
				.build();
	}

	/** What isn't compiled for each version of Flink. */
	@SuppressWarnings("unchecked")
	private static Sink<OrderEvent> elsewhere(String name, Arguments given) throws ReflectiveOperationException {
		return (Sink<OrderEvent>) Class.forName("revenuesink.test." + name)
				.getDeclaredMethod("sink", Arguments.class).invoke(null, given);
	}
}
