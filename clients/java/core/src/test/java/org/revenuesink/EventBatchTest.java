package org.revenuesink;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.lang.reflect.Proxy;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.Random;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.postgresql.PGConnection;
import org.postgresql.util.ByteStreamWriter;

/**
 * Events of all sorts go through the binary forms and come back as they were, to the last decimal.
 */
class EventBatchTest {
  private static final String[] TEXTS = {
    "order-1", "", "\u00e4\u20ac\ud83d\ude00", "x".repeat(2_000), "\\\"{},NULL"
  };

  private static String amount(Random random) {
    BigInteger digits = new BigInteger(random.nextInt(200), random);
    for (int zeros = random.nextInt(3) * random.nextInt(9); zeros > 0; zeros--) {
      digits = digits.multiply(BigInteger.TEN);
    }
    BigDecimal value =
        new BigDecimal(random.nextBoolean() ? digits : digits.negate(), random.nextInt(60) - 15);
    return (value.scale() < 0 ? value.setScale(0) : value).toPlainString();
  }

  private static String text(Random random) {
    return random.nextInt(20) == 0 ? null : TEXTS[random.nextInt(TEXTS.length)];
  }

  /** Fills a batch with random events, which are returned as text. */
  private static List<String[]> fill(EventBatch batch, int count) {
    Random random = new Random(count);
    List<String[]> events = new ArrayList<>();

    for (int round = 0; round < 2; round++) { // the second time in used memory
      batch.clear();
      events.clear();
      for (int i = 0; i < count; i++) {
        String amount = random.nextInt(20) == 0 ? null : amount(random);
        long time =
            random.nextInt(20) == 0
                ? EventBatch.NO_TIME
                : random.nextLong() % 60_000_000_000_000_000L;
        String[] event = {
          text(random),
          text(random),
          time == EventBatch.NO_TIME ? null : Long.toString(time),
          amount,
          text(random)
        };
        events.add(event);
        batch.add(
            event[0], event[1], time, amount == null ? null : new BigDecimal(amount), event[4]);
      }
    }
    assertEquals(count, batch.size());
    assertEquals(count == 0, batch.isEmpty());
    return events;
  }

  private static void assertRow(String[] event, int number, ResultSet row) throws SQLException {
    for (int column = 0; column < 5; column++) {
      assertTrue(
          Objects.equals(event[column], row.getString(column + 1)),
          "event " + number + ", column " + column + ": " + row.getString(column + 1));
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {0, 1, 7, 3_000})
  void arraysComeBack(int count) throws Exception {
    EventBatch batch = EventBatch.arrays();
    List<String[]> events = fill(batch, count);

    try (SinkConnection connection = Server.connect("none");
        PreparedStatement back =
            connection
                .connection()
                .prepareStatement(
                    "SELECT o, e, (extract(epoch FROM t) * 1000000)::bigint::text, a::text, g"
                        + " FROM unnest(?::text[], ?::text[], ?::timestamptz[], ?::numeric[],"
                        + " ?::text[]) WITH ORDINALITY AS r(o, e, t, a, g, n) ORDER BY n")) {
      batch.bind(back, 1);
      int i = 0;
      try (ResultSet row = back.executeQuery()) {
        for (; row.next(); i++) {
          assertRow(events.get(i), i, row);
        }
      }
      assertEquals(count, i);
    }
  }

  /** COPY itself reads the rows. */
  @ParameterizedTest
  @ValueSource(ints = {0, 1, 7, 3_000})
  void rowsComeBack(int count) throws Exception {
    EventBatch batch = EventBatch.rows();
    List<String[]> events = fill(batch, count);
    AtomicReference<ByteStreamWriter> sent = new AtomicReference<>();

    batch.bind(
        (PreparedStatement)
            Proxy.newProxyInstance(
                getClass().getClassLoader(),
                new Class<?>[] {PreparedStatement.class},
                (proxy, method, values) -> {
                  sent.set((ByteStreamWriter) values[1]);
                  return null;
                }),
        2);
    assertEquals(batch.bytes(), sent.get().getLength());
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    sent.get().writeTo(() -> bytes);
    assertEquals(batch.bytes(), bytes.size());
    try (SinkConnection connection = Server.connect("none");
        Statement statement = connection.connection().createStatement()) {
      statement.execute(
          "CREATE TEMP TABLE back (o text, e text, t timestamptz, a numeric, g text,"
              + " n bigint GENERATED ALWAYS AS IDENTITY)");
      long copied =
          connection
              .connection()
              .unwrap(PGConnection.class)
              .getCopyAPI()
              .copyIn(
                  "COPY back (o, e, t, a, g) FROM STDIN (FORMAT binary)",
                  new ByteArrayInputStream(withFiveFields(bytes.toByteArray())));
      assertEquals(count, copied);
      int i = 0;
      try (ResultSet row =
          statement.executeQuery(
              "SELECT o, e, (extract(epoch FROM t) * 1000000)::bigint::text, a::text, g"
                  + " FROM back ORDER BY n")) {
        for (; row.next(); i++) {
          assertRow(events.get(i), i, row);
        }
      }
      assertEquals(count, i);
    }
  }

  /** COPY wants the same number of fields in all rows: NULL for a group that isn't there. */
  private static byte[] withFiveFields(byte[] rows) {
    ByteBuffer in = ByteBuffer.wrap(rows);
    ByteBuffer out = ByteBuffer.allocate(2 * rows.length);
    out.put(rows, 0, in.position(19).position());
    for (short fields = in.getShort(); fields != -1; fields = in.getShort()) {
      out.putShort((short) 5);
      for (int i = 0; i < fields; i++) {
        int length = in.getInt();
        out.putInt(length);
        if (length > 0) {
          out.put(rows, in.position(), length);
          in.position(in.position() + length);
        }
      }
      if (fields == 4) {
        out.putInt(-1);
      }
    }
    assertFalse(in.hasRemaining());
    out.putShort((short) -1);
    return Arrays.copyOf(out.array(), out.position());
  }

  @Test
  void anInstantIsCutToMicroseconds() throws Exception {
    EventBatch batch = EventBatch.arrays();
    batch.add("o", "e", Instant.parse("1969-12-31T23:59:59.999999999Z"), BigDecimal.ONE, null);
    batch.add("o", "e", (Instant) null, null, null);
    assertThrows(
        ArithmeticException.class, () -> batch.add("o", "e", Instant.MAX, BigDecimal.ONE, null));
    try (SinkConnection connection = Server.connect("none");
        PreparedStatement back =
            connection
                .connection()
                .prepareStatement(
                    "SELECT ?::text[], ?::text[], (?::timestamptz[])[1]::timestamptz(6)::text,"
                        + " ?::numeric[], ?::text[]")) {
      batch.bind(back, 1);
      try (ResultSet row = back.executeQuery()) {
        row.next();
        assertTrue(row.getString(3).contains("59.999999"), row.getString(3));
      }
    }
  }

  static List<EventBatch> forms() {
    return List.of(EventBatch.arrays(), EventBatch.rows());
  }

  @ParameterizedTest
  @MethodSource("forms")
  void anEventThatCannotBeSentLeavesNothing(EventBatch batch) {
    long empty = batch.bytes();
    assertThrows(
        ArithmeticException.class, () -> batch.add("o", "e", Long.MIN_VALUE + 1, BigDecimal.ONE, null));
    assertEquals(empty, batch.bytes());
    assertEquals(0, batch.size());
  }

  @ParameterizedTest
  @MethodSource("forms")
  void bytesGrowAndEnd(EventBatch batch) {
    long empty = batch.bytes();
    batch.add("order", "event", 0, BigDecimal.TEN, "group");
    assertTrue(batch.bytes() > empty + 40);
    batch.clear();
    assertEquals(empty, batch.bytes());
    assertTrue(batch.isEmpty());
    assertFalse(batch.size() > 0);
  }
}
