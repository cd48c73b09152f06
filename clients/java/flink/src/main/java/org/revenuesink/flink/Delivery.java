package org.revenuesink.flink;

/** When readers see events. In both ways each event counts once. */
public enum Delivery {
  /**
   * Events are committed when the checkpoint is complete that they belong to, so readers see whole
   * checkpoints. The role must own the sink, and the server needs {@code
   * max_prepared_transactions}.
   */
  TWO_PHASE,
  /**
   * Events are committed call by call, so readers see them at once. A job that goes back to a
   * checkpoint sends some of them again, which are duplicates then.
   */
  ONE_PHASE
}
