package revenuesink.test;

import org.apache.flink.api.common.functions.RichMapFunction;

/** Lets so many events a second pass, so that there is a middle of the stream. */
final class Throttle extends RichMapFunction<OrderEvent, OrderEvent> {
	private static final long serialVersionUID = 1;
	private static final int STEPS = 50; // a second

	private final int perStep;
	private transient long step;
	private transient int passed;

	Throttle(int perSecond) {
		this.perStep = Math.max(1, perSecond / STEPS);
	}

	@Override
	public OrderEvent map(OrderEvent event) throws InterruptedException {
		long now = System.nanoTime() * STEPS / 1_000_000_000;

		if (now != step) {
			step = now;
			passed = 0;
		}
		if (++passed > perStep) {
			Thread.sleep(1000 / STEPS - System.nanoTime() / 1_000_000 % (1000 / STEPS));
			step = System.nanoTime() * STEPS / 1_000_000_000;
			passed = 1;
		}
		return event;
	}
}
