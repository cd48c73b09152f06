package revenuesink;

import java.io.IOException;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.util.Collection;
import org.apache.flink.api.common.TaskInfo;
import org.apache.flink.api.connector.sink2.Committer;
import org.apache.flink.api.connector.sink2.CommitterInitContext;

/**
 * Phase two. commit_prepared answers "committed" however often it is called, so
 * a call whose answer was lost is made again, and so are those of a checkpoint
 * that a restarted job has restored. Where the truth is another one it raises, and
 * so does this: the job must not go on as if nothing were missing.
 */
final class RevenueCommitter implements Committer<String> {
	private static final long GIVE_UP = 30_000; // ms without an answer; the job restarts then
	private static final long PAUSE = 50; // ms; a server that starts is asked gently

	private final RevenueSink.Options options;
	private final TaskInfo task;
	private Connection connection;

	RevenueCommitter(RevenueSink.Options options, CommitterInitContext context) {
		this.options = options;
		this.task = context.getTaskInfo();
	}

	@Override
	public void commit(Collection<CommitRequest<String>> requests) throws IOException, InterruptedException {
		for (CommitRequest<String> request : requests)
			commit(request.getCommittable());
	}

	private void commit(String gid) throws IOException, InterruptedException {
		for (long deadline = System.currentTimeMillis() + GIVE_UP;;) {
			try {
				if (connection == null)
					connection = options.connect(task, "committer");
				try (PreparedStatement call = connection.prepareStatement("CALL revenue_sink.commit_prepared(?)")) {
					call.setString(1, gid);
					call.execute();
				}
				return;
			} catch (SQLException e) {
				close();
				if (!isWorthRepeating(e) || System.currentTimeMillis() > deadline)
					throw new IOException("phase two of " + gid, e);
				Thread.sleep(PAUSE);
			}
		}
	}

	private static boolean isWorthRepeating(SQLException e) {
		String state = e.getSQLState() == null ? "" : e.getSQLState();

		return state.startsWith("08") || state.startsWith("57P") || state.equals("40001") || state.equals("53300");
	}

	@Override
	public void close() {
		try {
			if (connection != null)
				connection.close();
		} catch (SQLException e) {
			// it is gone, one way or the other
		}
		connection = null;
	}
}
