package org.revenuesink;

import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.time.Instant;

/**
 * Events in the form in which one call takes them. An event is encoded when it is added, so no
 * object of the caller is kept; {@link #clear} makes the batch ready for the next events without
 * giving its memory back.
 *
 * <p>A batch may be used by several threads in turn, not at a time.
 */
public abstract class EventBatch {
  /** As an event's time: no time at all, which the sink takes for a bad event. */
  public static final long NO_TIME = Long.MIN_VALUE;

  EventBatch() {}

  /**
   * An empty batch that is sent as one value, rows in the format of COPY BINARY: the fastest way.
   * {@link SinkConnection#applyEach} doesn't take such a batch.
   *
   * @return a new batch
   */
  public static EventBatch rows() {
    return new RowBatch();
  }

  /**
   * An empty batch that is sent as PostgreSQL's binary arrays, one for each column.
   *
   * @return a new batch
   */
  public static EventBatch arrays() {
    return new ArrayBatch();
  }

  /**
   * Adds an event.
   *
   * @param orderId the order; null is sent as NULL, which the sink takes for a bad event
   * @param eventId the event within the order; null likewise
   * @param eventTimeMicros microseconds since 1970-01-01 UTC, or {@link #NO_TIME}
   * @param amount the revenue; negative for a refund; null likewise
   * @param groupKey may be null
   */
  public void add(
      String orderId, String eventId, long eventTimeMicros, BigDecimal amount, String groupKey) {
    addUtf8(utf8(orderId), utf8(eventId), eventTimeMicros, amount, utf8(groupKey));
  }

  /**
   * Adds an event. The time is cut to microseconds.
   *
   * @param orderId the order
   * @param eventId the event within the order
   * @param eventTime when it happened
   * @param amount the revenue; negative for a refund
   * @param groupKey may be null
   */
  public void add(
      String orderId, String eventId, Instant eventTime, BigDecimal amount, String groupKey) {
    add(
        orderId,
        eventId,
        eventTime == null
            ? NO_TIME
            : Math.addExact(
                Math.multiplyExact(eventTime.getEpochSecond(), 1_000_000L),
                eventTime.getNano() / 1_000),
        amount,
        groupKey);
  }

  /**
   * Adds an event whose texts are UTF-8 already.
   *
   * @param orderId the order
   * @param eventId the event within the order
   * @param eventTimeMicros microseconds since 1970-01-01 UTC, or {@link #NO_TIME}
   * @param amount the revenue
   * @param groupKey may be null
   */
  public abstract void addUtf8(
      byte[] orderId, byte[] eventId, long eventTimeMicros, BigDecimal amount, byte[] groupKey);

  /**
   * The number of events.
   *
   * @return how many events were added since the last {@link #clear}
   */
  public abstract int size();

  /**
   * The bytes that a call with this batch sends.
   *
   * @return about how many; a message to PostgreSQL has less than 1 GB
   */
  public abstract long bytes();

  /** Forgets all events. */
  public abstract void clear();

  /**
   * Says whether there is nothing to send.
   *
   * @return true if no event was added since the last {@link #clear}
   */
  public final boolean isEmpty() {
    return size() == 0;
  }

  /** The statement whose answer is the six counts. */
  abstract String apply();

  /**
   * The statement whose answer is the word of each event.
   *
   * @throws UnsupportedOperationException if there is none for such batches
   */
  abstract String applyEach();

  /** Sets the parameters from {@code first} on. */
  abstract void bind(PreparedStatement statement, int first) throws SQLException;

  private static byte[] utf8(String text) {
    return text == null ? null : text.getBytes(StandardCharsets.UTF_8);
  }
}
