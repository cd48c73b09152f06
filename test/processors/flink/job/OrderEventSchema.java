package revenuesink.test;

import java.io.IOException;
import java.math.BigDecimal;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Instant;
import org.apache.flink.api.common.serialization.DeserializationSchema;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;

/**
 * A record is order_id,event_id,event_time,amount.
 *
 * How far each partition has been read is written into a file, 8 bytes a
 * partition, which those who kill processes look at: Flink's own metrics are too
 * late for that, the more so when some of it is dead.
 */
final class OrderEventSchema implements KafkaRecordDeserializationSchema<OrderEvent> {
	private static final long serialVersionUID = 1;
	private static final int MOST_PARTITIONS = 64;

	private final String file;
	private transient MappedByteBuffer offsets;

	OrderEventSchema(String file) {
		this.file = file;
	}

	@Override
	public void open(DeserializationSchema.InitializationContext context) throws IOException {
		try (FileChannel channel = FileChannel.open(Path.of(file), StandardOpenOption.CREATE, StandardOpenOption.READ,
				StandardOpenOption.WRITE)) {
			offsets = channel.map(FileChannel.MapMode.READ_WRITE, 0, MOST_PARTITIONS * Long.BYTES);
		}
	}

	@Override
	public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<OrderEvent> out) {
		String[] field = new String(record.value(), StandardCharsets.UTF_8).split(",");
		Instant time = Instant.parse(field[2]);

		offsets.putLong(record.partition() * Long.BYTES, record.offset() + 1);
		out.collect(new OrderEvent(field[0], field[1], time.getEpochSecond() * 1_000_000 + time.getNano() / 1000,
				new BigDecimal(field[3])));
	}

	@Override
	public TypeInformation<OrderEvent> getProducedType() {
		return TypeInformation.of(OrderEvent.class);
	}
}
