package org.revenuesink.flink;

import org.apache.flink.metrics.Counter;
import org.apache.flink.metrics.MetricGroup;
import org.revenuesink.Answer;
import org.revenuesink.Answers;

/** What a writer counts and measures; the README lists the names. */
final class SinkMetrics {
  private final Counter[] answers = new Counter[Answer.values().length];
  private final Counter retries;
  private final Durations apply;

  SinkMetrics(MetricGroup group) {
    for (Answer answer : Answer.values()) {
      answers[answer.ordinal()] = group.counter(answer.word());
    }
    retries = group.counter("answersLost");
    apply = group.histogram("applyMillis", new Durations());
  }

  void applied(Answers counts, long startedNanos) {
    for (Answer answer : Answer.values()) {
      answers[answer.ordinal()].inc(counts.count(answer));
    }
    apply.since(startedNanos);
  }

  /** A batch was there already: the answer to its first sending was lost, and so its counts. */
  void answerLost() {
    retries.inc();
  }
}
