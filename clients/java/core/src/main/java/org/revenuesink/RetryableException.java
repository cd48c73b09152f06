package org.revenuesink;

/**
 * The connection is lost, the server starts or is full, the call was cancelled, or two transactions
 * were in each other's way. Roll back (or connect again), and send the same batch with the same
 * epoch and number: whatever became of the lost call, the batch then counts once.
 */
public final class RetryableException extends RevenueSinkException {
  private static final long serialVersionUID = 1;

  RetryableException(String message, String sqlState, Throwable cause) {
    super(message, sqlState, cause);
  }

  /**
   * Says whether the connection is of no more use.
   *
   * @return true if the program must connect again before it repeats the call
   */
  public boolean isConnectionLost() {
    return getSQLState().startsWith("08") || getSQLState().startsWith("57P");
  }
}
