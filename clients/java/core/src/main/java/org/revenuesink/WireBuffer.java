package org.revenuesink;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.ByteOrder;
import java.util.Arrays;

/**
 * Values in PostgreSQL's binary formats, one behind the other, each after its length. The memory
 * grows, and is kept by {@link #truncate}.
 */
final class WireBuffer {
  private static final VarHandle SHORT = view(short[].class);
  private static final VarHandle INT = view(int[].class);
  private static final VarHandle LONG = view(long[].class);

  private static final long MICROS_TO_2000 = 946_684_800_000_000L;
  private static final BigInteger BASE = BigInteger.valueOf(10_000);
  private static final int[] POWER = {1, 10, 100, 1_000};

  private final short[] few = new short[5];
  private byte[] bytes = new byte[1 << 16];
  private int length;

  private static VarHandle view(Class<?> array) {
    return MethodHandles.byteArrayViewVarHandle(array, ByteOrder.BIG_ENDIAN);
  }

  /** The memory, of which the first {@link #length} bytes are in use. */
  byte[] bytes() {
    return bytes;
  }

  int length() {
    return length;
  }

  /** Keeps the first bytes only. */
  void truncate(int size) {
    length = size;
  }

  void setInt(int position, int value) {
    INT.set(bytes, position, value);
  }

  void putShort(int value) {
    room(2);
    SHORT.set(bytes, length, (short) value);
    length += 2;
  }

  void putInt(int value) {
    room(4);
    INT.set(bytes, length, value);
    length += 4;
  }

  void putBytes(byte[] value) {
    room(value.length);
    System.arraycopy(value, 0, bytes, length, value.length);
    length += value.length;
  }

  private void room(int size) {
    if (bytes.length - length < size) {
      bytes = Arrays.copyOf(bytes, Math.addExact(Math.multiplyExact(2, bytes.length), size));
    }
  }

  void addNull() {
    putInt(-1);
  }

  void addText(byte[] utf8) {
    putInt(utf8.length);
    putBytes(utf8);
  }

  void addTime(long micros) {
    long since2000 = Math.subtractExact(micros, MICROS_TO_2000);
    putInt(8);
    room(8);
    LONG.set(bytes, length, since2000);
    length += 8;
  }

  /**
   * How many digits of base 10,000, weight of the first, sign, decimals; and the digits, aligned at
   * the point, without zeros at the end.
   */
  void addNumeric(BigDecimal value) {
    int decimals = Math.max(value.scale(), 0);
    int fraction = (decimals + 3) / 4;
    short[] digits = few;
    int count = 0;
    int zeros = 0;
    long rest;

    if (value.scale() >= 0 && value.precision() <= 15) {
      rest =
          Math.abs(value.scaleByPowerOfTen(decimals).longValue()) * POWER[4 * fraction - decimals];
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
    while (zeros < count && digits[zeros] == 0) {
      zeros++;
    }
    room(12 + 2 * count);
    putInt(8 + 2 * (count - zeros));
    putShort(count - zeros);
    putShort(count - fraction - 1);
    putShort(value.signum() < 0 ? 0x4000 : 0);
    putShort(decimals);
    while (count > zeros) {
      putShort(digits[--count]);
    }
  }
}
