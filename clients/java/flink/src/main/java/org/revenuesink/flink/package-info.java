/**
 * A sink for Flink over revenue_sink. DataStream programs begin with {@link
 * org.revenuesink.flink.RevenueSink#builder}; SQL has the connector {@code revenue-sink}.
 */
package org.revenuesink.flink;
