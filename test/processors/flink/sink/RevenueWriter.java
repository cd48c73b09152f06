package revenuesink;

import java.io.IOException;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.IntStream;
import org.apache.flink.api.common.TaskInfo;
import org.apache.flink.api.connector.sink2.CommittingSinkWriter;
import org.apache.flink.api.connector.sink2.StatefulSinkWriter;
import org.apache.flink.api.connector.sink2.WriterInitContext;
import org.apache.flink.metrics.Counter;

/**
 * Phase one. Events go into one transaction until the barrier prepares it; the
 * next one is begun by the next event, as checkpoint + 1.
 *
 * While a full buffer is on its way to the server, in a thread of its own, the
 * next one fills. A lost connection ends the attempt: Flink restores the last
 * checkpoint, and what was under way is rolled back by open().
 */
final class RevenueWriter implements CommittingSinkWriter<OrderEvent, String>, StatefulSinkWriter<OrderEvent, String> {
	private static final String[] COUNTS = {"applied", "duplicate", "deferred", "conflict", "late", "rejected"};

	private final RevenueSink.Options options;
	private final String name;
	private final Connection connection;
	private final ExecutorService sender = Executors.newSingleThreadExecutor(work -> new Thread(work, "revenue_sink"));
	private final Counter[] counts = new Counter[COUNTS.length];
	private final Counter sent;
	private final long epoch;
	private PreparedStatement apply;
	private EventBuffer filling = new EventBuffer();
	private EventBuffer sending = new EventBuffer();
	private Future<?> underWay;
	private long lastCheckpoint;
	private boolean isBegun;

	RevenueWriter(RevenueSink.Options options, WriterInitContext context) throws IOException {
		TaskInfo task = context.getTaskInfo();

		this.epoch = System.currentTimeMillis(); // before anything that may take long: see open()
		this.options = options;
		this.name = Integer.toString(task.getIndexOfThisSubtask());
		this.lastCheckpoint = context.getRestoredCheckpointId().orElse(0);
		this.sent = context.metricGroup().getNumRecordsSendCounter();
		for (int i = 0; i < COUNTS.length; i++)
			counts[i] = context.metricGroup().counter(COUNTS[i]);
		try {
			this.connection = options.connect(task, "writer");
			open(task);
		} catch (SQLException e) {
			sender.shutdown();
			throw new IOException("starting writer " + name, e);
		}
	}

	/**
	 * A new epoch of this writer: what its predecessor has prepared is committed up to
	 * the restored checkpoint and rolled back after it.
	 *
	 * The epoch is the time at which this attempt began, so that one that is stuck since
	 * before its successor can't fence it. Attempt numbers don't do, since they start
	 * again with the JobManager. It is the writer's and not the job's, since Flink may
	 * restart a part of the subtasks only. The first subtask does the same for those that
	 * there were with a higher parallelism.
	 */
	private void open(TaskInfo task) throws SQLException {
		List<String> writers = new ArrayList<>(List.of(name));

		if (task.getIndexOfThisSubtask() == 0)
			try (PreparedStatement query = connection.prepareStatement(
					"SELECT writer FROM revenue_sink.writer WHERE sink = ? AND job = ? AND writer <> ALL (?)")) {
				query.setString(1, options.sink());
				query.setString(2, options.job());
				query.setArray(3, connection.createArrayOf("text",
						IntStream.range(0, task.getNumberOfParallelSubtasks()).mapToObj(Integer::toString).toArray()));
				try (ResultSet row = query.executeQuery()) {
					while (row.next())
						writers.add(row.getString(1));
				}
			}
		try (PreparedStatement call = connection.prepareStatement("CALL revenue_sink.open_writer(?, ?, ?, ?, ?)")) {
			call.setString(1, options.sink());
			call.setString(2, options.job());
			call.setLong(4, lastCheckpoint);
			call.setLong(5, epoch);
			for (String writer : writers) {
				call.setString(3, writer);
				call.execute();
			}
		}
		connection.setAutoCommit(false);
		apply = connection.prepareStatement("SELECT * FROM revenue_sink.apply(?, ?, ?, ?, ?, ?)");
		apply.setString(1, options.sink());
	}

	@Override
	public void write(OrderEvent event, Context context) throws IOException, InterruptedException {
		filling.add(event);
		if (filling.rows() >= options.batchSize())
			send();
	}

	/** Hand the buffer over, once the one before it has arrived. */
	private void send() throws IOException, InterruptedException {
		await();
		EventBuffer full = filling;

		filling = sending;
		sending = full;
		underWay = sender.submit(() -> {
			arrive(full);
			return null;
		});
	}

	private void await() throws IOException, InterruptedException {
		try {
			if (underWay != null)
				underWay.get();
			underWay = null;
		} catch (ExecutionException e) {
			throw new IOException("writer " + name + " of job " + options.job(), e.getCause());
		}
	}

	private void arrive(EventBuffer events) throws SQLException {
		if (!isBegun) {
			begin();
			isBegun = true;
		}
		events.bind(apply, 2);
		try (ResultSet row = apply.executeQuery()) {
			row.next();
			for (int i = 0; i < COUNTS.length; i++)
				counts[i].inc(row.getLong(i + 1));
		}
		sent.inc(events.rows());
		events.clear();
	}

	private void begin() throws SQLException {
		try (PreparedStatement begin = connection.prepareStatement("SELECT revenue_sink.begin_batch(?, ?, ?, ?, ?)")) {
			begin.setString(1, options.sink());
			begin.setString(2, options.job());
			begin.setString(3, name);
			begin.setLong(4, epoch);
			begin.setLong(5, lastCheckpoint + 1);
			try (ResultSet row = begin.executeQuery()) {
				if (!row.next() || !row.getBoolean(1))
					throw new SQLException("batch " + (lastCheckpoint + 1) + " of a new epoch is there already");
			}
		}
	}

	@Override
	public void flush(boolean endOfInput) throws IOException, InterruptedException {
		if (filling.rows() > 0)
			send();
		await();
	}

	/** Called after flush(), so the sender is idle. */
	@Override
	public Collection<String> prepareCommit() throws IOException {
		if (!isBegun)
			return List.of();
		try (Statement statement = connection.createStatement();
				PreparedStatement preCommit = connection.prepareStatement("SELECT revenue_sink.pre_commit(?)")) {
			String gid;

			preCommit.setString(1, options.sink());
			try (ResultSet row = preCommit.executeQuery()) {
				row.next();
				gid = row.getString(1);
			}
			statement.execute("PREPARE TRANSACTION '" + gid + "'");
			isBegun = false;
			return List.of(gid);
		} catch (SQLException e) {
			throw new IOException("phase one of writer " + name + " of job " + options.job(), e);
		}
	}

	@Override
	public List<String> snapshotState(long checkpoint) {
		lastCheckpoint = checkpoint;
		return List.of();
	}

	/** An open transaction ends with its connection, also amid a call. */
	@Override
	public void close() throws SQLException {
		sender.shutdownNow();
		if (underWay == null)
			connection.close();
		else
			connection.abort(Runnable::run);
	}
}
