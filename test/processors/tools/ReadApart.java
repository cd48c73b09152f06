import java.io.PrintWriter;
import java.math.BigDecimal;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;

/**
 * Reads a topic from beginning to end with nothing of the sink: writes a line
 * minute,revenue,events for each minute of the events without their duplicates
 * into FILE, and prints how many records there are, how many of them distinct,
 * and how many distinct ones FROM .. TO - 1 should have made.
 *
 *	ReadApart BOOTSTRAP TOPIC FROM TO FILE
 */
public final class ReadApart {
	private static final class Minute {
		private BigDecimal revenue = BigDecimal.ZERO;
		private long events;

		void add(BigDecimal amount) {
			revenue = revenue.add(amount);
			events++;
		}
	}

	private ReadApart() {
	}

	public static void main(String[] args) throws Exception {
		Map<String, Object> settings = Map.of("bootstrap.servers", args[0], "client.id", "apart",
				"key.deserializer", "org.apache.kafka.common.serialization.StringDeserializer",
				"value.deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
		TreeMap<String, Minute> minutes = new TreeMap<>();
		Set<String> seen = new HashSet<>();
		Set<String> sent = new HashSet<>();
		long records = 0;

		try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(settings)) {
			List<TopicPartition> all = consumer.partitionsFor(args[1]).stream()
					.map(p -> new TopicPartition(args[1], p.partition())).toList();
			Map<TopicPartition, Long> ends = consumer.endOffsets(all);

			consumer.assign(all);
			consumer.seekToBeginning(all);
			while (all.stream().anyMatch(p -> consumer.position(p) < ends.get(p))) {
				for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofSeconds(1))) {
					String[] event = record.value().split(",");

					records++;
					if (seen.add(event[0] + "," + event[1]))
						minutes.computeIfAbsent(Instant.parse(event[2]).toString().substring(0, 16),
								m -> new Minute()).add(new BigDecimal(event[3]));
				}
			}
		}
		try (PrintWriter out = new PrintWriter(Files.newBufferedWriter(Path.of(args[4])))) {
			minutes.forEach((minute, m) -> out.println(minute + "Z," + m.revenue + "," + m.events));
		}
		for (long i = Long.parseLong(args[2]); i < Long.parseLong(args[3]); i++)
			sent.add(Events.order(i) + ",evt-" + i % 3);
		System.out.println(records + " " + seen.size() + " " + (sent.equals(seen) ? sent.size() : -1));
	}
}
