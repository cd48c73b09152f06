package revenuesink;

import java.math.BigDecimal;
import java.math.BigInteger;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.Random;

/**
 * Sends events of all sorts through the binary arrays and back: EventBufferCheck
 * JDBC SEED COUNT. They must be the same, to the last decimal.
 */
public final class EventBufferCheck {
	private static final String[] TEXTS = {"order-1", "", "\u00e4\u20ac\ud83d\ude00", "x".repeat(2_000), "\\\"{},NULL"};

	private EventBufferCheck() {
	}

	private static OrderEvent event(Random random) {
		BigInteger digits = new BigInteger(random.nextInt(200), random);

		for (int zeros = random.nextInt(3) * random.nextInt(9); zeros > 0; zeros--)
			digits = digits.multiply(BigInteger.TEN);
		return new OrderEvent(TEXTS[random.nextInt(TEXTS.length)], TEXTS[random.nextInt(TEXTS.length)],
				random.nextLong() % 60_000_000_000_000_000L,
				random.nextInt(20) == 0 ? null
						: new BigDecimal(random.nextBoolean() ? digits : digits.negate(), random.nextInt(60) - 15),
				random.nextBoolean() ? null : TEXTS[random.nextInt(TEXTS.length)]);
	}

	private static String text(BigDecimal amount) {
		return amount == null ? null : (amount.scale() < 0 ? amount.setScale(0) : amount).toPlainString();
	}

	public static void main(String[] args) throws Exception {
		Random random = new Random(Long.parseLong(args[1]));
		Properties properties = new Properties();
		EventBuffer buffer = new EventBuffer();
		List<OrderEvent> events = new ArrayList<>();
		int i = 0;

		properties.setProperty("binaryTransferEnable", EventBuffer.BINARY);
		for (int n = Integer.parseInt(args[2]); n > 0; n--)
			events.add(event(random));
		for (OrderEvent event : events)
			buffer.add(event);
		try (Connection connection = DriverManager.getConnection(args[0], properties);
				PreparedStatement back = connection.prepareStatement("SELECT o, e, (extract(epoch FROM t) * 1000000)::bigint,"
						+ " a::text, g FROM unnest(?::text[], ?::text[], ?::timestamptz[], ?::numeric[], ?::text[])"
						+ " WITH ORDINALITY AS r(o, e, t, a, g, n) ORDER BY n")) {
			buffer.bind(back, 1);
			try (ResultSet row = back.executeQuery()) {
				for (; row.next(); i++) {
					OrderEvent sent = events.get(i);
					String[] was = {sent.orderId(), sent.eventId(), String.valueOf(sent.eventTime()), text(sent.amount()),
							sent.groupKey()};

					for (int column = 0; column < was.length; column++)
						if (!java.util.Objects.equals(was[column], row.getString(column + 1)))
							throw new IllegalStateException("event " + i + ": sent " + was[column] + ", came back "
									+ row.getString(column + 1));
				}
			}
		}
		if (i != events.size())
			throw new IllegalStateException(i + " of " + events.size() + " came back");
	}
}
