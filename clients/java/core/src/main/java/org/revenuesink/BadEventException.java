package org.revenuesink;

/**
 * One event of the call is bad, and the sink has {@code on_bad_event => 'error'}. No event of the
 * call counts. Correct the source, or let the sink keep such events as dead letters.
 */
public final class BadEventException extends RevenueSinkException {
  private static final long serialVersionUID = 1;

  /** Counted from 1, as the server does. */
  private final int position;

  /** The column's name. */
  private final String column;

  BadEventException(String message, String sqlState, Throwable cause, int position, String column) {
    super(message, sqlState, cause);
    this.position = position;
    this.column = column;
  }

  /**
   * The place of the event in its batch.
   *
   * @return 1 for the first event
   */
  public int position() {
    return position;
  }

  /**
   * The column that has the bad value.
   *
   * @return one of order_id, event_id, event_time, amount and group_key
   */
  public String column() {
    return column;
  }
}
