import java.sql.*;
import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;

/**
 * Kafka to revenue_sink, exactly once: kafka-clients and pgjdbc.
 *
 *	Consumer INSTANCE
 *
 * BOOTSTRAP, TOPIC and GROUP say what to read, JDBC where to write. A record is
 * order_id,event_id,event_time,amount. The group is the job, and each partition is
 * a writer of it: so whoever is assigned a partition fences whoever had it before.
 * The offsets that count are in the sink, where they commit with the events. Kafka
 * is told none.
 */
public final class Consumer implements ConsumerRebalanceListener {
	private static final String SINK = "orders";
	private static final String TOPIC = System.getenv("TOPIC"), JOB = System.getenv("GROUP");
	private static final String[] TYPES = {"text", "text", "timestamptz", "numeric"};
	private static final long GIVE_UP = 60_000; // ms without an answer

	private final KafkaConsumer<String, String> kafka;
	private final Map<TopicPartition, Long> epochs = new HashMap<>();
	private Connection connection;
	private long number;

	private interface Work<T> {
		T run(Connection c) throws SQLException;
	}

	private Consumer(String instance) {
		this.kafka = new KafkaConsumer<>(Map.of("bootstrap.servers", System.getenv("BOOTSTRAP"),
				"group.id", JOB, "group.instance.id", instance, "session.timeout.ms", 6000,
				"enable.auto.commit", false, "auto.offset.reset", "earliest", "isolation.level", "read_committed",
				"key.deserializer", "org.apache.kafka.common.serialization.StringDeserializer",
				"value.deserializer", "org.apache.kafka.common.serialization.StringDeserializer"));
	}

	/** Work until there is an answer, which is safe whatever became of the last one. What
	 *  isn't worth repeating is thrown, the fencing error RS001 above all: a zombie must stop. */
	private <T> T repeat(boolean autocommit, Work<T> work) throws SQLException, InterruptedException {
		for (long deadline = System.currentTimeMillis() + GIVE_UP;;) {
			try {
				if (connection == null)
					connection = DriverManager.getConnection(System.getenv("JDBC"));
				connection.setAutoCommit(autocommit);
				return work.run(connection);
			} catch (SQLException e) {
				String state = e.getSQLState() == null ? "" : e.getSQLState();

				if (!(state.equals("40001") || state.startsWith("08") || state.startsWith("57P"))
						|| System.currentTimeMillis() > deadline)
					throw e;
				if (connection != null)
					connection.close(); // rolls back what may be open
				connection = null;
				Thread.sleep(100); // a server that starts is asked again, gently
			}
		}
	}

	private static ResultSet query(Connection c, String sql, Object... values) throws SQLException {
		PreparedStatement statement = c.prepareStatement(sql);

		statement.closeOnCompletion();
		for (int i = 0; i < values.length; i++)
			statement.setObject(i + 1, values[i]);
		return statement.executeQuery();
	}

	/** A new epoch for a partition: its former owner can't commit any more. Only
	 *  then is it known where to go on. */
	private long open(Connection c, TopicPartition p) throws SQLException {
		try (ResultSet row = query(c, "CALL revenue_sink.open_writer(?, ?, ?)", SINK, JOB, p.toString())) {
			row.next();
			epochs.put(p, row.getLong(1));
		}
		try (ResultSet row = query(c, "SELECT next_offset FROM revenue_sink.offsets(?, ?) WHERE partition = ?",
				SINK, TOPIC, p.partition())) {
			return row.next() ? row.getLong(1) : 0;
		}
	}

	/** One batch in one transaction. If it was there, its answer was lost. */
	private Void write(Connection c, TopicPartition p, List<ConsumerRecord<String, String>> batch) throws SQLException {
		try (ResultSet row = query(c, "SELECT revenue_sink.begin_batch(?, ?, ?, ?, ?)",
				SINK, JOB, p.toString(), epochs.get(p), number)) {
			if (row.next() && row.getBoolean(1)) {
				List<String[]> events = batch.stream().map(record -> record.value().split(",")).toList();
				Object[] values = {SINK, null, null, null, null};

				for (int i = 0; i < TYPES.length; i++) {
					final int column = i;
					values[i + 1] = c.createArrayOf(TYPES[i], events.stream().map(event -> event[column]).toArray());
				}
				query(c, "SELECT * FROM revenue_sink.apply(?, ?, ?, ?, ?)", values).close();
				query(c, "SELECT revenue_sink.store_offsets(?, ?, ARRAY[?::int], ARRAY[?::bigint])",
						SINK, TOPIC, p.partition(), batch.get(batch.size() - 1).offset() + 1).close();
			}
		}
		c.commit();
		return null;
	}

	/** Called from within poll(), so never in the middle of a batch. */
	@Override
	public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
		try {
			for (TopicPartition p : partitions) {
				long next = repeat(true, c -> open(c, p));

				kafka.seek(p, next);
				System.out.println("partition " + p.partition() + " from " + next + ", epoch " + epochs.get(p));
			}
		} catch (SQLException | InterruptedException e) {
			throw new IllegalStateException(e);
		}
	}

	@Override
	public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
		// whatever poll() returned before has been committed
	}

	private void run() throws SQLException, InterruptedException {
		for (kafka.subscribe(List.of(TOPIC), this);;) {
			ConsumerRecords<String, String> records = kafka.poll(Duration.ofMillis(200));

			for (TopicPartition p : records.partitions()) {
				number++;
				repeat(false, c -> write(c, p, records.records(p)));
			}
		}
	}

	public static void main(String[] args) throws Exception {
		new Consumer(args[0]).run();
	}
}
