package revenuesink;

import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.sql.Types;
import org.postgresql.util.PGBinaryObject;
import org.postgresql.util.PGobject;

/**
 * Events as PostgreSQL's binary arrays, a column each: written as they come, so
 * that no event outlives its write(), and sent as they are.
 */
final class EventBuffer {
	/** The arrays' types, which the driver must be told to send in binary. */
	static final String BINARY = "1009,1185,1231";

	private final Column orderId = new Column("text[]", 25);
	private final Column eventId = new Column("text[]", 25);
	private final Column eventTime = new Column("timestamptz[]", 1184);
	private final Column amount = new Column("numeric[]", 1700);
	private final Column groupKey = new Column("text[]", 25);
	private final Column[] columns = {orderId, eventId, eventTime, amount, groupKey};
	private int rows;

	int rows() {
		return rows;
	}

	void add(OrderEvent event) {
		orderId.addText(event.orderId());
		eventId.addText(event.eventId());
		eventTime.addTime(event.eventTime());
		amount.addNumeric(event.amount());
		groupKey.addText(event.groupKey());
		rows++;
	}

	/** As the parameters from FIRST on. Events without a group have no array of them. */
	void bind(PreparedStatement statement, int first) throws SQLException {
		for (int i = 0; i < columns.length; i++)
			statement.setObject(first + i, columns[i].finished(rows));
		if (groupKey.nulls == rows)
			statement.setNull(first + columns.length - 1, Types.ARRAY, groupKey.getType());
	}

	void clear() {
		rows = 0;
		for (Column column : columns)
			column.clear();
	}

	/** One dimension, NULLs or none, the element's type, length, lower bound; then each element's size and bytes. */
	private static final class Column extends PGobject implements PGBinaryObject {
		private static final long serialVersionUID = 1;
		private static final int HEADER = 20;
		private static final long MICROS_TO_2000 = 946_684_800_000_000L;
		private static final BigInteger BASE = BigInteger.valueOf(10_000);
		private static final int[] POWER = {1, 10, 100, 1_000};

		private final int element;
		private transient ByteBuffer bytes = ByteBuffer.allocate(1 << 16).position(HEADER);
		private transient short[] few = new short[5];
		private int nulls;

		@SuppressWarnings("this-escape")
		Column(String type, int element) {
			setType(type);
			this.element = element;
		}

		void clear() {
			bytes.clear().position(HEADER);
			nulls = 0;
		}

		Column finished(int rows) {
			bytes.putInt(0, 1).putInt(4, nulls > 0 ? 1 : 0).putInt(8, element).putInt(12, rows).putInt(16, 1);
			return this;
		}

		/** Room for an element and its size. */
		private ByteBuffer room(int size) {
			if (bytes.remaining() < 4 + size)
				bytes = ByteBuffer.allocate(2 * bytes.capacity() + size).put(bytes.flip());
			return bytes;
		}

		private void addNull() {
			room(0).putInt(-1);
			nulls++;
		}

		void addText(String text) {
			if (text == null) {
				addNull();
			} else {
				byte[] utf8 = text.getBytes(StandardCharsets.UTF_8);

				room(utf8.length).putInt(utf8.length).put(utf8);
			}
		}

		void addTime(long micros) {
			room(8).putInt(8).putLong(micros - MICROS_TO_2000);
		}

		/** How many digits of base 10,000, weight of the first, sign, decimals; and the digits, aligned at the point. */
		void addNumeric(BigDecimal value) {
			if (value == null) {
				addNull();
				return;
			}
			int decimals = Math.max(value.scale(), 0);
			int fraction = (decimals + 3) / 4;
			short[] digits = few;
			int count = 0;
			long rest;

			if (value.scale() >= 0 && value.precision() <= 15) {
				rest = Math.abs(value.scaleByPowerOfTen(decimals).longValue()) * POWER[4 * fraction - decimals];
			} else {
				BigInteger much = value.setScale(4 * fraction).unscaledValue().abs();

				digits = new short[much.bitLength() / 13 + 1]; // of 13 bits and some each
				for (; much.bitLength() > 62; much = much.divide(BASE))
					digits[count++] = much.mod(BASE).shortValue();
				rest = much.longValue();
			}
			for (; rest > 0; rest /= 10_000)
				digits[count++] = (short) (rest % 10_000);
			room(8 + 2 * count).putInt(8 + 2 * count).putShort((short) count).putShort((short) (count - fraction - 1))
					.putShort((short) (value.signum() < 0 ? 0x4000 : 0)).putShort((short) decimals);
			while (count > 0)
				bytes.putShort(digits[--count]);
		}

		@Override
		public int lengthInBytes() {
			return bytes.position();
		}

		@Override
		public void toBytes(byte[] target, int offset) {
			System.arraycopy(bytes.array(), 0, target, offset, bytes.position());
		}

		@Override
		public void setByteValue(byte[] value, int offset) {
			throw new UnsupportedOperationException("arrays are only sent");
		}
	}
}
