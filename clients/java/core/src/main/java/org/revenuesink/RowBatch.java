package org.revenuesink;

import java.io.IOException;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import org.postgresql.util.ByteStreamWriter;

/**
 * Events as rows in the format of COPY BINARY: written as they come, sent as they are, without a
 * copy of them.
 */
final class RowBatch extends EventBatch {
  private static final byte[] SIGNATURE = "PGCOPY\n\u00ff\r\n\0".getBytes(StandardCharsets.ISO_8859_1);
  private static final int HEADER = SIGNATURE.length + 8; // with flags and an extension of no bytes
  private static final int TRAILER = -1;
  private static final int TRAILER_BYTES = 2;

  private final WireBuffer buffer = new WireBuffer();
  private int size;

  RowBatch() {
    buffer.putBytes(SIGNATURE);
    buffer.putInt(0);
    buffer.putInt(0);
  }

  @Override
  public void addUtf8(byte[] order, byte[] event, long time, BigDecimal revenue, byte[] group) {
    int before = buffer.length();
    try {
      buffer.putShort(group == null ? 4 : 5);
      addText(order);
      addText(event);
      if (time == NO_TIME) {
        buffer.addNull();
      } else {
        buffer.addTime(time);
      }
      if (revenue == null) {
        buffer.addNull();
      } else {
        buffer.addNumeric(revenue);
      }
      if (group != null) {
        buffer.addText(group);
      }
      size++;
    } catch (ArithmeticException | OutOfMemoryError e) {
      buffer.truncate(before); // no half of an event stays
      throw e;
    }
  }

  private void addText(byte[] utf8) {
    if (utf8 == null) {
      buffer.addNull();
    } else {
      buffer.addText(utf8);
    }
  }

  @Override
  public int size() {
    return size;
  }

  @Override
  public long bytes() {
    return buffer.length() + (long) TRAILER_BYTES;
  }

  @Override
  public void clear() {
    size = 0;
    buffer.truncate(HEADER);
  }

  @Override
  String apply() {
    return "SELECT * FROM revenue_sink.apply_rows(?, ?)";
  }

  @Override
  String applyEach() {
    throw new UnsupportedOperationException("each event's answer is told to EventBatch.arrays()");
  }

  @Override
  void bind(PreparedStatement statement, int first) throws SQLException {
    int end = buffer.length();
    buffer.putShort(TRAILER);
    buffer.truncate(end); // the next event may follow; the trailer is sent all the same
    statement.setObject(first, new Rows(buffer.bytes(), end + TRAILER_BYTES));
  }

  /** What the driver writes to the server, each time that it sends the statement. */
  private static final class Rows implements ByteStreamWriter {
    private final byte[] bytes;
    private final int length;

    Rows(byte[] bytes, int length) {
      this.bytes = bytes;
      this.length = length;
    }

    @Override
    public int getLength() {
      return length;
    }

    @Override
    public void writeTo(ByteStreamTarget target) throws IOException {
      target.getOutputStream().write(bytes, 0, length);
    }
  }
}
