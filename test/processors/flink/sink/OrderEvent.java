package revenuesink;

import java.math.BigDecimal;

/**
 * One order event. Flink serializes a record as it does a POJO.
 *
 * @param eventTime microseconds since 1970-01-01 UTC
 * @param groupKey may be null
 */
public record OrderEvent(String orderId, String eventId, long eventTime, BigDecimal amount, String groupKey) {
}
