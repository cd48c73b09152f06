package org.revenuesink.flink;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.Collection;
import java.util.Map;
import org.apache.flink.api.connector.sink2.WriterInitContext;
import org.apache.flink.core.io.SimpleVersionedSerializer;
import org.revenuesink.RevenueSinkException;
import org.revenuesink.SinkConnection;

/**
 * An attempt of a subtask, and the epoch that follows from it; a checkpoint keeps who wrote it.
 *
 * <p>Epochs must grow with each attempt, and an attempt that was halted before its first line of
 * Java and goes on after its successor has begun must not get the higher one. So no clock is asked
 * when an attempt begins. An epoch is made of what Flink fixes before it deploys the attempt:
 *
 * <ol>
 *   <li>the second in which the job was submitted, since a new submission may restore an older
 *       checkpoint;
 *   <li>a count of attempts: that of the attempt which wrote the restored checkpoint, and on from
 *       there by Flink's attempt numbers;
 *   <li>a few bits of the execution graph's id.
 * </ol>
 *
 * <p>Attempt numbers start again when a JobManager is replaced. If a checkpoint was completed since
 * the former JobManager's last attempt, the count tells which attempt is the later one. If not,
 * nothing that Flink gives tells it, so the attempt waits before it takes the writer over: in that
 * time Flink ends the one that has lost its JobManager.
 */
public final class Incarnation {
  private static final long ORIGIN = 1_704_067_200; // 2024-01-01; 31 bits of seconds from there on
  private static final int GRAPH_BITS = 10;
  private static final int COUNT_BITS = 22;
  private static final long POLL = 200; // ms
  private static final String ATTEMPT_ID = "<task_attempt_id>"; // graph_vertex_subtask_attempt

  private final String job;
  private final long submission;
  private final int attempt;
  private final String graph;
  private final long restoredCount;
  private final long count;

  private Incarnation(
      String job, long submission, int attempt, String graph, long restoredCount, long count) {
    this.job = job;
    this.submission = submission;
    this.attempt = attempt;
    this.graph = graph;
    this.restoredCount = restoredCount;
    this.count = count;
  }

  /** The attempt that runs now. */
  static Incarnation of(long submitted, WriterInitContext context, Collection<Incarnation> states) {
    Map<String, String> variables = context.metricGroup().getAllVariables();
    String id = variables.getOrDefault(ATTEMPT_ID, context.getTaskInfo().getAllocationIDAsString());
    return of(
        submitted,
        context.getJobInfo().getJobId().toString(),
        context.getTaskInfo().getAttemptNumber(),
        id.split("_")[0],
        states);
  }

  static Incarnation of(
      long submitted, String job, int attempt, String graph, Collection<Incarnation> states) {
    Incarnation before = null;
    for (Incarnation state : states) {
      if (state.job.equals(job) && (before == null || state.count > before.count)) {
        before = state;
      }
    }
    if (before == null) {
      return new Incarnation(job, submitted, attempt, graph, -1, attempt);
    }
    long since = attempt > before.attempt ? attempt - before.attempt : attempt + 1L;
    return new Incarnation(
        job, before.submission, attempt, graph, before.count, before.count + since);
  }

  long epoch() {
    return epoch(submission, count, graph);
  }

  private static long epoch(long submission, long count, String graph) {
    if (count >> COUNT_BITS != 0) {
      throw new IllegalStateException(
          "the job has been restarted " + count + " times: submit it again from a savepoint");
    }
    return (submission - ORIGIN) << (COUNT_BITS + GRAPH_BITS) | count << GRAPH_BITS | bits(graph);
  }

  private static long bits(String graph) {
    return (graph.hashCode() * 0x9E3779B1) >>> (32 - GRAPH_BITS);
  }

  private static long submissionOf(long epoch) {
    return (epoch >>> (COUNT_BITS + GRAPH_BITS)) + ORIGIN;
  }

  private static long countOf(long epoch) {
    return epoch >>> GRAPH_BITS & ((1L << COUNT_BITS) - 1);
  }

  private static long bitsOf(long epoch) {
    return epoch & ((1L << GRAPH_BITS) - 1);
  }

  /**
   * This attempt, if it may take the writer over; with a higher count where it had to wait. The
   * server itself refuses an epoch that is lower than the writer's.
   */
  Incarnation claim(SinkConnection connection, SinkOptions options, String writer)
      throws IOException, RevenueSinkException, InterruptedException {
    long deadline = System.nanoTime() + options.takeoverDelay.toNanos();
    for (; ; Thread.sleep(POLL)) {
      Long held = connection.epochs(options.job).get(writer);
      if (held == null) {
        return this;
      }
      requireNotSuperseded(held, options, writer);
      if (!isUndecided(held)) {
        return this;
      }
      if (System.nanoTime() - deadline >= 0) {
        return new Incarnation(
            job, submission, attempt, graph, restoredCount, Math.max(count, countOf(held) + 1));
      }
    }
  }

  /**
   * Whether the writer's epoch is of another graph, and newer than the restored checkpoint. Two
   * graphs may have the same bits: no attempt that is to come has the epoch of one that was.
   */
  boolean isUndecided(long held) {
    return held == epoch()
        || submissionOf(held) == submission
            && bitsOf(held) != bits(graph)
            && countOf(held) > restoredCount;
  }

  /** A writer for which the job has no subtask any more is retired with this epoch. */
  long epochAbove(long held, SinkOptions options, String writer) throws IOException {
    requireNotSuperseded(held, options, writer);
    return Math.max(epoch(), held + 1);
  }

  private void requireNotSuperseded(long held, SinkOptions options, String writer)
      throws IOException {
    if (submissionOf(held) > submission) {
      throw new IOException(
          options.describe(writer)
              + ": a later submission, of "
              + Instant.ofEpochSecond(submissionOf(held))
              + ", has taken over; this one is of "
              + Instant.ofEpochSecond(submission)
              + ". Stop this job; or, if the other one was no Flink job, choose another job name");
    }
  }

  /** How an incarnation stands in a checkpoint. */
  static final class Serializer implements SimpleVersionedSerializer<Incarnation> {
    @Override
    public int getVersion() {
      return 1;
    }

    @Override
    public byte[] serialize(Incarnation i) {
      return (i.job + " " + i.submission + " " + i.count + " " + i.attempt + " " + i.graph)
          .getBytes(StandardCharsets.UTF_8);
    }

    @Override
    public Incarnation deserialize(int version, byte[] bytes) throws IOException {
      String[] field = new String(bytes, StandardCharsets.UTF_8).split(" ");
      if (version != 1 || field.length != 5) {
        throw new IOException("state of version " + version + " of the revenue_sink writer");
      }
      return new Incarnation(
          field[0],
          Long.parseLong(field[1]),
          Integer.parseInt(field[3]),
          field[4],
          -1,
          Long.parseLong(field[2]));
    }
  }
}
