package org.revenuesink.flink;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Collection;
import org.apache.flink.api.connector.sink2.Committer;
import org.apache.flink.api.connector.sink2.CommitterInitContext;
import org.apache.flink.api.connector.sink2.StatefulSinkWriter;
import org.apache.flink.api.connector.sink2.SupportsCommitter;
import org.apache.flink.api.connector.sink2.WriterInitContext;
import org.apache.flink.core.io.SimpleVersionedSerializer;

/**
 * In two phases: each subtask applies its events in a transaction that is prepared at the barrier,
 * and committed once the checkpoint is complete. The committable is the transaction's gid.
 */
final class TwoPhaseSink<T> extends RevenueSink<T> implements SupportsCommitter<String> {
  private static final long serialVersionUID = 1;

  TwoPhaseSink(SinkOptions options, EventEncoder<? super T> encoder) {
    super(options, encoder);
  }

  @Override
  public StatefulSinkWriter<T, Incarnation> restoreWriter(
      WriterInitContext context, Collection<Incarnation> states) throws IOException {
    return new TwoPhaseWriter<>(options, encoder, context, states);
  }

  @Override
  public Committer<String> createCommitter(CommitterInitContext context) {
    return new TwoPhaseCommitter(options, context);
  }

  @Override
  public SimpleVersionedSerializer<String> getCommittableSerializer() {
    return new Gid();
  }

  private static final class Gid implements SimpleVersionedSerializer<String> {
    @Override
    public int getVersion() {
      return 1;
    }

    @Override
    public byte[] serialize(String gid) {
      return gid.getBytes(StandardCharsets.UTF_8);
    }

    @Override
    public String deserialize(int version, byte[] bytes) {
      return new String(bytes, StandardCharsets.UTF_8);
    }
  }
}
