package org.revenuesink;

import java.util.Arrays;

/** How many events of a call got each of the six answers. */
public final class Answers {
  private static final Answer[] ALL = Answer.values();

  private final long[] counts;

  Answers(long[] counts) {
    this.counts = counts;
  }

  /**
   * The events that got one of the answers.
   *
   * @param answer one of the six
   * @return how many events got it
   */
  public long count(Answer answer) {
    return counts[answer.ordinal()];
  }

  /**
   * All events of the call.
   *
   * @return the sum of the six counts
   */
  public long total() {
    return Arrays.stream(counts).sum();
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof Answers && Arrays.equals(counts, ((Answers) other).counts);
  }

  @Override
  public int hashCode() {
    return Arrays.hashCode(counts);
  }

  @Override
  public String toString() {
    StringBuilder text = new StringBuilder();
    for (Answer answer : ALL) {
      text.append(text.length() == 0 ? "" : ", ")
          .append(answer.word())
          .append(' ')
          .append(count(answer));
    }
    return text.toString();
  }
}
