/*-------------------------------------------------------------------------
 *
 * amount.c
 *	  Exact sums of numeric amounts, without a numeric operation per event.
 *
 * numeric_add() costs an allocation and some 60 ns, which is a large part of
 * what a whole event may cost. Nearly all amounts of money fit into 128 bits as
 * integers in units of 10^-8, so these are added as integers, and the sum is
 * converted to numeric once per group. Other amounts are added by numeric_add().
 * The result equals the sum by numeric_add() to the last digit, and in its scale.
 *
 * The digits are read from numeric's on-disk format: base-10000 digits behind a
 * header of one or two 16-bit words. PostgreSQL can't change that format, because
 * pg_upgrade keeps the files of tables as they are.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "port/pg_bswap.h"
#include "utils/builtins.h"

#include "core/compat.h"
#include "revenue/amount.h"

#define DIGIT_BASE		10000
#define FRACTION_DIGITS 2		/* base-10000 digits behind the point */
#define FRACTION_SCALE	8		/* decimal digits behind the point */
#define MAX_WEIGHT		4		/* amounts below 10^20; 10^10 of them fit 128 bits */
#define HUGE_WEIGHT		25		/* amounts of 10^100 and more */

/* The short form of numeric's header, one 16-bit word. */
#define SHORT_FORM		0x8000
#define SHORT_NEGATIVE	0x2000
#define SHORT_SCALE_SHIFT 7
#define SHORT_MAX_SCALE	63
#define SHORT_WEIGHT_MASK 0x007F	/* with its sign */
#define SHORT_MIN_WEIGHT (-64)
#define SHORT_MAX_WEIGHT 63

/* A numeric as numeric_send() writes it: four 16-bit words, then the digits. */
#define WIRE_HEADER		8
#define WIRE_NEGATIVE	0x4000
#define WIRE_MAX_DIGITS	((RSINK_AMOUNT_BYTES - VARHDRSZ - (int) sizeof(uint16)) / (int) sizeof(int16))

/* A finite numeric, taken apart. */
typedef struct Digits
{
	bool		negative;
	int			weight;			/* of the first digit, in powers of 10000 */
	int			scale;
	int			ndigits;
	const int16 *digits;
} Digits;

/* Take a numeric apart. Returns false for NaN and the infinities. */
static bool
amount_digits(Numeric amount, Digits *d)
{
	const char *data = VARDATA_ANY(amount);
	int			size = VARSIZE_ANY_EXHDR(amount);
	uint16		header;
	int			head = sizeof(uint16);

	memcpy(&header, data, sizeof(header));
	if ((header & 0xC000) == 0xC000)
		return false;
	if (header & SHORT_FORM)
	{
		d->negative = (header & SHORT_NEGATIVE) != 0;
		d->scale = (header & 0x1F80) >> SHORT_SCALE_SHIFT;
		d->weight = (header & 0x0040) ? (int) ((header & 0x003F) | ~0x003F) : (header & 0x003F);
	}
	else
	{
		int16		weight;

		memcpy(&weight, data + sizeof(uint16), sizeof(weight));
		head += sizeof(int16);
		d->negative = (header & 0xC000) == 0x4000;
		d->scale = header & 0x3FFF;
		d->weight = weight;
	}
	d->ndigits = (size - head) / (int) sizeof(int16);
	d->digits = (const int16 *) (data + head);
	return true;
}

/* Is this amount a finite number? */
bool
rsink_amount_is_finite(Numeric amount)
{
	Digits		d;

	return amount_digits(amount, &d);
}

/* Is this amount finite, but so large that sums of such amounts might overflow? */
bool
rsink_amount_is_huge(Numeric amount)
{
	Digits		d;

	return amount_digits(amount, &d) && d.ndigits > 0 && d.weight >= HUGE_WEIGHT;
}

/*
 * Add a finite amount to a sum. Allocates, in the current memory context, only for
 * an amount of 10^20 or more or with more than 8 decimal digits behind the point.
 */
void
rsink_sum_add(RsinkSum *sum, Numeric amount)
{
	Digits		d;
	int			last;

	if (!amount_digits(amount, &d))
		elog(ERROR, "amount is not finite");
	sum->scale = Max(sum->scale, d.scale);
	last = d.weight - d.ndigits + 1;
	if (d.ndigits == 0)
		return;
	if (d.weight <= MAX_WEIGHT && last >= -FRACTION_DIGITS)
	{
		int128		value = 0;

		for (int i = 0; i < d.ndigits; i++)
			value = value * DIGIT_BASE + d.digits[i];
		for (int i = last; i > -FRACTION_DIGITS; i--)
			value *= DIGIT_BASE;
		sum->fixed += d.negative ? -value : value;
	}
	else if (sum->rest == NULL)
		sum->rest = (Numeric) pg_detoast_datum_copy((struct varlena *) amount);
	else
		sum->rest = DatumGetNumeric(DirectFunctionCall2(numeric_add,
														NumericGetDatum(sum->rest),
														NumericGetDatum(amount)));
}

/*
 * The part of the sum that is kept in units of 10^-8, as a numeric of any size and
 * scale, by way of text.
 */
static Numeric
fixed_as_text(const RsinkSum *sum)
{
	bool		negative = sum->fixed < 0;
	uint128		value = negative ? -(uint128) sum->fixed : (uint128) sum->fixed;
	char		digits[64];
	char	   *p = digits + sizeof(digits);
	StringInfoData text;
	Numeric		result;

	/* at least one digit before the point */
	for (int i = 0; i <= FRACTION_SCALE || value != 0; i++)
	{
		*--p = (char) ('0' + (int) (value % 10));
		value /= 10;
	}
	initStringInfo(&text);
	if (negative)
		appendStringInfoChar(&text, '-');
	appendBinaryStringInfo(&text, p, (int) (digits + sizeof(digits) - p) - FRACTION_SCALE);
	if (sum->scale > 0)
	{
		appendStringInfoChar(&text, '.');
		appendBinaryStringInfo(&text, digits + sizeof(digits) - FRACTION_SCALE,
							   Min(sum->scale, FRACTION_SCALE));
		for (int i = FRACTION_SCALE; i < sum->scale; i++)
			appendStringInfoChar(&text, '0');
	}
	result = DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum(text.data),
												 ObjectIdGetDatum(InvalidOid),
												 Int32GetDatum(-1)));
	pfree(text.data);
	return result;
}

/* The sum as a numeric, whose scale is the largest one among the amounts added. */
Numeric
rsink_sum_result(const RsinkSum *sum)
{
	Numeric		result;

	if (sum->scale <= FRACTION_SCALE && sum->fixed == (int64) sum->fixed)
	{
		int64		value = (int64) sum->fixed;

		/* no amount had digits past the scale, so nothing but zeros is cut off */
		for (int i = sum->scale; i < FRACTION_SCALE; i++)
			value /= 10;
		result = int64_div_fast_to_numeric(value, sum->scale);
	}
	else
		result = fixed_as_text(sum);
	if (sum->rest)
		result = DatumGetNumeric(DirectFunctionCall2(numeric_add, NumericGetDatum(result),
													 NumericGetDatum(sum->rest)));
	return result;
}

/*
 * Write a canonical form of a finite amount into buf, which has "size" bytes, and
 * return its length in bytes. Equal amounts, such as 1.0 and 1.00, have equal
 * canonical forms. Of an amount with too many digits only the most significant ones
 * that fit are written.
 */
int
rsink_amount_canonical(Numeric amount, char *buf, int size)
{
	Digits		d;
	int16		head[3];
	int			bytes;

	if (!amount_digits(amount, &d))
		elog(ERROR, "amount is not finite");
	head[0] = d.ndigits == 0 ? 0 : (int16) d.weight;
	head[1] = d.ndigits == 0 ? 0 : d.negative;
	head[2] = (int16) d.ndigits;
	bytes = Min(d.ndigits * (int) sizeof(int16), size - (int) sizeof(head));
	memcpy(buf, head, sizeof(head));
	memcpy(buf + sizeof(head), d.digits, bytes);
	return (int) sizeof(head) + bytes;
}

/* The 16-bit word number i of an amount as numeric_send() writes it. */
static inline int
wire_word(const char *wire, int i)
{
	uint16		word;

	memcpy(&word, wire + i * sizeof(uint16), sizeof(word));
	return pg_ntoh16(word);
}

/*
 * Make a numeric of the "len" bytes that numeric_send() has written for it, in buf,
 * which has RSINK_AMOUNT_BYTES bytes and is aligned for integers. Returns NULL for
 * whatever isn't an amount in the form that nearly all amounts have, with few digits of
 * which the scale hides none: the caller asks numeric_recv().
 */
Numeric
rsink_amount_receive(const char *wire, int len, void *buf)
{
	static const int hidden_unit[] = {1, 10, 100, 1000};
	int16	   *digits = (int16 *) ((char *) buf + VARHDRSZ + sizeof(uint16));
	int			ndigits = 0;
	int			nwire;
	int			weight;
	int			sign;
	int			scale;
	int			hidden;
	uint16		header;

	if (len < WIRE_HEADER)
		return NULL;
	nwire = wire_word(wire, 0);
	weight = (int16) wire_word(wire, 1);
	sign = wire_word(wire, 2);
	scale = wire_word(wire, 3);
	if (nwire > WIRE_MAX_DIGITS || len != WIRE_HEADER + nwire * (int) sizeof(int16) ||
		(sign != 0 && sign != WIRE_NEGATIVE) || scale > SHORT_MAX_SCALE)
		return NULL;
	for (int i = 0; i < nwire; i++)
	{
		int			digit = wire_word(wire, WIRE_HEADER / (int) sizeof(uint16) + i);

		if (digit >= DIGIT_BASE)
			return NULL;
		if (digit == 0 && ndigits == 0)
			weight--;
		else
			digits[ndigits++] = (int16) digit;
	}
	while (ndigits > 0 && digits[ndigits - 1] == 0)
		ndigits--;
	if (ndigits == 0)
		sign = weight = 0;
	if (weight < SHORT_MIN_WEIGHT || weight > SHORT_MAX_WEIGHT)
		return NULL;

	/* a digit of numeric has four decimal ones; how many of them lie behind the scale? */
	hidden = (ndigits - 1 - weight) * 4 - scale;
	if (ndigits > 0 && hidden > 0 &&
		(hidden >= (int) lengthof(hidden_unit) || digits[ndigits - 1] % hidden_unit[hidden] != 0))
		return NULL;
	header = (uint16) (SHORT_FORM | (sign == WIRE_NEGATIVE ? SHORT_NEGATIVE : 0) |
					   scale << SHORT_SCALE_SHIFT | (weight & SHORT_WEIGHT_MASK));
	SET_VARSIZE(buf, VARHDRSZ + sizeof(header) + ndigits * sizeof(int16));
	memcpy((char *) buf + VARHDRSZ, &header, sizeof(header));
	return (Numeric) buf;
}
