package org.revenuesink.flink;

import java.io.IOException;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.apache.flink.api.connector.sink2.StatefulSinkWriter;
import org.apache.flink.api.connector.sink2.WriterInitContext;
import org.apache.flink.metrics.Counter;
import org.revenuesink.EventBatch;
import org.revenuesink.RevenueSinkException;

/**
 * Gathers events. While a full batch is on its way to the server, in a thread of its own, the next
 * one fills.
 */
abstract class BufferedWriter<T> implements StatefulSinkWriter<T, Incarnation> {
  final SinkOptions options;
  final String name;
  final SinkMetrics metrics;

  private final EventEncoder<? super T> encoder;
  private final Counter sent;
  private final ExecutorService sender =
      Executors.newSingleThreadExecutor(
          work -> {
            Thread thread = new Thread(work, "revenue_sink");
            thread.setDaemon(true);
            return thread;
          });
  private EventBatch filling = EventBatch.rows();
  private EventBatch sending = EventBatch.rows();
  private Future<?> underWay;

  BufferedWriter(SinkOptions options, EventEncoder<? super T> encoder, WriterInitContext context) {
    this.options = options;
    this.encoder = encoder;
    this.name = Integer.toString(context.getTaskInfo().getIndexOfThisSubtask());
    this.sent = context.metricGroup().getNumRecordsSendCounter();
    this.metrics = new SinkMetrics(context.metricGroup());
  }

  /** Sends a batch to the server; in the sender's thread. */
  abstract void send(EventBatch events) throws RevenueSinkException, InterruptedException;

  /** Ends the connection; amid a call, if there is one. */
  abstract void disconnect(boolean amidCall);

  /** What a checkpoint is told of this writer. */
  abstract Incarnation snapshot(long checkpoint);

  @Override
  public void write(T element, Context context) throws IOException, InterruptedException {
    encoder.encode(element, filling);
    if (filling.size() >= options.batchSize) {
      hand();
    }
  }

  /** Hands the batch over, once the one before it has arrived. */
  private void hand() throws IOException, InterruptedException {
    await();
    EventBatch full = filling;
    filling = sending;
    sending = full;
    underWay =
        sender.submit(
            () -> {
              send(full);
              sent.inc(full.size());
              full.clear();
              return null;
            });
  }

  private void await() throws IOException, InterruptedException {
    try {
      if (underWay != null) {
        underWay.get();
      }
      underWay = null;
    } catch (ExecutionException e) {
      throw new IOException(options.describe(name), e.getCause());
    }
  }

  /** Afterwards the sender is idle. */
  @Override
  public void flush(boolean endOfInput) throws IOException, InterruptedException {
    if (!filling.isEmpty()) {
      hand();
    }
    await();
  }

  @Override
  public final List<Incarnation> snapshotState(long checkpoint) {
    return List.of(snapshot(checkpoint));
  }

  @Override
  public void close() {
    sender.shutdownNow();
    disconnect(underWay != null);
  }
}
