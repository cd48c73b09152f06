package org.revenuesink.flink;

import java.io.Serializable;
import java.time.Duration;
import java.util.Properties;
import org.apache.flink.api.common.TaskInfo;
import org.revenuesink.RevenueSinkException;
import org.revenuesink.SinkConnection;

/** What the builder has gathered; travels with the job. */
final class SinkOptions implements Serializable {
  private static final long serialVersionUID = 1;

  final String url;
  final Properties properties;
  final String sink;
  final String job;
  final int batchSize;
  final Duration giveUp;
  final Duration takeoverDelay;

  /** When the sink was built, which is when the job was submitted: seconds since 1970. */
  final long submitted;

  SinkOptions(RevenueSinkBuilder<?> builder) {
    this.url = builder.url;
    this.properties = new Properties();
    this.properties.putAll(builder.properties);
    this.sink = builder.sink;
    this.job = builder.job;
    this.batchSize = builder.batchSize;
    this.giveUp = builder.giveUp;
    this.takeoverDelay = builder.takeoverDelay;
    this.submitted = System.currentTimeMillis() / 1000;
  }

  /** The role is what the connection is for; pg_stat_activity shows it. */
  SinkConnection connect(TaskInfo task, String role) throws RevenueSinkException {
    Properties all = new Properties();
    all.putAll(properties);
    all.putIfAbsent("ApplicationName", role + " " + task.getIndexOfThisSubtask() + " of " + job);
    all.putIfAbsent("tcpKeepAlive", "true");
    return SinkConnection.open(url, all, sink);
  }

  String describe(String writer) {
    return "writer " + writer + " of job '" + job + "', sink '" + sink + "'";
  }
}
