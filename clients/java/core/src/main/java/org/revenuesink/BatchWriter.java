package org.revenuesink;

import java.time.Duration;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Properties;

/**
 * Writes batches, each in one transaction together with the offsets of its source, and each once: a
 * batch whose answer was lost is sent again under its number, over a new connection.
 *
 * <pre>{@code
 * try (BatchWriter writer = BatchWriter.builder("jdbc:postgresql://host/db", "orders")
 *     .job("billing").writer("consumer-1").build()) {
 *   writer.open();
 *   Map<Integer, Long> next = writer.offsets("payments");   // seek there
 *   EventBatch events = EventBatch.rows();
 *   // ... events.add(orderId, eventId, time, amount, null), then:
 *   writer.write(events, "payments", Map.of(0, 4711L));
 *   events.clear();
 * }
 * }</pre>
 *
 * <p>A BatchWriter is for one thread.
 */
public final class BatchWriter implements AutoCloseable {
  private static final long PAUSE = 100; // ms; a server that starts is asked again, gently

  private final Builder settings;
  private volatile SinkConnection connection;
  private long epoch = -1;
  private long number = 1;

  private BatchWriter(Builder settings) {
    this.settings = settings;
  }

  /**
   * Begins with what every writer needs.
   *
   * @param url {@code jdbc:postgresql://host/database}
   * @param sink the sink's name
   * @return a builder; {@link Builder#job} must be called
   */
  public static Builder builder(String url, String sink) {
    return new Builder(url, sink);
  }

  /**
   * Opens an epoch that the server chooses. The writer's former incarnation is fenced off: only
   * then do {@link #offsets} stay what they are.
   *
   * @return the epoch
   * @throws RevenueSinkException if that can't be done
   * @throws InterruptedException if the thread is interrupted between two tries
   */
  public long open() throws RevenueSinkException, InterruptedException {
    return opened(repeat(c -> c.openWriter(settings.job, settings.writer)));
  }

  /**
   * Opens an epoch of the caller's own, which grows with each incarnation.
   *
   * @param own the epoch
   * @return the epoch
   * @throws FencedException if a higher epoch is open
   * @throws RevenueSinkException if that can't be done
   * @throws InterruptedException if the thread is interrupted between two tries
   */
  public long open(long own) throws RevenueSinkException, InterruptedException {
    return opened(repeat(c -> c.openWriter(settings.job, settings.writer, null, own)));
  }

  private long opened(long opened) {
    epoch = opened;
    number = 1;
    return epoch;
  }

  /**
   * Reads where to go on reading.
   *
   * @param source a topic, for one
   * @return the next offset of each partition; one that isn't there starts from its beginning
   * @throws RevenueSinkException if that can't be read
   * @throws InterruptedException if the thread is interrupted between two tries
   */
  public Map<Integer, Long> offsets(String source)
      throws RevenueSinkException, InterruptedException {
    return repeat(c -> c.offsets(source));
  }

  /**
   * Writes events in a transaction.
   *
   * @param events is not changed
   * @return the six counts; empty if the batch had been committed by a try whose answer was lost
   * @throws FencedException if another incarnation of the writer has taken over: stop
   * @throws RevenueSinkException if the batch can't be written; it isn't, and may be written again
   * @throws InterruptedException if the thread is interrupted between two tries
   */
  public Optional<Answers> write(EventBatch events)
      throws RevenueSinkException, InterruptedException {
    return write(events, null, Map.of());
  }

  /**
   * Writes events, and where to go on reading, in one transaction.
   *
   * @param events is not changed
   * @param source a topic, for one
   * @param next the next offset of each partition that the events are from
   * @return the six counts; empty if the batch had been committed by a try whose answer was lost
   * @throws FencedException if another incarnation of the writer has taken over: stop
   * @throws RevenueSinkException if the batch can't be written; it isn't, and may be written again
   * @throws InterruptedException if the thread is interrupted between two tries
   */
  public Optional<Answers> write(EventBatch events, String source, Map<Integer, Long> next)
      throws RevenueSinkException, InterruptedException {
    if (epoch < 0) {
      throw new IllegalStateException("no epoch is open: call open first");
    }
    Optional<Answers> answers =
        repeat(
            c -> {
              Optional<Answers> counts = Optional.empty();
              if (c.beginBatch(settings.job, settings.writer, epoch, number)) {
                counts = Optional.of(c.apply(events));
                if (!next.isEmpty()) {
                  c.storeOffsets(source, next);
                }
              }
              c.commit();
              return counts;
            });
    number++;
    return answers;
  }

  private interface Work<T> {
    T run(SinkConnection c) throws RevenueSinkException;
  }

  /** Works until there is an answer, which is safe whatever became of the last one. */
  private <T> T repeat(Work<T> work) throws RevenueSinkException, InterruptedException {
    long deadline = System.nanoTime() + settings.giveUp.toNanos();
    for (; ; Thread.sleep(PAUSE)) {
      try {
        if (connection == null) {
          connection = SinkConnection.open(settings.url, settings.properties, settings.sink);
        }
        return work.run(connection);
      } catch (RetryableException e) {
        close();
        if (System.nanoTime() - deadline > 0) {
          throw e;
        }
      } catch (RevenueSinkException e) {
        close();
        throw e;
      }
    }
  }

  /** Cuts the connection off, amid a call, too: for another thread than the writer's. */
  public void abort() {
    SinkConnection current = connection;
    if (current != null) {
      current.abort();
    }
  }

  /** Closes the connection. An open transaction is rolled back. */
  @Override
  public void close() {
    if (connection != null) {
      connection.close();
    }
    connection = null;
  }

  /** Settings of a {@link BatchWriter}. */
  public static final class Builder {
    private final String url;
    private final String sink;
    private final Properties properties = new Properties();
    private String job;
    private String writer = "0";
    private Duration giveUp = Duration.ofMinutes(1);

    private Builder(String url, String sink) {
      this.url = Objects.requireNonNull(url, "url");
      this.sink = Objects.requireNonNull(sink, "sink");
    }

    /**
     * The application. It must be the same after a restart.
     *
     * @param name up to 1,024 bytes
     * @return this
     */
    public Builder job(String name) {
      this.job = Objects.requireNonNull(name, "job");
      return this;
    }

    /**
     * The part of the job that writes by itself; "0" if this isn't called.
     *
     * @param name up to 1,024 bytes
     * @return this
     */
    public Builder writer(String name) {
      this.writer = Objects.requireNonNull(name, "writer");
      return this;
    }

    /**
     * A property of pgjdbc, such as user, password or ApplicationName.
     *
     * @param name as pgjdbc spells it
     * @param value its value
     * @return this
     */
    public Builder property(String name, String value) {
      properties.setProperty(name, value);
      return this;
    }

    /**
     * For how long a call is repeated without an answer; a minute if this isn't called.
     *
     * @param duration zero: one try
     * @return this
     */
    public Builder giveUpAfter(Duration duration) {
      this.giveUp = Objects.requireNonNull(duration, "duration");
      return this;
    }

    /**
     * Makes the writer, which connects with its first call.
     *
     * @return a writer without an epoch
     */
    public BatchWriter build() {
      if (job == null) {
        throw new IllegalStateException("job is missing");
      }
      return new BatchWriter(this);
    }
  }
}
