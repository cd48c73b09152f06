package org.revenuesink;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.math.BigDecimal;
import java.math.BigInteger;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Events of all sorts go through the binary arrays and come back as they were, to the last decimal.
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

  @ParameterizedTest
  @ValueSource(ints = {0, 1, 7, 3_000})
  void arraysComeBack(int count) throws Exception {
    Random random = new Random(count);
    List<String[]> events = new ArrayList<>();
    EventBatch batch = EventBatch.arrays();

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
          for (int column = 0; column < 5; column++) {
            assertTrue(
                Objects.equals(events.get(i)[column], row.getString(column + 1)),
                "event " + i + ", column " + column + ": " + row.getString(column + 1));
          }
        }
      }
      assertEquals(count, i);
    }
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

  @Test
  void bytesGrowAndEnd() {
    EventBatch batch = EventBatch.arrays();
    long empty = batch.bytes();
    batch.add("order", "event", 0, BigDecimal.TEN, "group");
    assertTrue(batch.bytes() > empty + 40);
    batch.clear();
    assertEquals(empty, batch.bytes());
    assertTrue(batch.isEmpty());
    assertFalse(batch.size() > 0);
  }
}
