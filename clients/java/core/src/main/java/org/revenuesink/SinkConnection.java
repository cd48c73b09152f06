package org.revenuesink;

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Types;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.postgresql.core.BaseConnection;

/**
 * A connection to one sink: each method is one call of revenue_sink.
 *
 * <p>{@link #beginBatch} begins a transaction, and {@link #commit}, {@link #prepare} or {@link
 * #rollback} ends it. {@link #apply} and {@link #storeOffsets} belong to the open transaction, or
 * are transactions by themselves where none is open. All other methods need that none is open, and
 * say so with an {@link IllegalStateException}.
 *
 * <p>Every call may be repeated after a lost answer, with the same effect. After any exception the
 * open transaction can only be rolled back.
 *
 * <p>A connection is for one thread at a time. Only {@link #abort} may be called at any moment.
 */
public final class SinkConnection implements AutoCloseable {
  private final Connection connection;
  private final String sink;
  private final Map<String, PreparedStatement> statements = new HashMap<>();
  private boolean open;

  private SinkConnection(Connection connection, String sink) {
    this.connection = connection;
    this.sink = sink;
  }

  /**
   * Connects.
   *
   * @param url {@code jdbc:postgresql://host/database}
   * @param properties what pgjdbc takes: user, password, ApplicationName and others
   * @param sink the sink's name
   * @return a connection with no open transaction
   * @throws RevenueSinkException if there is no connection to be had
   */
  public static SinkConnection open(String url, Properties properties, String sink)
      throws RevenueSinkException {
    try {
      return of(DriverManager.getConnection(url, properties), sink);
    } catch (SQLException e) {
      throw RevenueSinkException.of(e);
    }
  }

  /**
   * Takes a connection of pgjdbc, or of a pool of such, into use. It belongs to the SinkConnection
   * from then on: whoever closes that closes both.
   *
   * @param connection with no open transaction; its autocommit is changed
   * @param sink the sink's name
   * @return a connection with no open transaction
   * @throws RevenueSinkException if the connection isn't one of pgjdbc
   */
  public static SinkConnection of(Connection connection, String sink) throws RevenueSinkException {
    try {
      for (int oid : ArrayBatch.BINARY) {
        connection.unwrap(BaseConnection.class).getQueryExecutor().addBinarySendOid(oid);
      }
      connection.setAutoCommit(true);
      return new SinkConnection(connection, sink);
    } catch (SQLException e) {
      throw RevenueSinkException.of(e);
    }
  }

  /**
   * Opens an epoch that the server chooses, and fences the writer's former incarnation off. What
   * that has prepared is rolled back.
   *
   * @param job the application
   * @param writer the part of the job that writes by itself
   * @return the epoch
   * @throws RevenueSinkException if that can't be done
   */
  public long openWriter(String job, String writer) throws RevenueSinkException {
    return openWriter(job, writer, null, null);
  }

  /**
   * Opens an epoch, and fences the writer's former incarnation off.
   *
   * @param job the application
   * @param writer the part of the job that writes by itself
   * @param restored the checkpoint that the job is restored from: what is prepared up to it
   *     commits, and what is prepared after it is rolled back; null: all is rolled back. Only the
   *     sink's owner may give one
   * @param epoch a number that grows with each incarnation, or null: the server chooses one
   * @return the epoch
   * @throws FencedException if a higher epoch is open
   * @throws RevenueSinkException if that can't be done
   */
  public long openWriter(String job, String writer, Long restored, Long epoch)
      throws RevenueSinkException {
    return (Long)
        call("CALL revenue_sink.open_writer(?, ?, ?, ?, ?)", sink, job, writer, restored, epoch);
  }

  /**
   * Does for all writers of a job at once what {@link #openWriter(String, String, Long, Long)} does
   * for one.
   *
   * @param job the application
   * @param restored the checkpoint that the job is restored from, or null
   * @param epoch a number that grows with each attempt, or null: the server chooses one
   * @return the epoch
   * @throws FencedException if a higher epoch is open
   * @throws RevenueSinkException if that can't be done
   */
  public long recover(String job, Long restored, Long epoch) throws RevenueSinkException {
    return (Long) call("CALL revenue_sink.recover(?, ?, ?, ?)", sink, job, restored, epoch);
  }

  /**
   * The newest epoch of each writer of a job.
   *
   * @param job the application
   * @return epochs by the writer's name
   * @throws RevenueSinkException if that can't be read
   */
  public Map<String, Long> epochs(String job) throws RevenueSinkException {
    requireNoBatch();
    Map<String, Long> epochs = new HashMap<>();
    try (ResultSet row =
        query(
            "SELECT writer, epoch FROM revenue_sink.writer WHERE sink = ? AND job = ?",
            sink,
            job)) {
      while (row.next()) {
        epochs.put(row.getString(1), row.getLong(2));
      }
      return epochs;
    } catch (SQLException e) {
      throw RevenueSinkException.of(e);
    }
  }

  /**
   * Begins a transaction with the next batch of a writer.
   *
   * @param job the application
   * @param writer the part of the job that writes by itself
   * @param epoch what {@link #openWriter} has returned
   * @param number grows with each batch of the epoch; in two-phase commit the number of the
   *     checkpoint
   * @return false if the batch is committed or prepared already: {@link #commit} and go on with the
   *     next one
   * @throws FencedException if the epoch has been fenced off
   * @throws RevenueSinkException if that can't be done
   */
  public boolean beginBatch(String job, String writer, long epoch, long number)
      throws RevenueSinkException {
    requireNoBatch();
    try {
      connection.setAutoCommit(false);
      open = true;
      try (ResultSet row =
          query(
              "SELECT revenue_sink.begin_batch(?, ?, ?, ?, ?)", sink, job, writer, epoch, number)) {
        row.next();
        return row.getBoolean(1);
      }
    } catch (SQLException e) {
      throw RevenueSinkException.of(e);
    }
  }

  /**
   * Sends events.
   *
   * @param events is not changed
   * @return the six counts
   * @throws BadEventException if an event is bad and the sink's setting is to fail then
   * @throws RevenueSinkException if that can't be done
   */
  public Answers apply(EventBatch events) throws RevenueSinkException {
    try {
      PreparedStatement statement = statement(events.apply());
      statement.setString(1, sink);
      events.bind(statement, 2);
      try (ResultSet row = statement.executeQuery()) {
        long[] counts = new long[Answer.values().length];
        row.next();
        for (int i = 0; i < counts.length; i++) {
          counts[i] = row.getLong(i + 1);
        }
        return new Answers(counts);
      }
    } catch (SQLException e) {
      throw RevenueSinkException.of(e);
    }
  }

  /**
   * Sends events, and asks what became of each.
   *
   * @param events is not changed
   * @return an answer for each event, in their order
   * @throws UnsupportedOperationException if the batch is one of {@link EventBatch#rows}
   * @throws BadEventException if an event is bad and the sink's setting is to fail then
   * @throws RevenueSinkException if that can't be done
   */
  public List<Answer> applyEach(EventBatch events) throws RevenueSinkException {
    try {
      PreparedStatement statement = statement(events.applyEach());
      statement.setString(1, sink);
      events.bind(statement, 2);
      try (ResultSet row = statement.executeQuery()) {
        List<Answer> answers = new ArrayList<>(events.size());
        row.next();
        for (String word : (String[]) row.getArray(1).getArray()) {
          answers.add(Answer.of(word));
        }
        return answers;
      }
    } catch (SQLException e) {
      throw RevenueSinkException.of(e);
    }
  }

  /**
   * Stores where to go on reading.
   *
   * @param source a topic, for one
   * @param next the next offset of each partition
   * @throws RevenueSinkException if that can't be done
   */
  public void storeOffsets(String source, Map<Integer, Long> next) throws RevenueSinkException {
    try {
      Integer[] partitions = next.keySet().toArray(new Integer[0]);
      Long[] offsets = new Long[partitions.length];
      for (int i = 0; i < partitions.length; i++) {
        offsets[i] = next.get(partitions[i]);
      }
      query(
              "SELECT revenue_sink.store_offsets(?, ?, ?, ?)",
              sink,
              source,
              connection.createArrayOf("int4", partitions),
              connection.createArrayOf("int8", offsets))
          .close();
    } catch (SQLException e) {
      throw RevenueSinkException.of(e);
    }
  }

  /**
   * Reads where to go on reading.
   *
   * @param source a topic, for one
   * @return the next offset of each partition; one that isn't there starts from its beginning
   * @throws RevenueSinkException if that can't be read
   */
  public Map<Integer, Long> offsets(String source) throws RevenueSinkException {
    requireNoBatch();
    Map<Integer, Long> next = new HashMap<>();
    try (ResultSet row =
        query("SELECT partition, next_offset FROM revenue_sink.offsets(?, ?)", sink, source)) {
      while (row.next()) {
        next.put(row.getInt(1), row.getLong(2));
      }
      return next;
    } catch (SQLException e) {
      throw RevenueSinkException.of(e);
    }
  }

  /**
   * Commits the open transaction.
   *
   * @throws RevenueSinkException if that can't be done; a {@link RetryableException} leaves open
   *     whether it was: begin the same batch again to learn it
   */
  public void commit() throws RevenueSinkException {
    requireBatch();
    try {
      connection.commit();
      ended();
    } catch (SQLException e) {
      throw RevenueSinkException.of(e);
    }
  }

  /**
   * Rolls the open transaction back, if there is one.
   *
   * @throws RevenueSinkException if that can't be done; the server does it once the connection is
   *     gone
   */
  public void rollback() throws RevenueSinkException {
    if (open) {
      try {
        connection.rollback();
        ended();
      } catch (SQLException e) {
        throw RevenueSinkException.of(e);
      }
    }
  }

  /**
   * Phase one: prepares the open batch. The transaction ends with that, and is held by the server
   * until {@link #commitPrepared} or {@link #rollbackPrepared} decides on it.
   *
   * @return the gid
   * @throws FencedException if the epoch has been fenced off
   * @throws RevenueSinkException if that can't be done
   */
  public String prepare() throws RevenueSinkException {
    String gid = preCommit();
    try (Statement statement = connection.createStatement()) {
      statement.execute("PREPARE TRANSACTION '" + gid.replace("'", "''") + "'");
      ended();
      return gid;
    } catch (SQLException e) {
      throw RevenueSinkException.of(e);
    }
  }

  /**
   * Asks for the gid under which the open batch is to be prepared, and doesn't prepare it: for a
   * program that notes the gid before. {@link #prepare} does both.
   *
   * @return the gid
   * @throws FencedException if the epoch has been fenced off
   * @throws RevenueSinkException if that can't be done
   */
  public String preCommit() throws RevenueSinkException {
    requireBatch();
    try (ResultSet row = query("SELECT revenue_sink.pre_commit(?)", sink)) {
      row.next();
      return row.getString(1);
    } catch (SQLException e) {
      throw RevenueSinkException.of(e);
    }
  }

  /**
   * Phase two of one batch: commits it, if it isn't committed yet. For the sink's owner.
   *
   * @param gid what {@link #prepare} has returned
   * @throws FencedException if the batch's epoch has been fenced off
   * @throws RevenueSinkException if the batch has another outcome (25000), or is unknown (42704)
   */
  public void commitPrepared(String gid) throws RevenueSinkException {
    call("CALL revenue_sink.commit_prepared(?)", gid);
  }

  /**
   * Rolls one prepared batch back, if it isn't yet. For the sink's owner.
   *
   * @param gid what {@link #prepare} has returned
   * @throws RevenueSinkException if the batch has another outcome (25000), or is unknown (42704)
   */
  public void rollbackPrepared(String gid) throws RevenueSinkException {
    call("CALL revenue_sink.rollback_prepared(?)", gid);
  }

  /**
   * Phase two of a whole job: commits what it has prepared up to a checkpoint. For the sink's
   * owner.
   *
   * @param job the application
   * @param checkpoint the checkpoint that is complete
   * @param gids what the job's writers have prepared, or null: then nothing is checked
   * @return on how many batches this call has decided
   * @throws RevenueSinkException if one of the gids can't be committed; nothing is changed then
   */
  public long commitCheckpoint(String job, long checkpoint, Collection<String> gids)
      throws RevenueSinkException {
    try {
      return (Long)
          call(
              "CALL revenue_sink.commit_checkpoint(?, ?, ?, ?, ?)",
              sink,
              job,
              checkpoint,
              gids == null ? null : connection.createArrayOf("text", gids.toArray()),
              null);
    } catch (SQLException e) {
      throw RevenueSinkException.of(e);
    }
  }

  /**
   * Asks what became of a prepared batch.
   *
   * @param gid what {@link #prepare} has returned
   * @return the outcome
   * @throws RevenueSinkException if that can't be read
   */
  public Outcome outcome(String gid) throws RevenueSinkException {
    requireNoBatch();
    try (ResultSet row = query("SELECT revenue_sink.outcome(?)", gid)) {
      row.next();
      return Outcome.of(row.getString(1));
    } catch (SQLException e) {
      throw RevenueSinkException.of(e);
    }
  }

  /**
   * Says whether a batch was begun and neither committed, prepared nor rolled back.
   *
   * @return true within a transaction
   */
  public boolean isBatchOpen() {
    return open;
  }

  /**
   * The connection beneath, for statements of the caller's own. They belong to the open
   * transaction.
   *
   * @return pgjdbc's connection
   */
  public Connection connection() {
    return connection;
  }

  /** Cuts the connection off, amid a call, too. The server rolls the open transaction back. */
  public void abort() {
    try {
      connection.abort(Runnable::run);
    } catch (SQLException e) {
      // it is gone, one way or the other
    }
  }

  /** Closes the connection. An open transaction is rolled back. */
  @Override
  public void close() {
    try {
      connection.close();
    } catch (SQLException e) {
      // it is gone, one way or the other
    }
  }

  private void ended() throws SQLException {
    open = false;
    connection.setAutoCommit(true);
  }

  private void requireBatch() {
    if (!open) {
      throw new IllegalStateException("no batch is open: call beginBatch first");
    }
  }

  private void requireNoBatch() {
    if (open) {
      throw new IllegalStateException(
          "a batch is open: commit it, prepare it or roll it back first");
    }
  }

  private PreparedStatement statement(String sql) throws SQLException {
    PreparedStatement statement = statements.get(sql);
    if (statement == null) {
      statement = connection.prepareStatement(sql);
      statements.put(sql, statement);
    }
    return statement;
  }

  private ResultSet query(String sql, Object... values) throws SQLException {
    PreparedStatement statement = statement(sql);
    set(statement, values);
    return statement.executeQuery();
  }

  /** A CALL, which must stand alone: its one OUT column, or null if it has none. */
  private Object call(String sql, Object... values) throws RevenueSinkException {
    requireNoBatch();
    try {
      PreparedStatement statement = statement(sql);
      set(statement, values);
      if (!statement.execute()) {
        return null;
      }
      try (ResultSet row = statement.getResultSet()) {
        return row.next() ? row.getObject(1) : null;
      }
    } catch (SQLException e) {
      throw RevenueSinkException.of(e);
    }
  }

  /** NULLs go without a type, which the server finds by the function's. */
  private static void set(PreparedStatement statement, Object[] values) throws SQLException {
    for (int i = 0; i < values.length; i++) {
      if (values[i] == null) {
        statement.setNull(i + 1, Types.NULL);
      } else {
        statement.setObject(i + 1, values[i]);
      }
    }
  }
}
