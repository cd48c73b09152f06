package org.revenuesink.flink.table;

import java.time.Duration;
import org.apache.flink.configuration.ConfigOption;
import org.apache.flink.configuration.ConfigOptions;
import org.apache.flink.configuration.description.Description;

/** The options of the connector. */
public final class RevenueSinkConnectorOptions {
  /** Where the server is. */
  public static final ConfigOption<String> URL =
      ConfigOptions.key("url")
          .stringType()
          .noDefaultValue()
          .withDescription("The JDBC address, jdbc:postgresql://host/database.");

  /** The role that writes. */
  public static final ConfigOption<String> USERNAME =
      ConfigOptions.key("username")
          .stringType()
          .noDefaultValue()
          .withDescription("The role that writes; in two phases, the sink's owner.");

  /** The role's password. */
  public static final ConfigOption<String> PASSWORD =
      ConfigOptions.key("password")
          .stringType()
          .noDefaultValue()
          .withDescription("The role's password.");

  /** The sink in the database. */
  public static final ConfigOption<String> SINK_NAME =
      ConfigOptions.key("sink-name")
          .stringType()
          .noDefaultValue()
          .withDescription("The sink, as create_sink has named it.");

  /** The job in the database. */
  public static final ConfigOption<String> JOB_NAME =
      ConfigOptions.key("job-name")
          .stringType()
          .noDefaultValue()
          .withDescription(
              "The name under which the database knows this INSERT. It stays the same in a new"
                  + " submission, and each INSERT into the sink has another one.");

  /** When readers see events. */
  public static final ConfigOption<String> DELIVERY =
      ConfigOptions.key("sink.delivery")
          .stringType()
          .defaultValue("two-phase")
          .withDescription(
              Description.builder()
                  .text(
                      "'two-phase': readers see whole checkpoints; 'one-phase': they see events at"
                          + " once.")
                  .build());

  /** How many events go with one call. */
  public static final ConfigOption<Integer> BATCH_SIZE =
      ConfigOptions.key("sink.batch-size")
          .intType()
          .defaultValue(10_000)
          .withDescription("How many events go with one call.");

  /** For how long a commit is repeated. */
  public static final ConfigOption<Duration> GIVE_UP =
      ConfigOptions.key("sink.give-up-after")
          .durationType()
          .defaultValue(Duration.ofSeconds(30))
          .withDescription("For how long a commit whose answer is lost is repeated.");

  /** For how long a subtask waits that can't tell whether it is the later one. */
  public static final ConfigOption<Duration> TAKEOVER_DELAY =
      ConfigOptions.key("sink.takeover-delay")
          .durationType()
          .defaultValue(Duration.ofSeconds(10))
          .withDescription(
              "For how long a subtask waits that can't tell whether it or the writer's holder is"
                  + " the later one.");

  /** Properties of pgjdbc begin with this. */
  public static final String PROPERTIES = "properties.";

  private RevenueSinkConnectorOptions() {}
}
