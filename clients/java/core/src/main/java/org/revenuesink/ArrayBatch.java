package org.revenuesink;

import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.ByteBuffer;
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
    orderId.addText(order);
    eventId.addText(event);
    eventTime.addTime(time);
    amount.addNumeric(revenue);
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
    private static final long MICROS_TO_2000 = 946_684_800_000_000L;
    private static final BigInteger BASE = BigInteger.valueOf(10_000);
    private static final int[] POWER = {1, 10, 100, 1_000};

    private final int element;
    private transient ByteBuffer bytes = ByteBuffer.allocate(1 << 16);
    private transient short[] few = new short[5];
    private int nulls;

    @SuppressWarnings("this-escape")
    Column(String type, int element) {
      setType(type);
      this.element = element;
      clear();
    }

    void clear() {
      bytes.clear();
      bytes.position(HEADER);
      nulls = 0;
    }

    Column finished(int size) {
      bytes
          .putInt(0, size > 0 ? 1 : 0)
          .putInt(4, nulls > 0 ? 1 : 0)
          .putInt(8, element)
          .putInt(12, size)
          .putInt(16, 1);
      return this;
    }

    /** Makes room for an element and its size. */
    private ByteBuffer room(int size) {
      if (bytes.remaining() < 4 + size) {
        bytes.flip();
        bytes =
            ByteBuffer.allocate(Math.addExact(Math.multiplyExact(2, bytes.capacity()), size))
                .put(bytes);
      }
      return bytes;
    }

    private void addNull() {
      room(0).putInt(-1);
      nulls++;
    }

    void addText(byte[] utf8) {
      if (utf8 == null) {
        addNull();
      } else {
        room(utf8.length).putInt(utf8.length).put(utf8);
      }
    }

    void addTime(long micros) {
      if (micros == NO_TIME) {
        addNull();
      } else {
        room(8).putInt(8).putLong(Math.subtractExact(micros, MICROS_TO_2000));
      }
    }

    /**
     * How many digits of base 10,000, weight of the first, sign, decimals; and the digits, aligned
     * at the point.
     */
    void addNumeric(BigDecimal value) {
      if (value == null) {
        addNull();
        return;
      }
      int decimals = Math.max(value.scale(), 0);
      int fraction = (decimals + 3) / 4;
      short[] digits = few;
      int count = 0;
      long rest;

      if (value.scale() >= 0 && value.precision() <= 15) {
        rest =
            Math.abs(value.scaleByPowerOfTen(decimals).longValue())
                * POWER[4 * fraction - decimals];
      } else {
        BigInteger much = value.setScale(4 * fraction).unscaledValue().abs();

        digits = new short[much.bitLength() / 13 + 1]; // each takes 13 bits and some
        for (; much.bitLength() > 62; much = much.divide(BASE)) {
          digits[count++] = much.mod(BASE).shortValue();
        }
        rest = much.longValue();
      }
      for (; rest > 0; rest /= 10_000) {
        digits[count++] = (short) (rest % 10_000);
      }
      room(8 + 2 * count)
          .putInt(8 + 2 * count)
          .putShort((short) count)
          .putShort((short) (count - fraction - 1))
          .putShort((short) (value.signum() < 0 ? 0x4000 : 0))
          .putShort((short) decimals);
      while (count > 0) {
        bytes.putShort(digits[--count]);
      }
    }

    @Override
    public int lengthInBytes() {
      return bytes.position() == HEADER ? HEADER_OF_EMPTY : bytes.position();
    }

    @Override
    public void toBytes(byte[] target, int offset) {
      System.arraycopy(bytes.array(), 0, target, offset, lengthInBytes());
    }

    @Override
    public void setByteValue(byte[] value, int offset) {
      throw new UnsupportedOperationException("arrays are only sent");
    }
  }
}
