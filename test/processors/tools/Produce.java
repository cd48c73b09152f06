import java.util.Properties;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;

/**
 * Sends the events FROM .. TO - 1, through a proxy that loses one answer in
 * EVERY, and prints how many it has lost.
 *
 *	Produce PORT TOPIC idempotent|plain FROM TO EVERY
 *
 * PORT is the broker's first one, see kafka.sh. The one setting that differs is
 * enable.idempotence: with it the broker knows what is sent again, for as long as
 * the producer lives; without it, it's in the topic twice.
 */
public final class Produce {
	private Produce() {
	}

	public static void main(String[] args) throws Exception {
		int port = Integer.parseInt(args[0]);
		long to = Long.parseLong(args[4]);
		AnswerCutter cutter = new AnswerCutter(port + 3, port + 2, Integer.parseInt(args[5]));
		AtomicReference<Exception> failed = new AtomicReference<>();
		Properties settings = new Properties();

		settings.put("bootstrap.servers", "127.0.0.1:" + (port + 3));
		settings.put("enable.idempotence", String.valueOf(args[2].equals("idempotent")));
		settings.put("acks", "all");
		settings.put("retries", String.valueOf(Integer.MAX_VALUE));
		settings.put("max.in.flight.requests.per.connection", "5");
		settings.put("reconnect.backoff.ms", "10");
		settings.put("reconnect.backoff.max.ms", "100");
		settings.put("linger.ms", "5");
		settings.put("batch.size", "2000");
		settings.put("key.serializer", "org.apache.kafka.common.serialization.StringSerializer");
		settings.put("value.serializer", "org.apache.kafka.common.serialization.StringSerializer");
		try (KafkaProducer<String, String> producer = new KafkaProducer<>(settings)) {
			for (long i = Long.parseLong(args[3]); i < to; i++)
				producer.send(new ProducerRecord<>(args[1], Events.order(i), Events.value(i)), (at, e) -> {
					if (e != null)
						failed.set(e);
				});
			producer.flush();
		}
		if (failed.get() != null)
			throw failed.get();
		System.out.println(cutter.cut());
	}
}
