package org.revenuesink.flink;

import java.util.Arrays;
import org.apache.flink.metrics.Histogram;
import org.apache.flink.metrics.HistogramStatistics;

/** The last 128 durations, in milliseconds. */
final class Durations implements Histogram {
  private final long[] last = new long[128];
  private long count;

  void since(long startedNanos) {
    update((System.nanoTime() - startedNanos) / 1_000_000);
  }

  @Override
  public synchronized void update(long millis) {
    last[(int) (count++ % last.length)] = millis;
  }

  @Override
  public synchronized long getCount() {
    return count;
  }

  @Override
  public synchronized HistogramStatistics getStatistics() {
    long[] sorted = Arrays.copyOf(last, (int) Math.min(count, last.length));
    Arrays.sort(sorted);
    return new Statistics(sorted);
  }

  private static final class Statistics extends HistogramStatistics {
    private final long[] sorted;

    Statistics(long[] sorted) {
      this.sorted = sorted;
    }

    @Override
    public double getQuantile(double quantile) {
      return sorted.length == 0
          ? 0
          : sorted[(int) Math.max(0, Math.ceil(quantile * sorted.length) - 1)];
    }

    @Override
    public long[] getValues() {
      return sorted.clone();
    }

    @Override
    public int size() {
      return sorted.length;
    }

    @Override
    public double getMean() {
      return Arrays.stream(sorted).average().orElse(0);
    }

    @Override
    public double getStdDev() {
      double mean = getMean();
      return Math.sqrt(
          Arrays.stream(sorted).mapToDouble(v -> (v - mean) * (v - mean)).average().orElse(0));
    }

    @Override
    public long getMax() {
      return sorted.length == 0 ? 0 : sorted[sorted.length - 1];
    }

    @Override
    public long getMin() {
      return sorted.length == 0 ? 0 : sorted[0];
    }
  }
}
