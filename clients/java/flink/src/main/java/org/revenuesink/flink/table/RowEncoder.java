package org.revenuesink.flink.table;

import java.math.BigDecimal;
import java.util.Arrays;
import java.util.List;
import org.apache.flink.table.api.ValidationException;
import org.apache.flink.table.catalog.Column;
import org.apache.flink.table.catalog.ResolvedSchema;
import org.apache.flink.table.data.DecimalData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.TimestampData;
import org.apache.flink.table.types.logical.DecimalType;
import org.apache.flink.table.types.logical.LocalZonedTimestampType;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.LogicalTypeFamily;
import org.apache.flink.table.types.logical.LogicalTypeRoot;
import org.revenuesink.EventBatch;
import org.revenuesink.flink.EventEncoder;

/** Rows of a table to events; columns are found by their names, in whatever order they stand. */
final class RowEncoder implements EventEncoder<RowData> {
  private static final long serialVersionUID = 1;
  private static final List<String> COLUMNS =
      Arrays.asList("order_id", "event_id", "event_time", "amount", "group_key");

  private final int orderId;
  private final int eventId;
  private final int eventTime;
  private final int amount;
  private final int groupKey;
  private final int timePrecision;
  private final LogicalTypeRoot amountRoot;
  private final int amountPrecision;
  private final int amountScale;

  private RowEncoder(int[] at, LogicalType time, LogicalType revenue) {
    this.orderId = at[0];
    this.eventId = at[1];
    this.eventTime = at[2];
    this.amount = at[3];
    this.groupKey = at[4];
    this.timePrecision = ((LocalZonedTimestampType) time).getPrecision();
    this.amountRoot = revenue.getTypeRoot();
    this.amountPrecision =
        revenue instanceof DecimalType ? ((DecimalType) revenue).getPrecision() : 0;
    this.amountScale = revenue instanceof DecimalType ? ((DecimalType) revenue).getScale() : 0;
  }

  static RowEncoder of(ResolvedSchema schema) {
    int[] at = {-1, -1, -1, -1, -1};
    LogicalType[] types = new LogicalType[at.length];
    int i = 0;
    for (Column column : schema.getColumns()) {
      if (!column.isPersisted()) {
        continue;
      }
      int which = COLUMNS.indexOf(column.getName());
      if (which < 0) {
        throw new ValidationException(
            "Column '"
                + column.getName()
                + "' is none of an order event, whose columns are "
                + COLUMNS
                + ".");
      }
      at[which] = i++;
      types[which] = column.getDataType().getLogicalType();
    }
    for (int which = 0; which < 4; which++) {
      if (at[which] < 0) {
        throw new ValidationException("Column '" + COLUMNS.get(which) + "' is missing.");
      }
    }
    for (int which : new int[] {0, 1, 4}) {
      if (types[which] != null) {
        require(types[which].is(LogicalTypeFamily.CHARACTER_STRING), which, types[which], "STRING");
      }
    }
    require(
        types[2].is(LogicalTypeRoot.TIMESTAMP_WITH_LOCAL_TIME_ZONE),
        2,
        types[2],
        "TIMESTAMP_LTZ, since an event's time is an instant. CAST a TIMESTAMP in the query, or read"
            + " it as TIMESTAMP_LTZ");
    require(
        types[3].is(LogicalTypeRoot.DECIMAL) || types[3].is(LogicalTypeFamily.INTEGER_NUMERIC),
        3,
        types[3],
        "DECIMAL or an integer, since sums are exact");
    return new RowEncoder(at, types[2], types[3]);
  }

  private static void require(boolean ok, int which, LogicalType type, String wanted) {
    if (!ok) {
      throw new ValidationException(
          "Column '"
              + COLUMNS.get(which)
              + "' is "
              + type.asSummaryString()
              + ", and must be "
              + wanted
              + ".");
    }
  }

  @Override
  public void encode(RowData row, EventBatch batch) {
    batch.addUtf8(
        text(row, orderId), text(row, eventId), time(row), revenue(row), text(row, groupKey));
  }

  private static byte[] text(RowData row, int at) {
    return at < 0 || row.isNullAt(at) ? null : row.getString(at).toBytes();
  }

  private long time(RowData row) {
    if (row.isNullAt(eventTime)) {
      return EventBatch.NO_TIME;
    }
    TimestampData time = row.getTimestamp(eventTime, timePrecision);
    return Math.addExact(
        Math.multiplyExact(time.getMillisecond(), 1_000L), time.getNanoOfMillisecond() / 1_000);
  }

  private BigDecimal revenue(RowData row) {
    if (row.isNullAt(amount)) {
      return null;
    }
    switch (amountRoot) {
      case TINYINT:
        return BigDecimal.valueOf(row.getByte(amount));
      case SMALLINT:
        return BigDecimal.valueOf(row.getShort(amount));
      case INTEGER:
        return BigDecimal.valueOf(row.getInt(amount));
      case BIGINT:
        return BigDecimal.valueOf(row.getLong(amount));
      default:
        DecimalData decimal = row.getDecimal(amount, amountPrecision, amountScale);
        return decimal.toBigDecimal();
    }
  }
}
