import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * A proxy that loses answers: of each so many Produce requests, the broker gets
 * and stores it, and the connection is closed instead of the answer being passed
 * on. The producer can't know, and sends again.
 *
 * Of Kafka's protocol it knows that a message is a length and so many bytes,
 * that a request starts with its kind (16 bits; 0 is Produce), its version and a
 * number (32 bits), and that an answer starts with that number.
 */
final class AnswerCutter {
	private static final short PRODUCE = 0;

	private final ServerSocket listener;
	private final int brokerPort;
	private final int every;
	private final AtomicInteger answers = new AtomicInteger();
	private final AtomicInteger cut = new AtomicInteger();

	AnswerCutter(int port, int brokerPort, int every) throws IOException {
		this.listener = new ServerSocket(port, 50, InetAddress.getByName("127.0.0.1"));
		this.brokerPort = brokerPort;
		this.every = every;
		daemon(this::accept);
	}

	int cut() {
		return cut.get();
	}

	private static void daemon(Runnable work) {
		Thread thread = new Thread(work);

		thread.setDaemon(true);
		thread.start();
	}

	private void accept() {
		for (;;) {
			try {
				connect(listener.accept());
			} catch (IOException e) {
				throw new IllegalStateException(e);
			}
		}
	}

	private void connect(Socket client) throws IOException {
		Set<Integer> produce = ConcurrentHashMap.newKeySet();
		Socket broker;

		try {
			broker = new Socket("127.0.0.1", brokerPort);
		} catch (IOException e) {
			client.close(); // the client sees what we have seen
			return;
		}
		daemon(() -> pass(client, broker, message -> {
			if (message.getShort(0) == PRODUCE)
				produce.add(message.getInt(4));
			return true;
		}));
		daemon(() -> pass(broker, client, message -> !produce.remove(message.getInt(0)) || !isToBeCut()));
	}

	private boolean isToBeCut() {
		if (answers.incrementAndGet() % every != 0)
			return false;
		cut.incrementAndGet();
		return true;
	}

	private interface Filter {
		boolean passes(ByteBuffer message);
	}

	/** Pass messages on until one doesn't pass, or either side hangs up. */
	private static void pass(Socket from, Socket to, Filter filter) {
		try (from; to) {
			DataInputStream in = new DataInputStream(from.getInputStream());
			DataOutputStream out = new DataOutputStream(to.getOutputStream());

			for (;;) {
				ByteBuffer message = ByteBuffer.allocate(4 + in.readInt());

				in.readFully(message.array(), 4, message.capacity() - 4);
				message.putInt(0, message.capacity() - 4);
				if (!filter.passes(message.slice(4, message.capacity() - 4)))
					return;
				out.write(message.array());
			}
		} catch (IOException e) {
			// an end of either side is an end of both
		}
	}
}
