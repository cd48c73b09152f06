import java.sql.*;
import java.util.*;
import org.apache.spark.TaskContext;
import org.apache.spark.api.java.function.ForeachPartitionFunction;
import org.apache.spark.api.java.function.VoidFunction2;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;

/**
 * Kafka to revenue_sink, exactly once: Spark Structured Streaming and pgjdbc.
 *
 *	SparkSink CHECKPOINT_DIR
 *
 * BOOTSTRAP and TOPIC say what to read, GROUP is the job, JDBC where to write. A
 * record is order_id,event_id,event_time,amount. Each task of a micro-batch is a
 * batch of the sink, numbered as Spark numbers micro-batches, in an epoch that each
 * start of the query begins anew.
 */
public final class SparkSink {
	private static final String SINK = "orders";
	private static final String TOPIC = System.getenv("TOPIC"), JOB = System.getenv("GROUP");
	private static final String[] TYPES = {"text", "text", "timestamptz", "numeric"};
	private static final long GIVE_UP = 60_000; // ms without an answer

	private SparkSink() {
	}

	private interface Work<T> {
		T run(Connection c) throws SQLException;
	}

	/** Work until there is an answer, which is safe whatever became of the last one. What
	 *  isn't worth repeating is thrown, the fencing error RS001 above all: a zombie must stop. */
	private static <T> T repeat(boolean autocommit, Work<T> work) throws SQLException, InterruptedException {
		for (long deadline = System.currentTimeMillis() + GIVE_UP;; Thread.sleep(100)) {
			try (Connection c = DriverManager.getConnection(System.getenv("JDBC"))) {
				c.setAutoCommit(autocommit);
				return work.run(c);
			} catch (SQLException e) {
				String state = e.getSQLState() == null ? "" : e.getSQLState();

				if (!(state.equals("40001") || state.startsWith("08") || state.startsWith("57P"))
						|| System.currentTimeMillis() > deadline)
					throw e;
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

	/** A new epoch for all tasks: those that an earlier driver left behind can't commit
	 *  any more. The epoch must be new, since a new checkpoint directory counts from 0 again. */
	private static long recover(Connection c) throws SQLException {
		try (ResultSet row = query(c, "CALL revenue_sink.recover(?, ?, NULL)", SINK, JOB)) {
			row.next();
			return row.getLong(1);
		}
	}

	/** Spark asks for it only where the checkpoint directory is new. */
	private static String startingOffsets(Connection c) throws SQLException {
		try (ResultSet row = query(c, "SELECT json_build_object(?::text, json_object_agg(partition, next_offset))"
				+ " FROM revenue_sink.offsets(?, ?) HAVING count(*) > 0", TOPIC, SINK, TOPIC)) {
			return row.next() ? row.getString(1) : "earliest";
		}
	}

	/** What one task has to write, in one transaction. If it was there, an earlier
	 *  attempt of the task did it, or its answer was lost. */
	private static void write(long epoch, long number, Iterator<Row> rows) throws SQLException, InterruptedException {
		String writer = "task-" + TaskContext.getPartitionId();
		List<String[]> events = new ArrayList<>();
		Map<Integer, Long> offsets = new TreeMap<>();

		rows.forEachRemaining(row -> {
			events.add(row.getString(2).split(","));
			offsets.put(row.getInt(0), row.getLong(1) + 1);
		});
		if (events.isEmpty())
			return;
		repeat(false, c -> {
			try (ResultSet row = query(c, "SELECT revenue_sink.begin_batch(?, ?, ?, ?, ?)", SINK, JOB, writer, epoch, number)) {
				if (row.next() && row.getBoolean(1)) {
					Object[] values = {SINK, null, null, null, null};

					for (int i = 0; i < TYPES.length; i++) {
						final int column = i;
						values[i + 1] = c.createArrayOf(TYPES[i], events.stream().map(event -> event[column]).toArray());
					}
					query(c, "SELECT * FROM revenue_sink.apply(?, ?, ?, ?, ?)", values).close();
					query(c, "SELECT revenue_sink.store_offsets(?, ?, ?, ?)", SINK, TOPIC,
							c.createArrayOf("int4", offsets.keySet().toArray()),
							c.createArrayOf("int8", offsets.values().toArray())).close();
				}
			}
			c.commit();
			return null;
		});
	}

	public static void main(String[] args) throws Exception {
		long epoch = repeat(true, SparkSink::recover);
		String start = repeat(true, SparkSink::startingOffsets);

		System.out.println("epoch " + epoch + ", a new checkpoint directory would start from " + start);
		try (SparkSession spark = SparkSession.builder().appName(JOB).getOrCreate()) {
			spark.readStream().format("kafka")
					.option("kafka.bootstrap.servers", System.getenv("BOOTSTRAP")).option("subscribe", TOPIC)
					.option("kafka.isolation.level", "read_committed")
					.option("startingOffsets", start).option("maxOffsetsPerTrigger", 2000)
					.load().selectExpr("partition", "offset", "CAST(value AS STRING)")
					.writeStream().option("checkpointLocation", args[0])
					.foreachBatch((VoidFunction2<Dataset<Row>, Long>) (batch, id) -> batch.foreachPartition(
							(ForeachPartitionFunction<Row>) rows -> write(epoch, id, rows)))
					.start().awaitTermination();
		}
	}
}
