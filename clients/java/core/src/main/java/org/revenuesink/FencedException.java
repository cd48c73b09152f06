package org.revenuesink;

/**
 * Another incarnation of the writer has taken over (SQLSTATE RS001). This incarnation must stop: no
 * transaction of its epoch can commit any more.
 */
public final class FencedException extends RevenueSinkException {
  private static final long serialVersionUID = 1;

  FencedException(String message, String sqlState, Throwable cause) {
    super(message, sqlState, cause);
  }
}
