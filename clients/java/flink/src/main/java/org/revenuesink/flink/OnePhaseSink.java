package org.revenuesink.flink;

import java.io.IOException;
import java.util.Collection;
import org.apache.flink.api.connector.sink2.StatefulSinkWriter;
import org.apache.flink.api.connector.sink2.WriterInitContext;

/** In one phase: each call of events is a transaction of its own. */
final class OnePhaseSink<T> extends RevenueSink<T> {
  private static final long serialVersionUID = 1;

  OnePhaseSink(SinkOptions options, EventEncoder<? super T> encoder) {
    super(options, encoder);
  }

  @Override
  public StatefulSinkWriter<T, Incarnation> restoreWriter(
      WriterInitContext context, Collection<Incarnation> states) throws IOException {
    return new OnePhaseWriter<>(options, encoder, context, states);
  }
}
