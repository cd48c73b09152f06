/*-------------------------------------------------------------------------
 *
 * slice_merge.c
 *	  Merging: several small slices become one.
 *
 * A cold slice is asked by its filter, so what an event costs grows with the number of
 * cold slices. The slices that sealing makes are small. Once there are
 * RSINK_MERGE_SLICES of them, they are merged, and so on with slices of the next size
 * (the size-tiered merging of log-structured merge trees: O'Neil et al., 1996).
 * Slices in groups are asked together, so they are merged only if the sink has very many.
 *
 * A merge is one transaction, which writes the new slice and deletes the old ones.
 * Shared memory learns of the new slice just before that transaction commits, and
 * forgets the old ones at the next refresh. So at every instant an event is found in a
 * row of an old slice, in a row of the new one, or in both:
 *
 *	- Before the commit the rows of the old slices still count, and whoever meets
 *	  a row of the new slice sees that it is unfinished, and reads that row again
 *	  if no other row counts the event.
 *	- Whoever asked the slices before shared memory learned of the new one, and
 *	  finds that rows have gone, notices by the generation of the slices that one
 *	  has come, and asks again.
 *	- If the transaction fails after all, shared memory knows of a slice that has
 *	  no rows, which does no harm and is put right by the next refresh.
 *
 * A slice goes when its newest event has expired, so only slices that expire at nearly
 * the same time are merged.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "core/catalog.h"
#include "core/spi_util.h"
#include "seen/seal.h"
#include "seen/sealed.h"
#include "seen/slice_load.h"
#include "seen/slice_merge.h"
#include "seen/slice_write.h"
#include "sink/slot.h"

/* The most events that one merge moves. */
#define MERGE_EVENTS	INT64CONST(8000000)

/* Slices that are merged have their newest events within this part of the dedup window. */
#define MERGE_SPAN		(1.0 / 8)

/* If a sink has more slices than this, those in groups are merged, too. */
#define MANY_SLICES		(RSINK_MAX_SLICES / 2)

/* A slice that is merged, and the row of it whose keys are next. */
typedef struct Input
{
	SysScanDesc scan;
	RsinkKey	keys[RSINK_PAGE_MAX];
	int			n;
	int			next;
} Input;

/* May this slice be merged, as shared memory knows it? Caller holds the sink lock. */
static bool
is_to_be_merged(const RsinkSlices *slices, int32 number)
{
	for (uint32 i = 0; i < slices->n; i++)
		if (slices->slice[i].number == number)
			return slices->slice[i].group < 0 || slices->n > MANY_SLICES;
	return false;
}

/* By size: 0 for a slice as sealing makes it, and one more after each merge. */
static int
level_of(const RsinkSliceRow *slice)
{
	int			level = 0;

	for (int64 most = rsink_seal_most(); slice->events > most; most *= RSINK_MERGE_SLICES)
		level++;
	return level;
}

static int
compare_slices(const void *a, const void *b)
{
	const RsinkSliceRow *x = a;
	const RsinkSliceRow *y = b;

	if (level_of(x) != level_of(y))
		return level_of(x) < level_of(y) ? -1 : 1;
	if (x->newest != y->newest)
		return x->newest < y->newest ? -1 : 1;
	return x->number < y->number ? -1 : x->number > y->number;
}

/* Can these slices, which are sorted, be merged into one? */
static bool
fit_together(const RsinkSink *sink, const RsinkSliceRow *slices)
{
	const RsinkSliceRow *last = &slices[RSINK_MERGE_SLICES - 1];
	int64		events = 0;

	for (int i = 0; i < RSINK_MERGE_SLICES; i++)
		events += slices[i].events;
	return level_of(slices) == level_of(last) && events <= MERGE_EVENTS &&
		last->newest - slices->newest <= sink->dedup_window * MERGE_SPAN;
}

/*
 * Choose RSINK_MERGE_SLICES slices that are to be merged: small ones before large ones, and
 * old ones before young ones. NULL if there are none.
 */
static const RsinkSliceRow *
choose_slices(RsinkSink *sink, Snapshot snapshot)
{
	RsinkSlices *known = &sink->shared->slices;
	int			nchosen = 0;
	RsinkSliceRow *slices;
	int			n;

	slices = rsink_slices_read(sink, snapshot, &n);
	LWLockAcquire(&sink->shared->lock, LW_SHARED);
	for (int i = 0; i < n; i++)
		if (is_to_be_merged(known, slices[i].number))
			slices[nchosen++] = slices[i];
	if (!known->loaded || known->n >= RSINK_MAX_SLICES)
		nchosen = 0;
	LWLockRelease(&sink->shared->lock);
	qsort(slices, nchosen, sizeof(RsinkSliceRow), compare_slices);
	for (int i = 0; i + RSINK_MERGE_SLICES <= nchosen; i++)
		if (fit_together(sink, &slices[i]))
			return &slices[i];
	return NULL;
}

/* Read the next row of an input. False: there is none. */
static bool
next_row(Relation rel, Input *input)
{
	HeapTuple	tuple = systable_getnext_ordered(input->scan, ForwardScanDirection);
	RsinkSealedRow row;

	CHECK_FOR_INTERRUPTS();
	input->n = input->next = 0;
	if (!HeapTupleIsValid(tuple))
		return false;
	rsink_sealed_deform(RelationGetDescr(rel), tuple, &row);
	for (int i = 0; i < row.page.n; i++)
		rsink_page_key(&row.page, i, &input->keys[i].fp);
	input->n = row.page.n;
	return true;
}

/* Add the events of all inputs to a slice, in the order of their fingerprints. */
static void
merge_inputs(RsinkSliceWriter *writer, Relation rel, Input *inputs)
{
	Input	   *open[RSINK_MERGE_SLICES];
	int			nopen = 0;

	for (int i = 0; i < RSINK_MERGE_SLICES; i++)
		if (next_row(rel, &inputs[i]))
			open[nopen++] = &inputs[i];
	while (nopen > 0)
	{
		int			least = 0;

		for (int i = 1; i < nopen; i++)
			if (rsink_fingerprint_cmp(&open[i]->keys[open[i]->next].fp, &open[least]->keys[open[least]->next].fp) < 0)
				least = i;
		rsink_slice_add(writer, &open[least]->keys[open[least]->next], 1);
		if (++open[least]->next == open[least]->n && !next_row(rel, open[least]))
			open[least] = open[--nopen];
	}
}

/* Write a slice with the events of these, as a snapshot sees them. */
static void
write_merged(RsinkSliceWriter *writer, RsinkSink *sink, const RsinkSliceRow *slices, Snapshot snapshot)
{
	Relation	rel = table_open(sink->sealed, AccessShareLock);
	Relation	index = index_open(rsink_table_index(rel, Anum_sealed_slice), AccessShareLock);
	Input	   *inputs = palloc(RSINK_MERGE_SLICES * sizeof(Input));
	int64		events = 0;
	TimestampTz newest = DT_NOBEGIN;
	TimestampTz own_newest = DT_NOBEGIN;

	for (int i = 0; i < RSINK_MERGE_SLICES; i++)
	{
		ScanKeyData key;

		ScanKeyInit(&key, Anum_sealed_slice, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(slices[i].number));
		inputs[i].scan = systable_beginscan_ordered(rel, index, snapshot, 1, &key);
		events += slices[i].events;
		newest = Max(newest, slices[i].newest);
		own_newest = Max(own_newest, slices[i].own_newest);
	}
	rsink_slice_begin(writer, sink, events);
	merge_inputs(writer, rel, inputs);
	if (writer->slice.events != events)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("slices %d to %d of sink \"%s\" have " INT64_FORMAT " events, but were sealed with " INT64_FORMAT,
						slices[0].number, slices[RSINK_MERGE_SLICES - 1].number, sink->name,
						writer->slice.events, events),
				 errhint("revenue_sink.check() tells which of them is damaged.")));
	rsink_slice_end(writer, newest, own_newest);
	for (int i = 0; i < RSINK_MERGE_SLICES; i++)
		systable_endscan_ordered(inputs[i].scan);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
}

/*
 * Merge small slices, if there are enough of them. Returns how many events were moved.
 * The current transaction must do nothing else, and commit right after. Raises
 * data_corrupted if a slice doesn't have the events that its description says. Caller
 * holds the maintenance lock.
 */
int64
rsink_merge_slices(RsinkSink *sink)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "revenue_sink merge slices", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	const RsinkSliceRow *slices = choose_slices(sink, snapshot);
	int64		merged = 0;

	if (slices != NULL)
	{
		RsinkSliceWriter writer;
		RsinkSpi	spi;

		write_merged(&writer, sink, slices, snapshot);
		rsink_spi_begin(&spi);
		for (int i = 0; i < RSINK_MERGE_SLICES; i++)
			rsink_slice_delete(sink, slices[i].number);
		rsink_spi_end(&spi);
		rsink_slice_publish(&writer, NULL);
		merged = writer.slice.events;
	}
	UnregisterSnapshot(snapshot);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return merged;
}
