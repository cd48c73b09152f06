package org.revenuesink.flink;

import org.apache.flink.api.connector.sink2.Sink;

/** What differs between the lines of Flink: nothing, in Flink 2. */
interface VersionedSink<T> extends Sink<T> {}
