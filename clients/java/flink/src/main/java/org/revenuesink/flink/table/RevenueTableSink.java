package org.revenuesink.flink.table;

import org.apache.flink.table.connector.ChangelogMode;
import org.apache.flink.table.connector.sink.DynamicTableSink;
import org.apache.flink.table.connector.sink.SinkV2Provider;
import org.apache.flink.table.data.RowData;
import org.revenuesink.flink.RevenueSinkBuilder;

/** A table of order events. It takes inserts only: the planner refuses a query with updates. */
final class RevenueTableSink implements DynamicTableSink {
  private final RevenueSinkBuilder<RowData> builder;
  private final RowEncoder encoder;
  private final Integer parallelism;

  RevenueTableSink(RevenueSinkBuilder<RowData> builder, RowEncoder encoder, Integer parallelism) {
    this.builder = builder;
    this.encoder = encoder;
    this.parallelism = parallelism;
  }

  @Override
  public ChangelogMode getChangelogMode(ChangelogMode requested) {
    return ChangelogMode.insertOnly();
  }

  @Override
  public SinkRuntimeProvider getSinkRuntimeProvider(Context context) {
    return SinkV2Provider.of(builder.setEncoder(encoder).build(), parallelism);
  }

  @Override
  public DynamicTableSink copy() {
    return new RevenueTableSink(builder, encoder, parallelism);
  }

  @Override
  public String asSummaryString() {
    return "revenue_sink";
  }
}
