package org.revenuesink;

import java.util.Locale;

/** What became of a prepared batch, as {@link SinkConnection#outcome} tells. */
public enum Outcome {
  /** The batch is committed. */
  COMMITTED,
  /** The batch is rolled back, or that has been decided. */
  ROLLED_BACK,
  /** The batch is prepared, and nobody has decided yet. */
  IN_DOUBT,
  /** The transaction of the batch is still open. */
  OPEN,
  /**
   * No success: the gid is none of this database, or a failover has lost it, or it is forgotten.
   */
  UNKNOWN;

  static Outcome of(String words) {
    return valueOf(words.replace(' ', '_').toUpperCase(Locale.ROOT));
  }
}
