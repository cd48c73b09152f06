package org.revenuesink.flink;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.util.List;
import org.junit.jupiter.api.Test;

class IncarnationTest {
  private static final long MONDAY = 1_790_000_000;

  private static Incarnation attempt(
      String job, int attempt, String graph, Incarnation... restored) {
    return Incarnation.of(MONDAY, job, attempt, graph, List.of(restored));
  }

  /** As a checkpoint gives it back. */
  private static Incarnation stored(Incarnation i) throws IOException {
    Incarnation.Serializer serializer = new Incarnation.Serializer();
    return serializer.deserialize(serializer.getVersion(), serializer.serialize(i));
  }

  @Test
  void attemptsOfOneGraphAreInFlinksOrder() throws IOException {
    Incarnation first = attempt("j", 0, "g");
    Incarnation second = attempt("j", 1, "g");
    assertTrue(first.epoch() < second.epoch());

    // the second one has completed a checkpoint; the third and a zombie begin from it
    Incarnation third = attempt("j", 2, "g", stored(second));
    Incarnation fourth = attempt("j", 3, "g", stored(second));
    assertTrue(second.epoch() < third.epoch());
    assertTrue(third.epoch() < fourth.epoch());
    assertFalse(third.isUndecided(second.epoch()));
    assertFalse(third.isUndecided(fourth.epoch()));
  }

  @Test
  void aReplacedJobManagerCountsOnFromTheCheckpoint() throws IOException {
    Incarnation wrote = stored(attempt("j", 7, "g"));
    Incarnation next = attempt("j", 0, "h", wrote);
    assertTrue(wrote.epoch() < next.epoch());
    assertFalse(next.isUndecided(wrote.epoch()));
  }

  @Test
  void withoutACheckpointInBetweenNeitherIsTheLaterOne() throws IOException {
    Incarnation restored = stored(attempt("j", 2, "g"));
    Incarnation before = attempt("j", 3, "g", restored);
    Incarnation after = attempt("j", 0, "h", restored);
    assertTrue(after.isUndecided(before.epoch()));
    assertTrue(before.isUndecided(after.epoch()));
    assertTrue(attempt("j", 0, "h").isUndecided(attempt("j", 0, "g").epoch()));
  }

  @Test
  void anEpochThatIsHeldIsNoOnesElse() {
    assertTrue(attempt("j", 1, "g").isUndecided(attempt("j", 1, "g").epoch()));
  }

  @Test
  void aNewSubmissionIsLaterWhateverItRestores() throws IOException {
    Incarnation old = attempt("j", 100, "g", stored(attempt("j", 99, "g")));
    Incarnation next =
        Incarnation.of(MONDAY + 1, "k", 0, "h", List.of(stored(attempt("j", 2, "g"))));
    assertTrue(old.epoch() < next.epoch());
    assertFalse(next.isUndecided(old.epoch()));
  }

  @Test
  void aJobKeepsItsSubmissionWhenItsProgramRunsAgain() throws IOException {
    Incarnation wrote = stored(attempt("j", 0, "g"));
    Incarnation next = Incarnation.of(MONDAY - 5, "j", 0, "h", List.of(wrote));
    assertTrue(wrote.epoch() < next.epoch());
  }

  @Test
  void epochsOfTheClockThatWasUsedBeforeAreLower() {
    assertTrue(attempt("j", 0, "g").epoch() > 1000 * MONDAY);
  }

  @Test
  void stateOfAnotherVersionIsRefused() {
    assertThrows(IOException.class, () -> new Incarnation.Serializer().deserialize(2, new byte[0]));
    assertThrows(IOException.class, () -> new Incarnation.Serializer().deserialize(1, new byte[0]));
    assertEquals(1, new Incarnation.Serializer().getVersion());
  }
}
