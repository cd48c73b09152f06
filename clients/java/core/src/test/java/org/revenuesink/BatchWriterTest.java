package org.revenuesink;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.math.BigDecimal;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.sql.SQLException;
import java.time.Duration;
import java.time.Instant;
import java.util.Map;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

class BatchWriterTest {
  private static final String SINK = "writer_test";

  @BeforeEach
  void sink() throws SQLException {
    Server.newSink(SINK, "");
  }

  private static EventBatch event(String id, int amount) {
    EventBatch batch = EventBatch.arrays();
    batch.add(
        "order", id, Instant.parse("2024-03-01T12:00:00Z"), BigDecimal.valueOf(amount), "web");
    return batch;
  }

  private static BatchWriter.Builder writer(String url) {
    return BatchWriter.builder(url, SINK)
        .job("billing")
        .writer("w")
        .giveUpAfter(Duration.ofSeconds(20));
  }

  @Test
  void eventsAndOffsetsInOneTransaction() throws Exception {
    try (BatchWriter writer = writer(Server.url()).build()) {
      assertThrows(IllegalStateException.class, () -> writer.write(event("e", 1)));
      writer.open();
      assertEquals(Map.of(), writer.offsets("payments"));
      assertEquals(
          1, writer.write(event("e", 1), "payments", Map.of(0, 1L)).get().count(Answer.APPLIED));
      assertEquals(1, writer.write(event("e", 1)).get().count(Answer.DUPLICATE));
      assertEquals(Map.of(0, 1L), writer.offsets("payments"));
    }
    Server.assertFact("1|1", SINK);
  }

  @Test
  void aFailedBatchMayBeWrittenAgain() throws Exception {
    try (BatchWriter writer = writer(Server.url()).build()) {
      writer.open(5);
      assertThrows(BadEventException.class, () -> writer.write(event("", 1)));
      writer.write(event("e", 2));
      try (BatchWriter successor = writer(Server.url()).build()) {
        successor.open(6);
        assertThrows(FencedException.class, () -> writer.write(event("f", 4)));
        assertThrows(FencedException.class, () -> writer.open(5));
      }
    }
    Server.assertFact("2|1", SINK);
  }

  /**
   * A proxy cuts the connection off when the COMMIT's answer comes: the batch is there all the
   * same.
   */
  @Test
  void aLostAnswerCountsOnce() throws Exception {
    try (Proxy proxy = new Proxy()) {
      try (BatchWriter writer = writer(proxy.url()).build()) {
        writer.open();
        writer.write(event("e", 1));
        proxy.loseAnswerToCommit.set(true);
        assertTrue(writer.write(event("f", 2)).isEmpty());
        assertEquals(1, writer.write(event("g", 4)).get().count(Answer.APPLIED));
      }
      assertTrue(proxy.hasLost.get());
    }
    Server.assertFact("7|3", SINK);
  }

  @Test
  void withoutAServerItGivesUp() throws Exception {
    Server.url();
    int port;
    try (ServerSocket somebody = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
      port = somebody.getLocalPort();
    }
    try (BatchWriter writer =
        writer("jdbc:postgresql://127.0.0.1:" + port + "/x").giveUpAfter(Duration.ZERO).build()) {
      assertThrows(RetryableException.class, () -> writer.open());
    }
  }

  /** Between the driver and the server. */
  private static final class Proxy implements AutoCloseable {
    final AtomicBoolean loseAnswerToCommit = new AtomicBoolean();
    final AtomicBoolean hasLost = new AtomicBoolean();
    private final ServerSocket door = new ServerSocket(0, 10, InetAddress.getLoopbackAddress());
    private final String host;
    private final int port;

    Proxy() throws IOException {
      String[] address = Server.url().replaceFirst("jdbc:postgresql://([^/]*)/.*", "$1").split(":");
      host = address[0];
      port = address.length > 1 ? Integer.parseInt(address[1]) : 5432;
      start(
          () -> {
            while (true) {
              Socket client = door.accept();
              Socket server = new Socket(host, port);
              start(() -> copy(client, server, false));
              start(() -> copy(server, client, true));
            }
          });
    }

    String url() {
      return Server.url().replaceFirst("//[^/]*/", "//127.0.0.1:" + door.getLocalPort() + "/");
    }

    private interface Work {
      void run() throws IOException;
    }

    private static void start(Work work) {
      Thread thread =
          new Thread(
              () -> {
                try {
                  work.run();
                } catch (IOException e) {
                  // one of them is gone
                }
              });
      thread.setDaemon(true);
      thread.start();
    }

    private void copy(Socket from, Socket to, boolean answers) throws IOException {
      byte[] bytes = new byte[1 << 16];
      try (from;
          to) {
        InputStream in = from.getInputStream();
        OutputStream out = to.getOutputStream();
        for (int n; (n = in.read(bytes)) > 0; out.write(bytes, 0, n)) {
          if (answers
              && new String(bytes, 0, n, StandardCharsets.ISO_8859_1).contains("COMMIT\0")
              && loseAnswerToCommit.compareAndSet(true, false)) {
            hasLost.set(true);
            return;
          }
        }
      }
    }

    @Override
    public void close() throws IOException {
      door.close();
    }
  }
}
