import java.util.Properties;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;

/**
 * Sends the events 0 .. COUNT - 1, each once, as fast as it can.
 *
 *	Fill BOOTSTRAP TOPIC COUNT
 */
public final class Fill {
	private Fill() {
	}

	public static void main(String[] args) throws Exception {
		AtomicReference<Exception> failed = new AtomicReference<>();
		Properties settings = new Properties();

		settings.put("bootstrap.servers", args[0]);
		settings.put("linger.ms", "20");
		settings.put("batch.size", "262144");
		settings.put("key.serializer", "org.apache.kafka.common.serialization.StringSerializer");
		settings.put("value.serializer", "org.apache.kafka.common.serialization.StringSerializer");
		try (KafkaProducer<String, String> producer = new KafkaProducer<>(settings)) {
			for (long i = 0; i < Long.parseLong(args[2]); i++)
				producer.send(new ProducerRecord<>(args[1], Events.order(i), Events.value(i)), (at, e) -> {
					if (e != null)
						failed.set(e);
				});
			producer.flush();
		}
		if (failed.get() != null)
			throw failed.get();
	}
}
