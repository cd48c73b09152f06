/*-------------------------------------------------------------------------
 *
 * slice.c
 *	  The sealed slices of a sink, as shared memory knows them.
 *
 * Slices are small, so that events that came together, and come together again in a
 * replay, lie in few rows. Asking many slices one by one would take long, so slices form
 * groups: a table in memory says which slices of the group may have a fingerprint.
 * A slice for whose group there was no room is cold: its filter, which says which
 * fingerprints are certainly not in the slice, is read from the filter's table. A fence
 * per row says where the row is that may have a fingerprint, and a fence per piece of
 * the filter where that piece is.
 *
 * All of it can be had again from the tables (slice_load.c). Fences are hints: whoever
 * follows one makes sure that the row is the one that the fence speaks of. What a
 * group's table or a filter rules out is believed. But the rows of a slice never change,
 * and they are in the group's table, and the filter in its table, before the slice is
 * put into the set.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "port/pg_bitutils.h"
#include "utils/memutils.h"

#include "apply/event.h"
#include "apply/fingerprint.h"
#include "seen/extent.h"
#include "seen/filter.h"
#include "seen/piece.h"
#include "seen/pool.h"
#include "seen/slice.h"
#include "seen/tags.h"

/*
 * The CPU is asked for the lines of tables of tags this many keys ahead. That is so far
 * because the look-ups are short, and each may miss the TLB as well.
 */
#define PREFETCH_AHEAD	40

/*
 * The first group of a sink is for so many slices, and no group is for fewer than these, as
 * sealing makes them: fewer slices are asked in less time by their filters. Another group is
 * larger by this, and takes at most this part of the memory that is left.
 */
#define FIRST_SLICES	8
#define LEAST_SLICES	4
#define GROUP_GROWTH	2
#define GROUP_PART		(3.0 / 4)

/* Keys that are entered into a group's table in one hold of the slices lock. */
#define ENTER_HOLD		1024

/* Initialize the slices of a slot, once. */
void
rsink_slices_init(RsinkSlices *slices, int tranche)
{
	LWLockInitialize(&slices->lock, tranche);
	for (int i = 0; i < RSINK_MAX_GROUPS; i++)
		slices->group[i].extent.head = RSINK_NO_CHUNK;
}

/* A slice leaves its group, and the last one frees the group's memory. */
static void
leave_group(RsinkSlices *slices, RsinkSlice *slice)
{
	RsinkGroup *group = slice->group < 0 ? NULL : &slices->group[slice->group];

	if (group != NULL)
	{
		group->slice[slice->number_in_group] = -1;
		if (--group->nslices == 0)
			rsink_extent_free(&group->extent);
	}
	slice->group = -1;
}

/* Note in its group, if it has one, where in the array a slice is. */
static void
note_place(RsinkSlices *slices, int place)
{
	const RsinkSlice *slice = &slices->slice[place];

	if (slice->group >= 0)
		slices->group[slice->group].slice[slice->number_in_group] = place;
}

static void
drop_slice(RsinkSlices *slices, RsinkSlice *slice)
{
	leave_group(slices, slice);
	rsink_extent_free(&slice->extent);
}

/*
 * Forget all slices, and give their memory back to the pool. Caller holds the sink
 * lock exclusively. Takes the slices lock.
 */
void
rsink_slices_reset(RsinkSlices *slices)
{
	LWLockAcquire(&slices->lock, LW_EXCLUSIVE);
	for (uint32 i = 0; i < slices->n; i++)
		drop_slice(slices, &slices->slice[i]);
	slices->n = 0;
	slices->loaded = false;
	slices->generation++;
	LWLockRelease(&slices->lock);
}

/*
 * Add a slice, or put it in the place of the one with its number. Caller holds the
 * sink lock exclusively and has made sure that there is room for another slice.
 * Takes the slices lock.
 */
void
rsink_slices_put(RsinkSlices *slices, const RsinkSlice *slice)
{
	uint32		i = 0;

	LWLockAcquire(&slices->lock, LW_EXCLUSIVE);
	while (i < slices->n && slices->slice[i].number != slice->number)
		i++;
	Assert(i < RSINK_MAX_SLICES);
	if (slice->group >= 0)
		slices->group[slice->group].nslices++;
	if (i < slices->n)
		drop_slice(slices, &slices->slice[i]);
	else
		slices->n++;
	slices->slice[i] = *slice;
	note_place(slices, (int) i);
	slices->generation++;
	LWLockRelease(&slices->lock);
}

/*
 * Remove a slice, if it is there. Caller holds the sink lock exclusively. Takes the
 * slices lock.
 */
void
rsink_slices_remove(RsinkSlices *slices, int32 number)
{
	LWLockAcquire(&slices->lock, LW_EXCLUSIVE);
	for (uint32 i = 0; i < slices->n; i++)
	{
		if (slices->slice[i].number == number)
		{
			drop_slice(slices, &slices->slice[i]);
			slices->slice[i] = slices->slice[--slices->n];
			if (i < slices->n)
				note_place(slices, (int) i);
			break;
		}
	}
	LWLockRelease(&slices->lock);
}

/* Has a group room for another slice of so many events? */
static bool
has_room(const RsinkGroup *group, int64 events)
{
	return group->nslices > 0 && group->last < RSINK_TAG_SLICES && group->events + events <= group->room;
}

/* The largest group that has room for a slice of so many events, or -1. */
static int
largest_group(const RsinkSlices *slices, int64 events)
{
	int			largest = -1;

	for (int i = 0; i < RSINK_MAX_GROUPS; i++)
		if (has_room(&slices->group[i], events) &&
			(largest < 0 || slices->group[i].room > slices->group[largest].room))
			largest = i;
	return largest;
}

/*
 * The events that a new group has memory for, the reserve aside; 0 if these are so few
 * that a group isn't worth while. Sealing makes slices of at most "most" events.
 */
static int64
group_fit(int64 most, double reserve)
{
	int64		fit = (int64) ((rsink_pool_free() - reserve) * rsink_pool_bytes() * GROUP_PART / RSINK_TAG_BYTES);

	return fit < LEAST_SLICES * most ? 0 : fit;
}

/*
 * Is there a group for a slice of so many events that is much larger than the group it
 * is in, or room for a cold slice in any group? Few large groups are asked in less time
 * than many small ones.
 */
bool
rsink_group_grows(const RsinkSlices *slices, const RsinkSlice *slice, int64 events, int64 most, double reserve)
{
	int			largest = largest_group(slices, events);

	if (slice->group < 0)
		return largest >= 0 || group_fit(most, reserve) >= events;
	return largest >= 0 && largest != slice->group &&
		slices->group[largest].room >= slices->group[slice->group].room * GROUP_GROWTH;
}

/* The events of the cold slices, by the size of their filters. */
static int64
cold_events(const RsinkSlices *slices)
{
	int64		events = 0;

	for (uint32 i = 0; i < slices->n; i++)
		if (slices->slice[i].group < 0)
			events += (int64) slices->slice[i].nlines * RSINK_LINE_BYTES * 8 / RSINK_FILTER_BITS;
	return events;
}

/*
 * Make a new group. It has room for the cold slices, and for those of the sink's smaller
 * groups, too, which come over one by one. Returns -1 if there is no memory for a group,
 * or not for a slice of so many events.
 */
static int
new_group(RsinkSlices *slices, int64 events, int64 most, double reserve)
{
	int64		fit = group_fit(most, reserve);
	int64		room = Max(FIRST_SLICES * most, events) + cold_events(slices);
	RsinkGroup *group = NULL;

	for (int i = 0; i < RSINK_MAX_GROUPS; i++)
	{
		if (slices->group[i].nslices == 0)
			group = &slices->group[i];
		else if (slices->group[i].room < RSINK_TAG_SLICES * most / GROUP_GROWTH)
			room += slices->group[i].events * GROUP_GROWTH;
	}
	if (group == NULL || fit == 0 || fit < events)
		return -1;

	/* somebody may have made it and failed before a slice came into it */
	rsink_extent_free(&group->extent);
	group->events = 0;
	group->last = 0;
	group->room = Min(Min(room, Max(RSINK_TAG_SLICES * most, events)), fit);
	for (int i = 0; i <= RSINK_TAG_SLICES; i++)
		group->slice[i] = -1;
	if (!rsink_extent_allocate(&group->extent, 0, rsink_tags_lines(group->room), reserve))
		return -1;
	return (int) (group - slices->group);
}

/*
 * Choose a group for a slice of so many events, or make one; no slice of the sink has
 * more than "most" events. Sets the slice's group and its number there. False: there is
 * no memory for a group. Only the holder of the maintenance lock may call this.
 */
bool
rsink_group_open(RsinkSlices *slices, RsinkSlice *slice, int64 events, int64 most, double reserve)
{
	slice->group = largest_group(slices, events);
	if (slice->group < 0)
		slice->group = new_group(slices, events, most, reserve);
	if (slice->group < 0)
		return false;
	slice->number_in_group = ++slices->group[slice->group].last;
	return true;
}

/*
 * Enter events of a slice that isn't in the set yet into the table of its group. False:
 * there was no room for all; then the slice can't be in the group. Takes the slices
 * lock, several times for many keys, and raises no error.
 */
bool
rsink_group_enter(RsinkSlices *slices, const RsinkSlice *slice, const RsinkKey *keys, int n)
{
	RsinkGroup *group = &slices->group[slice->group];
	bool		fits = true;

	for (int from = 0; from < n && fits; from += ENTER_HOLD)
	{
		LWLockAcquire(&slices->lock, LW_EXCLUSIVE);
		for (int i = from; i < Min(from + ENTER_HOLD, n) && fits; i++)
		{
			if (i + PREFETCH_AHEAD < n)
				rsink_tags_prefetch(&group->extent, &keys[i + PREFETCH_AHEAD].fp);
			fits = rsink_tags_insert(&group->extent, &keys[i].fp, slice->number_in_group);
		}
		LWLockRelease(&slices->lock);
	}
	group->events += n;
	return fits;
}

/*
 * Find the fence of the row of a slice that may have a fingerprint. Its block is
 * invalid if the slice has no fences. False: there is no such row.
 */
static bool
find_fence(const RsinkSlice *slice, const RsinkFingerprint *fp, RsinkFence *fence)
{
	uint32		low = 0;
	uint32		high = slice->nrows;

	fence->block = InvalidBlockNumber;
	if (slice->nrows == 0)
		return true;
	while (low < high)
	{
		uint32		middle = (low + high) / 2;

		if (rsink_extent_fence(&slice->extent, middle)->first <= fp->hi)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == 0)
		return false;
	*fence = *rsink_extent_fence(&slice->extent, low - 1);
	return true;
}

/* Add a candidate to an answer. */
void
rsink_slices_add(RsinkSliceAnswer *answer, const RsinkCandidate *candidate)
{
	if (answer->ncandidates == answer->room)
	{
		answer->room = Max(64, answer->room * 2);
		if (answer->candidates == NULL)
			answer->candidates = palloc(answer->room * sizeof(RsinkCandidate));
		else
			answer->candidates = repalloc_huge(answer->candidates, answer->room * sizeof(RsinkCandidate));
	}
	answer->candidates[answer->ncandidates++] = *candidate;
}

/* Add to the answer that a slice may have a key. */
static void
add_candidate(RsinkSliceAnswer *answer, const RsinkSlice *slice, int key)
{
	RsinkCandidate candidate = {.key = key,.slice = slice->number};

	if (find_fence(slice, &answer->keys[key].fp, &candidate.fence))
		rsink_slices_add(answer, &candidate);
}

/*
 * Add to the answer which of n keys the slices of a group may have, slice by slice. The
 * array "maybe" has room for a number per key.
 */
static void
ask_group(RsinkSliceAnswer *answer, const RsinkSlices *slices, const RsinkGroup *group, int n, uint64 *maybe)
{
	const RsinkKey *keys = answer->keys;
	int			start[RSINK_TAG_SLICES + 2] = {0};
	int		   *sorted;

	for (int i = 0; i < n; i++)
	{
		if (i + PREFETCH_AHEAD < n)
			rsink_tags_prefetch(&group->extent, &keys[i + PREFETCH_AHEAD].fp);
		maybe[i] = rsink_tags_lookup(&group->extent, &keys[i].fp);
		for (uint64 rest = maybe[i]; rest != 0; rest &= rest - 1)
			start[pg_rightmost_one_pos64(rest) + 1]++;
	}
	for (int s = 1; s <= RSINK_TAG_SLICES + 1; s++)
		start[s] += start[s - 1];
	if (start[RSINK_TAG_SLICES + 1] == 0)
		return;

	/* a counting sort by slice, which keeps the order of the keys */
	sorted = palloc_extended(start[RSINK_TAG_SLICES + 1] * sizeof(int), MCXT_ALLOC_HUGE);
	for (int i = 0; i < n; i++)
		for (uint64 rest = maybe[i]; rest != 0; rest &= rest - 1)
			sorted[start[pg_rightmost_one_pos64(rest)]++] = i;
	for (int s = 1, from = 0; s <= RSINK_TAG_SLICES; from = start[s++])
		for (int i = from; i < start[s] && group->slice[s] >= 0; i++)
			add_candidate(answer, &slices->slice[group->slice[s]], sorted[i]);
	pfree(sorted);
}

/* Add the cold slices to the answer. */
static void
list_cold(RsinkSliceAnswer *answer, const RsinkSlices *slices)
{
	answer->cold = palloc((slices->n + 1) * sizeof(RsinkColdSlice));
	for (uint32 i = 0; i < slices->n; i++)
	{
		const RsinkSlice *slice = &slices->slice[i];

		if (slice->group < 0)
			answer->cold[answer->ncold++] = (RsinkColdSlice) {.number = slice->number,.nlines = slice->nlines};
	}
}

/*
 * Which of n sorted keys may be in which slice? Sets the answer, whose arrays are in the
 * current memory context. A key that is no candidate, and that the filter of no cold slice
 * lets pass, is in none of the slices of this generation. Takes the slices lock in share
 * mode.
 */
void
rsink_slices_ask(RsinkSlices *slices, const RsinkKey *keys, int n, RsinkSliceAnswer *answer)
{
	uint64	   *maybe = slices->n == 0 ? NULL : palloc(n * sizeof(uint64));

	memset(answer, 0, sizeof(RsinkSliceAnswer));
	answer->keys = keys;
	LWLockAcquire(&slices->lock, LW_SHARED);
	answer->generation = slices->generation;
	if (slices->n > 0 && maybe == NULL)
		answer->generation = 0; /* they have just come: ask again */
	for (int g = 0; g < RSINK_MAX_GROUPS && maybe != NULL; g++)
		if (slices->group[g].nslices > 0)
			ask_group(answer, slices, &slices->group[g], n, maybe);
	if (maybe != NULL)
		list_cold(answer, slices);
	LWLockRelease(&slices->lock);
	if (maybe != NULL)
		pfree(maybe);
}

/* The slice with this number, or NULL. */
static const RsinkSlice *
find_slice(const RsinkSlices *slices, int32 number)
{
	for (uint32 i = 0; i < slices->n; i++)
		if (slices->slice[i].number == number)
			return &slices->slice[i];
	return NULL;
}

/* The fence of a piece of a slice's filter, or NULL. */
static RsinkFence *
piece_fence(const RsinkSlice *slice, uint32 piece)
{
	if (slice == NULL || slice->nrows + piece >= slice->extent.nfences)
		return NULL;
	return rsink_extent_fence(&slice->extent, slice->nrows + piece);
}

/*
 * Which pieces of a cold slice's filter are to be asked for n sorted keys, and where were
 * they? There is room for an answer per key. Returns how many pieces. Takes the slices
 * lock in share mode.
 */
int
rsink_slices_pieces(RsinkSlices *slices, const RsinkColdSlice *cold, const RsinkKey *keys, int n,
					RsinkPieceAsk *asks)
{
	const RsinkSlice *slice;
	int			nasks = 0;

	LWLockAcquire(&slices->lock, LW_SHARED);
	slice = find_slice(slices, cold->number);
	for (int i = 0; i < n; i++)
	{
		uint32		piece = rsink_filter_line(&keys[i].fp, cold->nlines) / RSINK_PIECE_LINES;
		const RsinkFence *fence;
		RsinkPieceAsk *ask;

		if (nasks > 0 && asks[nasks - 1].piece == piece)
		{
			asks[nasks - 1].nkeys++;
			continue;
		}
		ask = &asks[nasks++];
		*ask = (RsinkPieceAsk)
		{
			.slice = cold->number,.nlines = cold->nlines,.piece = piece,.from = i,.nkeys = 1
		};
		ItemPointerSetInvalid(&ask->tid);
		fence = piece_fence(slice, piece);
		if (fence != NULL && fence->block != InvalidBlockNumber)
		{
			ItemPointerSet(&ask->tid, fence->block, fence->offset);
			ask->buffer = (Buffer) fence->first;
		}
	}
	LWLockRelease(&slices->lock);
	return nasks;
}

/*
 * Note in which buffers the pieces of a slice's filter have been found. Takes the slices
 * lock in share mode: a fence names one buffer or another, whoever comes last.
 */
void
rsink_slices_note(RsinkSlices *slices, int32 number, const RsinkPieceAsk *asks, int nasks)
{
	const RsinkSlice *slice;

	LWLockAcquire(&slices->lock, LW_SHARED);
	slice = find_slice(slices, number);
	for (int i = 0; i < nasks; i++)
	{
		RsinkFence *fence = piece_fence(slice, asks[i].piece);

		if (fence != NULL && fence->first != (uint64) asks[i].buffer)
			fence->first = (uint64) asks[i].buffer;
	}
	LWLockRelease(&slices->lock);
}

/*
 * Find the fences of the candidates from this one on, which the pieces of filters have
 * let pass. Where that isn't possible any more, primary keys lead to the rows. Takes
 * the slices lock in share mode.
 */
void
rsink_slices_lead(RsinkSlices *slices, RsinkSliceAnswer *answer, int from)
{
	const RsinkSlice *slice = NULL;
	int			kept = from;

	LWLockAcquire(&slices->lock, LW_SHARED);
	for (int i = from; i < answer->ncandidates; i++)
	{
		RsinkCandidate *candidate = &answer->candidates[i];

		if (slice == NULL || slice->number != candidate->slice)
			slice = find_slice(slices, candidate->slice);
		if (slice == NULL || find_fence(slice, &answer->keys[candidate->key].fp, &candidate->fence))
			answer->candidates[kept++] = *candidate;
	}
	LWLockRelease(&slices->lock);
	answer->ncandidates = kept;
}

/*
 * Add the shared memory that the slices occupy, in bytes, to what it is for. Takes the
 * slices lock in share mode.
 */
void
rsink_slices_bytes(RsinkSlices *slices, Size *filters, Size *fences)
{
	LWLockAcquire(&slices->lock, LW_SHARED);
	for (uint32 i = 0; i < slices->n; i++)
		*fences += rsink_extent_bytes(&slices->slice[i].extent);
	for (int i = 0; i < RSINK_MAX_GROUPS; i++)
		if (slices->group[i].nslices > 0)
			*filters += rsink_extent_bytes(&slices->group[i].extent);
	LWLockRelease(&slices->lock);
}
