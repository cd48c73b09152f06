package org.revenuesink.flink;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.time.Duration;
import org.apache.flink.api.connector.sink2.SupportsCommitter;
import org.apache.flink.util.InstantiationUtil;
import org.junit.jupiter.api.Test;

class RevenueSinkBuilderTest {
  private static RevenueSinkBuilder<String> complete() {
    return RevenueSink.<String>builder()
        .setUrl("jdbc:postgresql://host/database")
        .setUsername("role")
        .setPassword("secret")
        .setProperty("sslmode", "require")
        .setSinkName("orders")
        .setJobName("billing")
        .setEncoder((text, batch) -> {});
  }

  @Test
  void aSinkTravels() throws Exception {
    RevenueSink<String> sink = InstantiationUtil.clone(complete().build());
    assertEquals("orders", sink.options.sink);
    assertEquals("require", sink.options.properties.getProperty("sslmode"));
    assertTrue(sink instanceof SupportsCommitter);
    assertFalse(complete().setDelivery(Delivery.ONE_PHASE).build() instanceof SupportsCommitter);
  }

  @Test
  void whatIsMissingIsNamed() {
    IllegalStateException e =
        assertThrows(IllegalStateException.class, () -> RevenueSink.<String>builder().build());
    assertTrue(e.getMessage().contains("setUrl"), e.getMessage());
    e = assertThrows(IllegalStateException.class, () -> complete().setJobName("").build());
    assertTrue(e.getMessage().contains("setJobName"), e.getMessage());
    e = assertThrows(IllegalStateException.class, () -> complete().setUrl("host/database").build());
    assertTrue(e.getMessage().contains("jdbc:postgresql:"), e.getMessage());
  }

  @Test
  void numbersAreChecked() {
    assertThrows(IllegalArgumentException.class, () -> complete().setBatchSize(0));
    assertThrows(
        IllegalArgumentException.class, () -> complete().setGiveUpAfter(Duration.ofSeconds(-1)));
    assertThrows(
        IllegalArgumentException.class, () -> complete().setTakeoverDelay(Duration.ofSeconds(-1)));
  }

  @Test
  void durationsHaveTheirQuantiles() {
    Durations durations = new Durations();
    assertEquals(0, durations.getStatistics().getMax());
    for (int i = 1; i <= 200; i++) {
      durations.update(i);
    }
    assertEquals(200, durations.getCount());
    assertEquals(128, durations.getStatistics().size());
    assertEquals(73, durations.getStatistics().getMin());
    assertEquals(200, durations.getStatistics().getQuantile(1));
    assertEquals(136, durations.getStatistics().getQuantile(0.5));
  }
}
