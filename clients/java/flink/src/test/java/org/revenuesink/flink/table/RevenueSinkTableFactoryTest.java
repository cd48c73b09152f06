package org.revenuesink.flink.table;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.api.Schema;
import org.apache.flink.table.api.ValidationException;
import org.apache.flink.table.catalog.CatalogTable;
import org.apache.flink.table.catalog.Column;
import org.apache.flink.table.catalog.ObjectIdentifier;
import org.apache.flink.table.catalog.ResolvedCatalogTable;
import org.apache.flink.table.catalog.ResolvedSchema;
import org.apache.flink.table.connector.ChangelogMode;
import org.apache.flink.table.connector.sink.DynamicTableSink;
import org.apache.flink.table.factories.FactoryUtil;
import org.apache.flink.table.types.DataType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class RevenueSinkTableFactoryTest {
  private static final DataType TIME = DataTypes.TIMESTAMP_LTZ(3);
  private static final DataType AMOUNT = DataTypes.DECIMAL(12, 2);
  private static final DataType TEXT = DataTypes.STRING();

  private static Map<String, String> options() {
    return new HashMap<>(
        Map.of(
            "connector", "revenue-sink",
            "url", "jdbc:postgresql://host/database",
            "sink-name", "orders",
            "job-name", "billing"));
  }

  private static Column[] columns() {
    return new Column[] {
      Column.physical("amount", AMOUNT),
      Column.physical("order_id", TEXT),
      Column.physical("event_time", TIME),
      Column.physical("event_id", TEXT)
    };
  }

  private static DynamicTableSink sink(Map<String, String> options, Column... columns) {
    ResolvedSchema schema = ResolvedSchema.of(columns);
    ObjectIdentifier name = ObjectIdentifier.of("catalog", "database", "orders");
    CatalogTable table =
        CatalogTable.newBuilder()
            .schema(Schema.newBuilder().fromResolvedSchema(schema).build())
            .options(options)
            .build();
    return FactoryUtil.createDynamicTableSink(
        null,
        name,
        new ResolvedCatalogTable(table, schema),
        Map.of(),
        new Configuration(),
        RevenueSinkTableFactoryTest.class.getClassLoader(),
        false);
  }

  /** All messages of an exception and its causes. */
  private static String messages(Throwable e) {
    StringBuilder all = new StringBuilder();
    for (Throwable t = e; t != null; t = t.getCause()) {
      all.append(t.getMessage()).append('\n');
    }
    return all.toString();
  }

  private static void assertRefused(
      String because, Map<String, String> options, Column... columns) {
    String messages =
        messages(assertThrows(ValidationException.class, () -> sink(options, columns)));
    assertTrue(messages.contains(because), messages);
  }

  @Test
  void columnsMayStandInAnyOrder() {
    DynamicTableSink sink = sink(options(), columns());
    assertEquals(ChangelogMode.insertOnly(), sink.getChangelogMode(ChangelogMode.all()));
    assertNotNull(sink.copy().getSinkRuntimeProvider(null));
  }

  @Test
  void allOptionsAreTaken() {
    Map<String, String> options = options();
    options.put("username", "role");
    options.put("password", "secret");
    options.put("sink.delivery", "one-phase");
    options.put("sink.batch-size", "500");
    options.put("sink.give-up-after", "1 min");
    options.put("sink.takeover-delay", "0 s");
    options.put("sink.parallelism", "2");
    options.put("properties.sslmode", "require");
    assertNotNull(sink(options, columns()).getSinkRuntimeProvider(null));
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "sink.delivery|twice|Option 'sink.delivery' must be 'two-phase' or 'one-phase', and is"
            + " 'twice'.",
        "sink.batch-size|0|Option 'sink.batch-size' must be a positive number, and is '0'.",
        "sink.batch-size|many|sink.batch-size",
        "sink.give-up-after|soon|sink.give-up-after",
        "url|host/database|Option 'url' must be an address that begins with jdbc:postgresql:, and"
            + " is 'host/database'.",
        "sink-name|''|Option 'sink-name' must be a name",
        "sink.deliver|two-phase|sink.deliver",
      })
  void badOptionsAreNamed(String key, String value, String because) {
    Map<String, String> options = options();
    options.put(key, value);
    assertRefused(because, options, columns());
  }

  @Test
  void missingOptionsAreNamed() {
    for (String key : List.of("url", "sink-name", "job-name")) {
      Map<String, String> options = options();
      options.remove(key);
      assertRefused(key, options, columns());
    }
  }

  @Test
  void columnsAreChecked() {
    Column[] columns = columns();
    assertRefused("Column 'event_id' is missing.", options(), Arrays.copyOf(columns, 3));
    Column[] more = Arrays.copyOf(columns, 5);
    more[4] = Column.physical("customer", TEXT);
    assertRefused("Column 'customer' is none of an order event", options(), more);
    more[4] = Column.physical("group_key", DataTypes.INT());
    assertRefused("Column 'group_key' is INT, and must be STRING", options(), more);
    columns[2] = Column.physical("event_time", DataTypes.TIMESTAMP(3));
    assertRefused(
        "Column 'event_time' is TIMESTAMP(3), and must be TIMESTAMP_LTZ", options(), columns);
    columns = columns();
    columns[0] = Column.physical("amount", DataTypes.DOUBLE());
    assertRefused("Column 'amount' is DOUBLE, and must be DECIMAL", options(), columns);
  }
}
