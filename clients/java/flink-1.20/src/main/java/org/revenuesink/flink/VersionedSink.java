package org.revenuesink.flink;

import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.api.connector.sink2.SinkWriter;

/**
 * What differs between the lines of Flink: 1.20 still has an abstract method that it never calls.
 */
interface VersionedSink<T> extends Sink<T> {
  @Deprecated
  @Override
  default SinkWriter<T> createWriter(Sink.InitContext context) {
    throw new UnsupportedOperationException("Flink 1.20 calls createWriter(WriterInitContext)");
  }
}
