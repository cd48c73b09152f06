package org.revenuesink;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Properties;

/**
 * The server that the tests run against: REVENUE_SINK_URL names it. Its role must be a superuser,
 * and it needs max_prepared_transactions. Without the variable these tests are skipped, and say so;
 * with REVENUE_SINK_REQUIRED they fail.
 */
final class Server {
  private Server() {}

  static String url() {
    String url = System.getenv("REVENUE_SINK_URL");
    if (System.getenv("REVENUE_SINK_REQUIRED") != null && url == null) {
      throw new IllegalStateException("REVENUE_SINK_URL is missing");
    }
    assumeTrue(url != null, "REVENUE_SINK_URL names no server: test/clients/run starts one");
    return url;
  }

  /** A sink that has no past. */
  static void newSink(String name, String more) throws SQLException {
    run("CREATE EXTENSION IF NOT EXISTS revenue_sink");
    run("SELECT revenue_sink.drop_sink(sink) FROM revenue_sink.sink WHERE sink = '" + name + "'");
    run(
        String.format(
            "SELECT revenue_sink.create_sink('%s', 'fact_%s', 'ingest_%s'%s)",
            name, name, name, more));
  }

  static SinkConnection connect(String sink) throws SQLException {
    return SinkConnection.open(url(), new Properties(), sink);
  }

  static void run(String sql) throws SQLException {
    try (Connection c = DriverManager.getConnection(url());
        Statement s = c.createStatement()) {
      s.execute(sql);
    }
  }

  /** All rows, as text: columns are separated by |, rows by a blank. */
  static String query(String sql) throws SQLException {
    StringBuilder text = new StringBuilder();
    try (Connection c = DriverManager.getConnection(url());
        Statement s = c.createStatement();
        ResultSet row = s.executeQuery(sql)) {
      while (row.next()) {
        text.append(text.length() == 0 ? "" : " ");
        for (int i = 1; i <= row.getMetaData().getColumnCount(); i++) {
          text.append(i == 1 ? "" : "|").append(row.getString(i));
        }
      }
    }
    return text.toString();
  }

  static void assertFact(String expected, String sink) throws SQLException {
    assertEquals(expected, query("SELECT sum(revenue), sum(events) FROM fact_" + sink));
    assertEquals("", query("SELECT * FROM revenue_sink.check('" + sink + "')"));
  }
}
