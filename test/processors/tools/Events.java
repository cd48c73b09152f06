import java.math.BigDecimal;

/**
 * Event number i, the same whenever it's asked for: so a producer can send any
 * range of them again. A value is order_id,event_id,event_time,amount.
 */
final class Events {
	private static final int MINUTES = 90;

	private Events() {
	}

	/** Three events an order; an order is the key, so they share a partition. */
	static String order(long i) {
		return "order-" + i / 3;
	}

	static long second(long i) {
		return i * 7919 % (MINUTES * 60);
	}

	/** Refunds among them: from -19.99 to 180. */
	static BigDecimal amount(long i) {
		return BigDecimal.valueOf(i * 10007 % 20000 - 1999, 2);
	}

	static String value(long i) {
		long s = second(i);

		return String.format("%s,evt-%d,2024-03-01T%02d:%02d:%02dZ,%s", order(i), i % 3,
				10 + s / 3600, s / 60 % 60, s % 60, amount(i));
	}
}
