package org.revenuesink.flink;

import java.io.IOException;
import java.util.Collection;
import java.util.Optional;
import org.apache.flink.api.connector.sink2.WriterInitContext;
import org.revenuesink.Answers;
import org.revenuesink.BatchWriter;
import org.revenuesink.EventBatch;
import org.revenuesink.RevenueSinkException;
import org.revenuesink.SinkConnection;

/**
 * Each call of events is a batch that commits by itself. A batch whose answer was lost is sent
 * again under its number; what a restored job sends again are duplicates.
 */
final class OnePhaseWriter<T> extends BufferedWriter<T> {
  private final BatchWriter batches;
  private final Incarnation incarnation;

  OnePhaseWriter(
      SinkOptions options,
      EventEncoder<? super T> encoder,
      WriterInitContext context,
      Collection<Incarnation> states)
      throws IOException {
    super(options, encoder, context);
    BatchWriter.Builder builder =
        BatchWriter.builder(options.url, options.sink)
            .job(options.job)
            .writer(name)
            .giveUpAfter(options.giveUp)
            .property("ApplicationName", "writer " + name + " of " + options.job)
            .property("tcpKeepAlive", "true");
    for (String property : options.properties.stringPropertyNames()) {
      builder.property(property, options.properties.getProperty(property));
    }
    this.batches = builder.build();
    Incarnation mine = Incarnation.of(options.submitted, context, states);
    try (SinkConnection connection = options.connect(context.getTaskInfo(), "writer")) {
      this.incarnation = mine.claim(connection, options, name);
      batches.open(incarnation.epoch());
    } catch (RevenueSinkException | InterruptedException | RuntimeException e) {
      super.close();
      if (e instanceof InterruptedException) {
        Thread.currentThread().interrupt();
      }
      throw new IOException("starting " + options.describe(name), e);
    }
  }

  @Override
  void send(EventBatch events) throws RevenueSinkException, InterruptedException {
    long started = System.nanoTime();
    Optional<Answers> answers = batches.write(events);
    if (answers.isPresent()) {
      metrics.applied(answers.get(), started);
    } else {
      metrics.answerLost();
    }
  }

  @Override
  Incarnation snapshot(long checkpoint) {
    return incarnation;
  }

  @Override
  void disconnect(boolean amidCall) {
    if (batches != null && amidCall) {
      batches.abort();
    } else if (batches != null) {
      batches.close();
    }
  }
}
