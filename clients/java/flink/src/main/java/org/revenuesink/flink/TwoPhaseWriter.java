package org.revenuesink.flink;

import java.io.IOException;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import org.apache.flink.api.connector.sink2.CommittingSinkWriter;
import org.apache.flink.api.connector.sink2.WriterInitContext;
import org.revenuesink.EventBatch;
import org.revenuesink.RevenueSinkException;
import org.revenuesink.SinkConnection;

/**
 * Phase one. Events go into one transaction until the barrier prepares it; the next one is begun by
 * the next event, as checkpoint + 1.
 *
 * <p>A lost connection ends the attempt: Flink restores the last checkpoint, and what was under way
 * is rolled back when the next attempt opens its epoch.
 */
final class TwoPhaseWriter<T> extends BufferedWriter<T> implements CommittingSinkWriter<T, String> {
  private final SinkConnection connection;
  private final Incarnation incarnation;
  private final Durations preCommit;
  private long lastCheckpoint;

  TwoPhaseWriter(
      SinkOptions options,
      EventEncoder<? super T> encoder,
      WriterInitContext context,
      Collection<Incarnation> states)
      throws IOException {
    super(options, encoder, context);
    this.preCommit = context.metricGroup().histogram("preCommitMillis", new Durations());
    this.lastCheckpoint = context.getRestoredCheckpointId().orElse(0);
    Incarnation mine = Incarnation.of(options.submitted, context, states);
    SinkConnection opened = null;
    try {
      opened = options.connect(context.getTaskInfo(), "writer");
      this.connection = opened;
      this.incarnation = mine.claim(opened, options, name);
      opened.openWriter(options.job, name, lastCheckpoint, incarnation.epoch());
      if (context.getTaskInfo().getIndexOfThisSubtask() == 0) {
        retire(context.getTaskInfo().getNumberOfParallelSubtasks());
      }
    } catch (IOException | RevenueSinkException | InterruptedException | RuntimeException e) {
      if (opened != null) {
        opened.close();
      }
      super.close();
      if (e instanceof InterruptedException) {
        Thread.currentThread().interrupt();
      }
      throw e instanceof IOException
          ? (IOException) e
          : new IOException("starting " + options.describe(name), e);
    }
  }

  /** Does for the subtasks that there were with a higher parallelism what each does for itself. */
  private void retire(int parallelism) throws IOException, RevenueSinkException {
    for (Map.Entry<String, Long> writer : connection.epochs(options.job).entrySet()) {
      String other = writer.getKey();
      if (other.matches("\\d{1,9}") && Integer.parseInt(other) >= parallelism) {
        connection.openWriter(
            options.job,
            other,
            lastCheckpoint,
            incarnation.epochAbove(writer.getValue(), options, other));
      }
    }
  }

  @Override
  void send(EventBatch events) throws RevenueSinkException {
    if (!connection.isBatchOpen()
        && !connection.beginBatch(options.job, name, incarnation.epoch(), lastCheckpoint + 1)) {
      throw new IllegalStateException(
          "batch " + (lastCheckpoint + 1) + " of a new epoch is there already");
    }
    long started = System.nanoTime();
    metrics.applied(connection.apply(events), started);
  }

  /** Called after flush(), so the sender is idle. */
  @Override
  public Collection<String> prepareCommit() throws IOException {
    if (!connection.isBatchOpen()) {
      return List.of();
    }
    try {
      long started = System.nanoTime();
      String gid = connection.prepare();
      preCommit.since(started);
      return List.of(gid);
    } catch (RevenueSinkException e) {
      throw new IOException("phase one of " + options.describe(name), e);
    }
  }

  @Override
  Incarnation snapshot(long checkpoint) {
    lastCheckpoint = checkpoint;
    return incarnation;
  }

  /** An open transaction ends with its connection. */
  @Override
  void disconnect(boolean amidCall) {
    if (connection != null && amidCall) {
      connection.abort();
    } else if (connection != null) {
      connection.close();
    }
  }
}
