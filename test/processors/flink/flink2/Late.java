package revenuesink.test;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Collection;
import java.util.List;
import org.apache.flink.api.connector.sink2.Committer;
import org.apache.flink.api.connector.sink2.CommitterInitContext;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.api.connector.sink2.StatefulSinkWriter;
import org.apache.flink.api.connector.sink2.SupportsCommitter;
import org.apache.flink.api.connector.sink2.SupportsWriterState;
import org.apache.flink.api.connector.sink2.WriterInitContext;
import org.apache.flink.core.io.SimpleVersionedSerializer;
import org.revenuesink.flink.Delivery;
import org.revenuesink.flink.Incarnation;
import org.revenuesink.flink.RevenueSink;

/**
 * The two-phase sink, whose very first attempt of subtask 0 halts before the sink's first line. It
 * writes its pid into FILE.at (--late FILE), goes on when FILE is there, however often it is
 * interrupted, and writes into FILE.result what has become of it.
 */
final class Late implements Sink<OrderEvent>, SupportsCommitter<String>, SupportsWriterState<OrderEvent, Incarnation> {
	private static final long serialVersionUID = 1;

	private final RevenueSink<OrderEvent> sink;
	private final String file;

	private Late(RevenueSink<OrderEvent> sink, String file) {
		this.sink = sink;
		this.file = file;
	}

	static Sink<OrderEvent> sink(Arguments given) {
		return new Late(RevenueJob.revenue(given, Delivery.TWO_PHASE), given.get("late"));
	}

	@Override
	public StatefulSinkWriter<OrderEvent, Incarnation> createWriter(WriterInitContext context) throws IOException {
		return restoreWriter(context, List.of());
	}

	@Override
	public StatefulSinkWriter<OrderEvent, Incarnation> restoreWriter(WriterInitContext context,
			Collection<Incarnation> states) throws IOException {
		Path at = Path.of(file + ".at");

		if (context.getTaskInfo().getIndexOfThisSubtask() != 0 || Files.exists(at))
			return sink.restoreWriter(context, states);
		Files.writeString(Path.of(file + ".new"), Long.toString(ProcessHandle.current().pid()));
		Files.move(Path.of(file + ".new"), at);
		while (!Files.exists(Path.of(file))) {
			try {
				Thread.sleep(20);
			} catch (InterruptedException e) {
				// Flink would end it: it is halted
			}
		}
		try {
			StatefulSinkWriter<OrderEvent, Incarnation> writer = sink.restoreWriter(context, states);

			tell("opened");
			return writer;
		} catch (IOException | RuntimeException e) {
			tell(e + ", since " + e.getCause());
			throw e;
		}
	}

	private void tell(String result) throws IOException {
		Files.writeString(Path.of(file + ".new"), result.replace('\n', ' ') + "\n");
		Files.move(Path.of(file + ".new"), Path.of(file + ".result"));
	}

	@Override
	public SimpleVersionedSerializer<Incarnation> getWriterStateSerializer() {
		return sink.getWriterStateSerializer();
	}

	@Override
	@SuppressWarnings("unchecked")
	public Committer<String> createCommitter(CommitterInitContext context) throws IOException {
		return ((SupportsCommitter<String>) sink).createCommitter(context);
	}

	@Override
	@SuppressWarnings("unchecked")
	public SimpleVersionedSerializer<String> getCommittableSerializer() {
		return ((SupportsCommitter<String>) sink).getCommittableSerializer();
	}
}
