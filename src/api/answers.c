/*-------------------------------------------------------------------------
 *
 * answers.c
 *	  The answers to the events of a call, as an array of text.
 *
 * There are six words. Each of them is made into an element of an array once per
 * portion of events, and then copied for each event, without allocating anything
 * for an event.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/memutils.h"

#include "api/answers.h"
#include "apply/event.h"
#include "core/compat.h"

/* The most bytes that an answer takes in an array: its header, its word and padding. */
#define ELEMENT_BYTES	16

/* The most answers for which an array, all of which lies in one piece of memory, has room. */
#define ANSWERS_MAX		((int) ((MaxAllocSize - ARR_OVERHEAD_NONULLS(1)) / ELEMENT_BYTES))

/* A word as it lies in an array of text, padded with zeros. */
typedef struct Element
{
	char		bytes[ELEMENT_BYTES];
	int			size;			/* with the padding up to the next element */
} Element;

/*
 * Allocate an array for n answers in the current memory context. Raises
 * program_limit_exceeded if there is no array of so many answers.
 */
void
rsink_answers_begin(RsinkAnswers *answers, int n)
{
	if (n > ANSWERS_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("cannot return the answers to %d events in one array", n),
				 errdetail("The most events in one call of apply_each() are %d.", ANSWERS_MAX),
				 errhint("Send fewer events per call.")));
	if (n == 0)
	{
		answers->array = construct_empty_array(TEXTOID);
		answers->next = (char *) answers->array + VARSIZE(answers->array);
		return;
	}
	answers->array = palloc(ARR_OVERHEAD_NONULLS(1) + (Size) n * ELEMENT_BYTES);
	answers->array->ndim = 1;
	answers->array->dataoffset = 0;
	answers->array->elemtype = TEXTOID;
	ARR_DIMS(answers->array)[0] = n;
	ARR_LBOUND(answers->array)[0] = 1;
	answers->next = ARR_DATA_PTR(answers->array);
}

/* Add the answers to n events, which have been applied, in their order. */
void
rsink_answers_add(RsinkAnswers *answers, const RsinkEvent *events, int n)
{
	Element		elements[RSINK_NSTATUS] = {0};
	char	   *next = answers->next;

	for (int i = 0; i < RSINK_NSTATUS; i++)
	{
		int			len = (int) strlen(rsink_status_name[i]);

		Assert(VARHDRSZ + len <= ELEMENT_BYTES);
		SET_VARSIZE(elements[i].bytes, VARHDRSZ + len);
		memcpy(VARDATA(elements[i].bytes), rsink_status_name[i], len);
		elements[i].size = INTALIGN(VARHDRSZ + len);
	}
	for (int i = 0; i < n; i++)
	{
		const Element *element = &elements[events[i].status];

		/* a copy of fixed size is the fastest; the next element covers what is too much */
		memcpy(next, element->bytes, ELEMENT_BYTES);
		next += element->size;
	}
	answers->next = next;
}

/* The array, once all answers have been added. */
ArrayType *
rsink_answers_end(RsinkAnswers *answers)
{
	SET_VARSIZE(answers->array, answers->next - (char *) answers->array);
	return answers->array;
}
