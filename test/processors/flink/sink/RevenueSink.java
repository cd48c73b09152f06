package revenuesink;

import java.io.IOException;
import java.io.Serializable;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;
import java.util.Collection;
import java.util.Properties;
import org.apache.flink.api.common.TaskInfo;
import org.apache.flink.api.connector.sink2.Committer;
import org.apache.flink.api.connector.sink2.CommitterInitContext;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.api.connector.sink2.StatefulSinkWriter;
import org.apache.flink.api.connector.sink2.SupportsCommitter;
import org.apache.flink.api.connector.sink2.SupportsWriterState;
import org.apache.flink.api.connector.sink2.WriterInitContext;
import org.apache.flink.core.io.SimpleVersionedSerializer;

/**
 * A Flink sink over revenue_sink, in two phases: each subtask applies its events
 * in a transaction that it prepares at the barrier and that is committed once the
 * checkpoint is complete. The committable is the transaction's gid.
 *
 * A writer is named by the index of its subtask. Nothing else is kept in state;
 * that there is a state at all is for the checkpoint's number, which Flink tells
 * to writers with a state only.
 */
public final class RevenueSink implements Sink<OrderEvent>, SupportsCommitter<String>,
		SupportsWriterState<OrderEvent, String> {
	private static final long serialVersionUID = 1;

	/** Where to write, and as who. A job keeps its name over restarts. */
	public record Options(String url, String sink, String job, int batchSize) implements Serializable {
		/** @param role what the connection is for; shown in pg_stat_activity */
		Connection connect(TaskInfo task, String role) throws SQLException {
			Properties properties = new Properties();

			properties.setProperty("ApplicationName",
					role + " " + task.getIndexOfThisSubtask() + " of " + job);
			properties.setProperty("binaryTransferEnable", EventBuffer.BINARY);
			return DriverManager.getConnection(url, properties);
		}
	}

	private final Options options;

	public RevenueSink(Options options) {
		this.options = options;
	}

	@Override
	public RevenueWriter createWriter(WriterInitContext context) throws IOException {
		return new RevenueWriter(options, context);
	}

	@Override
	public StatefulSinkWriter<OrderEvent, String> restoreWriter(WriterInitContext context, Collection<String> states)
			throws IOException {
		return createWriter(context);
	}

	@Override
	public Committer<String> createCommitter(CommitterInitContext context) {
		return new RevenueCommitter(options, context);
	}

	@Override
	public SimpleVersionedSerializer<String> getCommittableSerializer() {
		return new Text();
	}

	@Override
	public SimpleVersionedSerializer<String> getWriterStateSerializer() {
		return new Text();
	}

	private static final class Text implements SimpleVersionedSerializer<String> {
		@Override
		public int getVersion() {
			return 1;
		}

		@Override
		public byte[] serialize(String text) {
			return text.getBytes(StandardCharsets.UTF_8);
		}

		@Override
		public String deserialize(int version, byte[] bytes) {
			return new String(bytes, StandardCharsets.UTF_8);
		}
	}
}
