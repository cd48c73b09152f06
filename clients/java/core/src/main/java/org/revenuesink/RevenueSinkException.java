package org.revenuesink;

import java.sql.SQLException;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.postgresql.util.PSQLException;
import org.postgresql.util.ServerErrorMessage;

/**
 * A call has failed. The transaction that it was made in can only be rolled back, and has then left
 * nothing behind. {@link #getSQLState()} and the message are those of the server.
 */
public class RevenueSinkException extends SQLException {
  private static final long serialVersionUID = 1;
  private static final Pattern BAD_EVENT =
      Pattern.compile(
          "bad (?:event|total) at position (\\d+) for sink \".*\": (\\w+) .*", Pattern.DOTALL);

  RevenueSinkException(String message, String sqlState, Throwable cause) {
    super(message, sqlState, cause);
  }

  /**
   * The exception of this package that says what the driver's exception means.
   *
   * @param e what the driver has thrown
   * @return {@code e} itself if it is of this package already
   */
  public static RevenueSinkException of(SQLException e) {
    if (e instanceof RevenueSinkException) {
      return (RevenueSinkException) e;
    }
    String state = e.getSQLState() == null ? "" : e.getSQLState();
    ServerErrorMessage server =
        e instanceof PSQLException ? ((PSQLException) e).getServerErrorMessage() : null;
    String message = server == null ? null : server.getMessage();
    if (state.equals("RS001")) {
      return new FencedException(e.getMessage(), state, e);
    }
    if (isRetryable(state)
        || (state.equals("55000") && message != null && message.contains("is busy"))) {
      return new RetryableException(e.getMessage(), state, e);
    }
    if (state.startsWith("22") && message != null) {
      Matcher bad = BAD_EVENT.matcher(message);
      if (bad.matches()) {
        return new BadEventException(
            e.getMessage(), state, e, Integer.parseInt(bad.group(1)), bad.group(2));
      }
    }
    return new RevenueSinkException(e.getMessage(), e.getSQLState(), e);
  }

  /** What another try can cure: the connection, a server that starts or is full, a conflict. */
  private static boolean isRetryable(String state) {
    return state.startsWith("08")
        || state.startsWith("57P")
        || state.equals("40001")
        || state.equals("53300")
        || state.equals("57014");
  }
}
