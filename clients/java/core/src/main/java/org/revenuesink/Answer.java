package org.revenuesink;

import java.util.Locale;

/** What became of an event; the reference of revenue_sink explains the six answers. */
public enum Answer {
  /** The event is counted, in this transaction. */
  APPLIED,
  /** The event was counted before, or was a dead letter that somebody has resolved. */
  DUPLICATE,
  /** Another transaction, which is unfinished, has the event; the server settles it later. */
  DEFERRED,
  /** The event is known with another time, amount or group, and became a dead letter. */
  CONFLICT,
  /** The event is too old to be told from a duplicate, and became a dead letter. */
  LATE,
  /** The event is bad, and became a dead letter as the sink's setting asks for. */
  REJECTED;

  private final String word = name().toLowerCase(Locale.ROOT);

  /**
   * The answer as the server spells it.
   *
   * @return the word, such as {@code applied}
   */
  public String word() {
    return word;
  }

  static Answer of(String word) {
    return valueOf(word.toUpperCase(Locale.ROOT));
  }
}
