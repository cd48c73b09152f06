package org.revenuesink.flink;

import java.io.IOException;
import java.util.Collection;
import org.apache.flink.api.common.TaskInfo;
import org.apache.flink.api.connector.sink2.Committer;
import org.apache.flink.api.connector.sink2.CommitterInitContext;
import org.apache.flink.metrics.Counter;
import org.revenuesink.RetryableException;
import org.revenuesink.RevenueSinkException;
import org.revenuesink.SinkConnection;

/**
 * Phase two. commit_prepared answers "committed" however often it is called, so a call whose answer
 * was lost is made again, and so are those of a checkpoint that a restarted job has restored. Where
 * the truth is another one it raises, and so does this: the job must not go on as if nothing were
 * missing.
 */
final class TwoPhaseCommitter implements Committer<String> {
  private static final long PAUSE = 50; // ms; a server that starts is asked gently

  private final SinkOptions options;
  private final TaskInfo task;
  private final Durations commit;
  private final Counter repeated;
  private SinkConnection connection;

  TwoPhaseCommitter(SinkOptions options, CommitterInitContext context) {
    this.options = options;
    this.task = context.getTaskInfo();
    this.commit = context.metricGroup().histogram("commitMillis", new Durations());
    this.repeated = context.metricGroup().counter("commitsRepeated");
  }

  @Override
  public void commit(Collection<CommitRequest<String>> requests)
      throws IOException, InterruptedException {
    for (CommitRequest<String> request : requests) {
      long started = System.nanoTime();
      commit(request.getCommittable());
      commit.since(started);
    }
  }

  private void commit(String gid) throws IOException, InterruptedException {
    long deadline = System.nanoTime() + options.giveUp.toNanos();
    for (; ; Thread.sleep(PAUSE)) {
      try {
        if (connection == null) {
          connection = options.connect(task, "committer");
        }
        connection.commitPrepared(gid);
        return;
      } catch (RetryableException e) {
        close();
        repeated.inc();
        if (System.nanoTime() - deadline > 0) {
          throw new IOException("phase two of " + gid, e);
        }
      } catch (RevenueSinkException e) {
        close();
        throw new IOException("phase two of " + gid, e);
      }
    }
  }

  @Override
  public void close() {
    if (connection != null) {
      connection.close();
    }
    connection = null;
  }
}
