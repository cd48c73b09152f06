package revenuesink.test;

import java.math.BigDecimal;

/**
 * What the topic has. Flink serializes a record as it does a POJO.
 *
 * @param eventTime microseconds since 1970-01-01 UTC
 */
public record OrderEvent(String orderId, String eventId, long eventTime, BigDecimal amount) {
}
