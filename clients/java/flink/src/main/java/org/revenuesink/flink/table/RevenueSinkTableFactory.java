package org.revenuesink.flink.table;

import java.time.Duration;
import java.util.Map;
import java.util.Set;
import org.apache.flink.configuration.ConfigOption;
import org.apache.flink.configuration.ReadableConfig;
import org.apache.flink.table.api.ValidationException;
import org.apache.flink.table.connector.sink.DynamicTableSink;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.factories.DynamicTableSinkFactory;
import org.apache.flink.table.factories.FactoryUtil;
import org.revenuesink.flink.Delivery;
import org.revenuesink.flink.RevenueSink;
import org.revenuesink.flink.RevenueSinkBuilder;

/** Makes sinks for tables {@code WITH ('connector' = 'revenue-sink', ...)}. */
public final class RevenueSinkTableFactory implements DynamicTableSinkFactory {
  /** The connector's name. */
  public static final String IDENTIFIER = "revenue-sink";

  /** Flink makes one by META-INF/services. */
  public RevenueSinkTableFactory() {}

  @Override
  public String factoryIdentifier() {
    return IDENTIFIER;
  }

  @Override
  public Set<ConfigOption<?>> requiredOptions() {
    return Set.of(
        RevenueSinkConnectorOptions.URL,
        RevenueSinkConnectorOptions.SINK_NAME,
        RevenueSinkConnectorOptions.JOB_NAME);
  }

  @Override
  public Set<ConfigOption<?>> optionalOptions() {
    return Set.of(
        RevenueSinkConnectorOptions.USERNAME,
        RevenueSinkConnectorOptions.PASSWORD,
        RevenueSinkConnectorOptions.DELIVERY,
        RevenueSinkConnectorOptions.BATCH_SIZE,
        RevenueSinkConnectorOptions.GIVE_UP,
        RevenueSinkConnectorOptions.TAKEOVER_DELAY,
        FactoryUtil.SINK_PARALLELISM);
  }

  @Override
  public DynamicTableSink createDynamicTableSink(Context context) {
    FactoryUtil.TableFactoryHelper helper = FactoryUtil.createTableFactoryHelper(this, context);
    helper.validateExcept(RevenueSinkConnectorOptions.PROPERTIES);
    ReadableConfig options = helper.getOptions();
    RevenueSinkBuilder<RowData> builder = RevenueSink.<RowData>builder();

    String url = options.get(RevenueSinkConnectorOptions.URL);
    check(
        url.startsWith("jdbc:postgresql:"),
        RevenueSinkConnectorOptions.URL,
        url,
        "an address that begins with jdbc:postgresql:");
    builder.setUrl(url);
    builder.setSinkName(name(options, RevenueSinkConnectorOptions.SINK_NAME));
    builder.setJobName(name(options, RevenueSinkConnectorOptions.JOB_NAME));
    options.getOptional(RevenueSinkConnectorOptions.USERNAME).ifPresent(builder::setUsername);
    options.getOptional(RevenueSinkConnectorOptions.PASSWORD).ifPresent(builder::setPassword);
    builder.setDelivery(delivery(options.get(RevenueSinkConnectorOptions.DELIVERY)));
    int batch = options.get(RevenueSinkConnectorOptions.BATCH_SIZE);
    check(batch > 0, RevenueSinkConnectorOptions.BATCH_SIZE, batch, "a positive number");
    builder.setBatchSize(batch);
    builder.setGiveUpAfter(duration(options, RevenueSinkConnectorOptions.GIVE_UP));
    builder.setTakeoverDelay(duration(options, RevenueSinkConnectorOptions.TAKEOVER_DELAY));
    for (Map.Entry<String, String> option : context.getCatalogTable().getOptions().entrySet()) {
      if (option.getKey().startsWith(RevenueSinkConnectorOptions.PROPERTIES)) {
        builder.setProperty(
            option.getKey().substring(RevenueSinkConnectorOptions.PROPERTIES.length()),
            option.getValue());
      }
    }
    return new RevenueTableSink(
        builder,
        RowEncoder.of(context.getCatalogTable().getResolvedSchema()),
        options.getOptional(FactoryUtil.SINK_PARALLELISM).orElse(null));
  }

  private static String name(ReadableConfig options, ConfigOption<String> option) {
    String name = options.get(option);
    check(!name.isEmpty(), option, name, "a name");
    return name;
  }

  private static Duration duration(ReadableConfig options, ConfigOption<Duration> option) {
    Duration duration = options.get(option);
    check(!duration.isNegative(), option, duration, "a duration that isn't negative");
    return duration;
  }

  private static Delivery delivery(String word) {
    check(
        word.equals("two-phase") || word.equals("one-phase"),
        RevenueSinkConnectorOptions.DELIVERY,
        word,
        "'two-phase' or 'one-phase'");
    return word.equals("two-phase") ? Delivery.TWO_PHASE : Delivery.ONE_PHASE;
  }

  private static void check(boolean ok, ConfigOption<?> option, Object value, String wanted) {
    if (!ok) {
      throw new ValidationException(
          "Option '" + option.key() + "' must be " + wanted + ", and is '" + value + "'.");
    }
  }
}
