package org.revenuesink;

import java.math.BigDecimal;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.sql.Types;
import org.postgresql.util.PGBinaryObject;
import org.postgresql.util.PGobject;

/**
 * Events as PostgreSQL's binary arrays, one for each column: written as they come, sent as they
 * are.
 */
final class ArrayBatch extends EventBatch {
  /** The arrays' types, which the driver must be told to send in binary. */
  static final int[] BINARY = {1009, 1185, 1231};

  private static final String CALL = "(?, ?, ?, ?, ?, ?)";

  private final Column orderId = new Column("text[]", 25);
  private final Column eventId = new Column("text[]", 25);
  private final Column eventTime = new Column("timestamptz[]", 1184);
  private final Column amount = new Column("numeric[]", 1700);
  private final Column groupKey = new Column("text[]", 25);
  private final Column[] columns = {orderId, eventId, eventTime, amount, groupKey};
  private int size;

  @Override
  public void addUtf8(byte[] order, byte[] event, long time, BigDecimal revenue, byte[] group) {
    // those first that may throw, so that all columns have the same length
    eventTime.addTime(time);
    amount.addNumeric(revenue);
    orderId.addText(order);
    eventId.addText(event);
    groupKey.addText(group);
    size++;
  }

  @Override
  public int size() {
    return size;
  }

  @Override
  public long bytes() {
    long sum = 0;
    for (Column column : columns) {
      sum += column.lengthInBytes();
    }
    return sum;
  }

  @Override
  public void clear() {
    size = 0;
    for (Column column : columns) {
      column.clear();
    }
  }

  @Override
  String apply() {
    return "SELECT * FROM revenue_sink.apply" + CALL;
  }

  @Override
  String applyEach() {
    return "SELECT revenue_sink.apply_each" + CALL;
  }

  /** Events without a group have no array of groups. */
  @Override
  void bind(PreparedStatement statement, int first) throws SQLException {
    for (int i = 0; i < columns.length; i++) {
      statement.setObject(first + i, columns[i].finished(size));
    }
    if (groupKey.nulls == size) {
      statement.setNull(first + columns.length - 1, Types.ARRAY, groupKey.getType());
    }
  }

  /**
   * Dimensions, whether there are NULLs, the element's type, length, lower bound; then the size and
   * the bytes of each element.
   */
  private static final class Column extends PGobject implements PGBinaryObject {
    private static final long serialVersionUID = 1;
    private static final int HEADER = 20;
    private static final int HEADER_OF_EMPTY = 12; // which has no dimension

    private final int element;
    private final transient WireBuffer buffer = new WireBuffer();
    private int nulls;

    @SuppressWarnings("this-escape")
    Column(String type, int element) {
      setType(type);
      this.element = element;
      clear();
    }

    void clear() {
      buffer.truncate(HEADER);
      nulls = 0;
    }

    Column finished(int size) {
      buffer.setInt(0, size > 0 ? 1 : 0);
      buffer.setInt(4, nulls > 0 ? 1 : 0);
      buffer.setInt(8, element);
      buffer.setInt(12, size);
      buffer.setInt(16, 1);
      return this;
    }

    private void addNull() {
      buffer.addNull();
      nulls++;
    }

    void addText(byte[] utf8) {
      if (utf8 == null) {
        addNull();
      } else {
        buffer.addText(utf8);
      }
    }

    void addTime(long micros) {
      if (micros == NO_TIME) {
        addNull();
      } else {
        buffer.addTime(micros);
      }
    }

    void addNumeric(BigDecimal value) {
      if (value == null) {
        addNull();
      } else {
        buffer.addNumeric(value);
      }
    }

    @Override
    public int lengthInBytes() {
      return buffer.length() == HEADER ? HEADER_OF_EMPTY : buffer.length();
    }

    @Override
    public void toBytes(byte[] target, int offset) {
      System.arraycopy(buffer.bytes(), 0, target, offset, lengthInBytes());
    }

    @Override
    public void setByteValue(byte[] value, int offset) {
      throw new UnsupportedOperationException("arrays are only sent");
    }
  }
}
