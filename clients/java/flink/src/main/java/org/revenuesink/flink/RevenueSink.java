package org.revenuesink.flink;

import java.io.IOException;
import java.util.Collection;
import java.util.List;
import org.apache.flink.api.connector.sink2.StatefulSinkWriter;
import org.apache.flink.api.connector.sink2.SupportsWriterState;
import org.apache.flink.api.connector.sink2.WriterInitContext;
import org.apache.flink.core.io.SimpleVersionedSerializer;

/**
 * Writes order events exactly once into PostgreSQL with revenue_sink.
 *
 * <pre>{@code
 * events.sinkTo(RevenueSink.<Payment>builder()
 *     .setUrl("jdbc:postgresql://host/database")
 *     .setUsername("sink_owner")
 *     .setSinkName("orders")
 *     .setJobName("billing")
 *     .setEncoder((p, batch) -> batch.add(p.order, p.event, p.time, p.amount, null))
 *     .build());
 * }</pre>
 *
 * @param <T> the type of the stream's elements
 */
public abstract class RevenueSink<T>
    implements VersionedSink<T>, SupportsWriterState<T, Incarnation> {
  private static final long serialVersionUID = 1;

  /** What the builder has gathered. */
  final SinkOptions options;

  /** How an element becomes an event. */
  final EventEncoder<? super T> encoder;

  RevenueSink(SinkOptions options, EventEncoder<? super T> encoder) {
    this.options = options;
    this.encoder = encoder;
  }

  /**
   * Begins to build a sink.
   *
   * @param <T> the type of the stream's elements
   * @return a builder
   */
  public static <T> RevenueSinkBuilder<T> builder() {
    return new RevenueSinkBuilder<>();
  }

  @Override
  public StatefulSinkWriter<T, Incarnation> createWriter(WriterInitContext context)
      throws IOException {
    return restoreWriter(context, List.of());
  }

  @Override
  public abstract StatefulSinkWriter<T, Incarnation> restoreWriter(
      WriterInitContext context, Collection<Incarnation> states) throws IOException;

  @Override
  public SimpleVersionedSerializer<Incarnation> getWriterStateSerializer() {
    return new Incarnation.Serializer();
  }
}
