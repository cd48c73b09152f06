package org.revenuesink.flink;

import java.time.Duration;
import java.util.Objects;
import java.util.Properties;

/**
 * Builds a {@link RevenueSink}. The JDBC address, the sink, the job and the encoder must be given.
 *
 * @param <T> the type of the stream's elements
 */
public final class RevenueSinkBuilder<T> {
  String url;
  final Properties properties = new Properties();
  String sink;
  String job;
  int batchSize = 10_000;
  Delivery delivery = Delivery.TWO_PHASE;
  Duration giveUp = Duration.ofSeconds(30);
  Duration takeoverDelay = Duration.ofSeconds(10);
  EventEncoder<? super T> encoder;

  RevenueSinkBuilder() {}

  /**
   * Where the server is.
   *
   * @param address {@code jdbc:postgresql://host/database}
   * @return this
   */
  public RevenueSinkBuilder<T> setUrl(String address) {
    this.url = Objects.requireNonNull(address, "url");
    return this;
  }

  /**
   * The role that writes.
   *
   * @param name in two phases, the sink's owner
   * @return this
   */
  public RevenueSinkBuilder<T> setUsername(String name) {
    return setProperty("user", name);
  }

  /**
   * The role's password.
   *
   * @param password as it is
   * @return this
   */
  public RevenueSinkBuilder<T> setPassword(String password) {
    return setProperty("password", password);
  }

  /**
   * A property of pgjdbc, such as {@code sslmode} or {@code socketTimeout}.
   *
   * @param name as pgjdbc spells it
   * @param value its value
   * @return this
   */
  public RevenueSinkBuilder<T> setProperty(String name, String value) {
    properties.setProperty(name, value);
    return this;
  }

  /**
   * The sink in the database, as {@code create_sink} has named it.
   *
   * @param name the sink's name
   * @return this
   */
  public RevenueSinkBuilder<T> setSinkName(String name) {
    this.sink = Objects.requireNonNull(name, "sink name");
    return this;
  }

  /**
   * The name under which the database knows this operator. It must be the same after a restart and
   * in a new submission, and another one for each operator that writes to the sink.
   *
   * @param name the job's name
   * @return this
   */
  public RevenueSinkBuilder<T> setJobName(String name) {
    this.job = Objects.requireNonNull(name, "job name");
    return this;
  }

  /**
   * How an element becomes an event.
   *
   * @param how the encoder
   * @return this
   */
  public RevenueSinkBuilder<T> setEncoder(EventEncoder<? super T> how) {
    this.encoder = Objects.requireNonNull(how, "encoder");
    return this;
  }

  /**
   * When readers see events; in two phases if this isn't called.
   *
   * @param when the delivery
   * @return this
   */
  public RevenueSinkBuilder<T> setDelivery(Delivery when) {
    this.delivery = Objects.requireNonNull(when, "delivery");
    return this;
  }

  /**
   * How many events go with one call; 10,000 if this isn't called.
   *
   * @param events at least 1
   * @return this
   */
  public RevenueSinkBuilder<T> setBatchSize(int events) {
    if (events < 1) {
      throw new IllegalArgumentException("the batch size must be at least 1, and is " + events);
    }
    this.batchSize = events;
    return this;
  }

  /**
   * For how long a commit whose answer is lost is repeated before the job restarts; 30 seconds if
   * this isn't called.
   *
   * @param duration zero: one try
   * @return this
   */
  public RevenueSinkBuilder<T> setGiveUpAfter(Duration duration) {
    this.giveUp = notNegative(duration, "give-up time");
    return this;
  }

  /**
   * For how long a subtask waits that can't tell whether it or the one that has the writer is the
   * later one, which happens after a JobManager was replaced only. The wait must be longer than
   * what a TaskManager that was halted takes to notice that it has lost its JobManager; 10 seconds
   * if this isn't called.
   *
   * @param duration the wait
   * @return this
   */
  public RevenueSinkBuilder<T> setTakeoverDelay(Duration duration) {
    this.takeoverDelay = notNegative(duration, "takeover delay");
    return this;
  }

  /**
   * Makes the sink.
   *
   * @return a sink for {@code sinkTo}
   * @throws IllegalStateException if something is missing
   */
  public RevenueSink<T> build() {
    require(url, "the JDBC address (setUrl)");
    require(sink, "the sink's name (setSinkName)");
    require(job, "the job's name (setJobName)");
    require(encoder, "the encoder (setEncoder)");
    if (!url.startsWith("jdbc:postgresql:")) {
      throw new IllegalStateException(
          "the JDBC address must begin with jdbc:postgresql:, and is " + url);
    }
    SinkOptions options = new SinkOptions(this);
    return delivery == Delivery.TWO_PHASE
        ? new TwoPhaseSink<>(options, encoder)
        : new OnePhaseSink<>(options, encoder);
  }

  private static Duration notNegative(Duration duration, String what) {
    if (duration.isNegative()) {
      throw new IllegalArgumentException(
          "the " + what + " must not be negative, and is " + duration);
    }
    return duration;
  }

  private static void require(Object value, String what) {
    if (value == null || "".equals(value)) {
      throw new IllegalStateException(what + " is missing");
    }
  }
}
