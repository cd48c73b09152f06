package org.revenuesink;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.math.BigDecimal;
import java.sql.SQLException;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

class SinkConnectionTest {
  private static final String SINK = "connection_test";
  private static final String JOB = "billing";
  private static final Instant NOON = Instant.parse("2024-03-01T12:00:00Z");

  private SinkConnection connection;

  @BeforeEach
  void connect() throws SQLException {
    Server.newSink(SINK, "");
    connection = Server.connect(SINK);
  }

  @AfterEach
  void close() {
    if (connection != null) {
      connection.close();
    }
  }

  private static EventBatch events(String order, int... amounts) {
    EventBatch batch = EventBatch.arrays();
    for (int i = 0; i < amounts.length; i++) {
      batch.add(order, "event-" + i, NOON.plusSeconds(i), BigDecimal.valueOf(amounts[i]), null);
    }
    return batch;
  }

  @Test
  void applyCounts() throws SQLException {
    Answers first = connection.apply(events("a", 1, 2, 3));
    assertEquals(3, first.count(Answer.APPLIED));
    assertEquals(3, first.total());
    assertEquals(
        "applied 0, duplicate 3, deferred 0, conflict 0, late 0, rejected 0",
        connection.apply(events("a", 1, 2, 3)).toString());
    assertEquals(0, connection.apply(EventBatch.arrays()).total());
    Server.assertFact("6|3", SINK);
  }

  @Test
  void applyEachAnswersInOrder() throws SQLException {
    connection.apply(events("a", 1));
    assertEquals(List.of(Answer.CONFLICT, Answer.APPLIED), connection.applyEach(events("a", 7, 2)));
    Server.assertFact("3|2", SINK);
  }

  @Test
  void aBatchIsOneTransactionAndCountsOnce() throws SQLException {
    long epoch = connection.openWriter(JOB, "w");
    assertTrue(connection.beginBatch(JOB, "w", epoch, 1));
    assertTrue(connection.isBatchOpen());
    connection.apply(events("a", 1));
    connection.storeOffsets("payments", Map.of(0, 10L, 3, 30L));
    Server.assertFact("null|null", SINK);
    connection.commit();
    assertFalse(connection.isBatchOpen());

    assertFalse(connection.beginBatch(JOB, "w", epoch, 1));
    connection.commit();
    assertTrue(connection.beginBatch(JOB, "w", epoch, 2));
    connection.apply(events("b", 5));
    connection.rollback();
    assertEquals(Map.of(0, 10L, 3, 30L), connection.offsets("payments"));
    assertEquals(Map.of("w", epoch), connection.epochs(JOB));
    Server.assertFact("1|1", SINK);
  }

  @Test
  void aZombieIsFenced() throws SQLException {
    long epoch = connection.openWriter(JOB, "w", null, 7L);
    assertEquals(7, epoch);
    assertThrows(FencedException.class, () -> connection.openWriter(JOB, "w", null, 6L));
    try (SinkConnection other = Server.connect(SINK)) {
      other.openWriter(JOB, "w", null, 8L);
    }
    FencedException e =
        assertThrows(FencedException.class, () -> connection.beginBatch(JOB, "w", epoch, 1));
    assertEquals("RS001", e.getSQLState());
    connection.rollback();
    assertThrows(FencedException.class, () -> connection.recover(JOB, null, 8L - 1));
  }

  @Test
  void twoPhases() throws SQLException {
    long epoch = connection.openWriter(JOB, "w", 0L, 1L);
    connection.beginBatch(JOB, "w", epoch, 1);
    connection.apply(events("a", 1));
    String first = connection.prepare();
    assertFalse(connection.isBatchOpen());
    assertEquals(Outcome.IN_DOUBT, connection.outcome(first));
    connection.beginBatch(JOB, "w", epoch, 2);
    connection.apply(events("b", 2));
    String second = connection.prepare();
    Server.assertFact("null|null", SINK);

    connection.commitPrepared(first);
    connection.commitPrepared(first);
    assertEquals(Outcome.COMMITTED, connection.outcome(first));
    connection.rollbackPrepared(second);
    assertEquals(Outcome.ROLLED_BACK, connection.outcome(second));
    RevenueSinkException e =
        assertThrows(RevenueSinkException.class, () -> connection.commitPrepared(second));
    assertEquals("25000", e.getSQLState());
    Server.assertFact("1|1", SINK);
  }

  @Test
  void aCheckpointCommitsAsAWhole() throws SQLException {
    long epoch = connection.recover(JOB, null, null);
    connection.beginBatch(JOB, "v", epoch, 1);
    connection.apply(events("a", 1));
    String v = connection.prepare();
    connection.beginBatch(JOB, "w", epoch, 1);
    connection.apply(events("b", 2));
    String w = connection.prepare();
    assertThrows(
        RevenueSinkException.class,
        () -> connection.commitCheckpoint(JOB, 1, List.of(v, w, "no gid")));
    assertEquals(2, connection.commitCheckpoint(JOB, 1, List.of(v, w)));
    assertEquals(0, connection.commitCheckpoint(JOB, 1, null));
    Server.assertFact("3|2", SINK);
  }

  @Test
  void aRestoredWriterDecidesOnWhatWasPrepared() throws SQLException {
    connection.openWriter(JOB, "w", 0L, 1L);
    connection.beginBatch(JOB, "w", 1, 1);
    connection.apply(events("a", 1));
    String kept = connection.prepare();
    connection.beginBatch(JOB, "w", 1, 2);
    connection.apply(events("b", 2));
    String dropped = connection.prepare();
    connection.openWriter(JOB, "w", 1L, 2L);
    assertEquals(Outcome.COMMITTED, connection.outcome(kept));
    assertEquals(Outcome.ROLLED_BACK, connection.outcome(dropped));
    Server.assertFact("1|1", SINK);
  }

  @Test
  void aBadEventIsNamed() throws SQLException {
    EventBatch batch = events("a", 1, 2);
    batch.add("a", "", NOON, BigDecimal.ONE, null);
    BadEventException e = assertThrows(BadEventException.class, () -> connection.apply(batch));
    assertEquals(3, e.position());
    assertEquals("event_id", e.column());
    Server.assertFact("null|null", SINK);

    batch.clear();
    batch.add("a", "e", EventBatch.NO_TIME, BigDecimal.ONE, null);
    e = assertThrows(BadEventException.class, () -> connection.apply(batch));
    assertEquals(1, e.position());
    assertEquals("event_time", e.column());
    assertEquals("22004", e.getSQLState());
  }

  @Test
  void callsOutOfPlaceSaySo() throws SQLException {
    assertThrows(IllegalStateException.class, () -> connection.commit());
    assertThrows(IllegalStateException.class, () -> connection.prepare());
    long epoch = connection.openWriter(JOB, "w");
    connection.beginBatch(JOB, "w", epoch, 1);
    assertThrows(IllegalStateException.class, () -> connection.openWriter(JOB, "w"));
    assertThrows(IllegalStateException.class, () -> connection.beginBatch(JOB, "w", epoch, 2));
    assertThrows(IllegalStateException.class, () -> connection.commitPrepared("gid"));
    connection.rollback();
    connection.rollback();
  }

  @Test
  void otherErrorsKeepTheirState() throws SQLException {
    try (SinkConnection none = Server.connect("there_is_none")) {
      RevenueSinkException e =
          assertThrows(RevenueSinkException.class, () -> none.apply(EventBatch.arrays()));
      assertEquals("42704", e.getSQLState());
      assertEquals(RevenueSinkException.class, e.getClass());
    }
  }

  @Test
  void aLostConnectionIsRetryable() throws SQLException {
    Server.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND"
            + " datname = current_database() AND backend_type = 'client backend'");
    RetryableException e =
        assertThrows(RetryableException.class, () -> connection.apply(events("a", 1)));
    assertTrue(e.isConnectionLost());
  }
}
