import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.List;

/**
 * A processor that writes to revenue_sink, one commit a batch.
 *
 *     java -cp postgresql.jar OnePhase.java URL TOPIC [--replay]
 *
 * The topic is a CSV file (without quotes) of
 * order_id,event_id,event_time,amount,group_key; it has one partition, and the
 * offset of an event is the number of its line, from 0. LOSE_ANSWER=3 drops the
 * connection right after the COMMIT of batch 3, before its answer is looked at.
 */
public class OnePhase implements AutoCloseable {
	static final String SINK = "orders", JOB = "billing", WRITER = "consumer-1", SOURCE = "payments";
	static final int PARTITION = 0;
	static final int BATCH = 200; // events a transaction
	static final long GIVE_UP = 60_000; // milliseconds without an answer

	final String url;
	long epoch;
	Connection connection;
	int loseAnswer = Integer.parseInt(System.getenv().getOrDefault("LOSE_ANSWER", "0"));

	OnePhase(String url) {
		this.url = url;
	}

	/** Transactions are ours: the driver opens one with the first statement after a commit. */
	Connection connected() throws SQLException {
		if (connection == null) {
			connection = DriverManager.getConnection(url);
			connection.setAutoCommit(false);
		}
		return connection;
	}

	@Override
	public void close() {
		try {
			if (connection != null)
				connection.close(); // rolls back what may be open
		} catch (SQLException e) {
			// it is gone, one way or the other
		}
		connection = null;
	}

	/** A new incarnation: whatever its predecessor had open can't commit any more. */
	void open() throws SQLException {
		connected().setAutoCommit(true); // the CALL must stand alone
		try (PreparedStatement call = connection.prepareStatement("CALL revenue_sink.open_writer(?, ?, ?)")) {
			call.setString(1, SINK);
			call.setString(2, JOB);
			call.setString(3, WRITER);
			try (ResultSet row = call.executeQuery()) {
				row.next();
				epoch = row.getLong(1);
			}
		}
		connection.setAutoCommit(false);
	}

	int storedOffset() throws SQLException {
		try (PreparedStatement query = connected().prepareStatement(
				"SELECT next_offset FROM revenue_sink.offsets(?, ?) WHERE partition = ?")) {
			query.setString(1, SINK);
			query.setString(2, SOURCE);
			query.setInt(3, PARTITION);
			try (ResultSet row = query.executeQuery()) {
				return row.next() ? (int) row.getLong(1) : 0;
			}
		} finally {
			connection.commit();
		}
	}

	/** One batch in one transaction; the six counts, or null: it was there. */
	long[] send(long number, List<String[]> events, long nextOffset) throws SQLException {
		long[] counts = null;
		Connection c = connected();

		if (begin(c, number)) {
			counts = new long[6];
			try (PreparedStatement apply = c.prepareStatement(
					"SELECT * FROM revenue_sink.apply(?, ?, ?, ?, ?, ?)")) {
				String[] types = {"text", "text", "timestamptz", "numeric", "text"};

				apply.setString(1, SINK);
				for (int i = 0; i < types.length; i++) {
					final int column = i;
					Object[] values = events.stream().map(event -> event[column]).toArray();
					apply.setArray(i + 2, c.createArrayOf(types[i], values));
				}
				try (ResultSet row = apply.executeQuery()) {
					row.next();
					for (int i = 0; i < counts.length; i++)
						counts[i] = row.getLong(i + 1);
				}
			}
			try (PreparedStatement store = c.prepareStatement("SELECT revenue_sink.store_offsets(?, ?, ?, ?)")) {
				store.setString(1, SINK);
				store.setString(2, SOURCE);
				store.setArray(3, c.createArrayOf("int4", new Object[] {PARTITION}));
				store.setArray(4, c.createArrayOf("int8", new Object[] {nextOffset}));
				store.execute();
			}
		}
		c.commit();
		return counts;
	}

	boolean begin(Connection c, long number) throws SQLException {
		try (PreparedStatement begin = c.prepareStatement("SELECT revenue_sink.begin_batch(?, ?, ?, ?, ?)")) {
			begin.setString(1, SINK);
			begin.setString(2, JOB);
			begin.setString(3, WRITER);
			begin.setLong(4, epoch);
			begin.setLong(5, number);
			try (ResultSet row = begin.executeQuery()) {
				row.next();
				return row.getBoolean(1);
			}
		}
	}

	/** Is it unknown, or too early, rather than wrong? */
	static boolean mayRepeat(SQLException e) {
		String state = e.getSQLState();

		return state != null && (state.equals("40001") || state.startsWith("08") || state.startsWith("57P"));
	}

	/**
	 * send() until there is an answer. Anything that isn't worth repeating is
	 * thrown, the fencing error RS001 above all: a zombie must stop.
	 */
	long[] deliver(long number, List<String[]> events, long nextOffset) throws SQLException, InterruptedException {
		long deadline = System.currentTimeMillis() + GIVE_UP;

		for (;;) {
			try {
				long[] counts = send(number, events, nextOffset);

				if (number != loseAnswer)
					return counts;
				loseAnswer = 0;
				close();
			} catch (SQLException e) {
				if (!mayRepeat(e) || System.currentTimeMillis() > deadline)
					throw e;
				close();
				Thread.sleep(100); // a server that starts is asked again, gently
			}
		}
	}

	public static void main(String[] args) throws Exception {
		boolean replay = args.length > 2 && args[2].equals("--replay");
		List<String[]> topic = Files.readAllLines(Path.of(args[1])).stream()
				.map(line -> line.split(",", -1)).toList();
		long[] total = new long[6];
		int number = 0;
		int skipped = 0;

		try (OnePhase writer = new OnePhase(args[0])) {
			writer.open();
			int offset = replay ? 0 : writer.storedOffset();
			System.out.printf("epoch %d, from offset %d%n", writer.epoch, offset);
			while (offset < topic.size()) {
				int after = Math.min(offset + BATCH, topic.size());
				long[] counts = writer.deliver(++number, topic.subList(offset, after), after);

				for (int i = 0; counts != null && i < total.length; i++)
					total[i] += counts[i];
				if (counts == null)
					skipped++;
				offset = after;
			}
		}
		System.out.printf("%d batches, %d skipped; applied %d, duplicate %d, deferred %d, conflict %d,"
				+ " late %d, rejected %d%n", number, skipped, total[0], total[1], total[2], total[3],
				total[4], total[5]);
	}
}
