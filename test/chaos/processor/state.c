/*-------------------------------------------------------------------------
 *
 * state.c
 *	  The processor's own checkpoints, as files.
 *
 * A checkpoint is the file "checkpoint.<attempt>.<sequence>", written under
 * another name, synced, and renamed. An incarnation begins by writing what it
 * restores under its own attempt, one more than the last, and of which file
 * that is a copy. Restored is the last checkpoint of the last attempt, or one
 * that it goes back to: so what a predecessor writes that still runs is never
 * read again. No file replaces another: of two that want to be the same
 * attempt the second one ends.
 *
 *-------------------------------------------------------------------------
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "processor.h"

/* The last one first. */
static int
compare_names(const void *a, const void *b)
{
	const Name *x = a;
	const Name *y = b;

	if (x->attempt != y->attempt)
		return x->attempt < y->attempt ? 1 : -1;
	return (x->sequence < y->sequence) - (x->sequence > y->sequence);
}

static int
list_names(Name **names)
{
	DIR		   *dir = opendir(config.state);
	struct dirent *entry;
	int			n = 0;

	if (dir == NULL)
		die("could not open \"%s\": %s", config.state, strerror(errno));
	*names = NULL;
	while ((entry = readdir(dir)) != NULL)
	{
		Name		name;

		if (sscanf(entry->d_name, "checkpoint.%" SCNd64 ".%" SCNd64, &name.attempt, &name.sequence) != 2)
			continue;
		*names = must_alloc(*names, (size_t) (n + 1) * sizeof(Name));
		(*names)[n++] = name;
	}
	closedir(dir);
	if (n > 0)
		qsort(*names, (size_t) n, sizeof(Name), compare_names);
	return n;
}

void
checkpoint_add_gid(Checkpoint *checkpoint, const char *gid)
{
	checkpoint->gids = must_alloc(checkpoint->gids, (size_t) (checkpoint->ngids + 1) * MAX_GID);
	snprintf(checkpoint->gids[checkpoint->ngids++], MAX_GID, "%s", gid);
}

static void
read_file(const Name *name, Checkpoint *c)
{
	char		path[PATH_MAX];
	char		gid[MAX_GID];
	int			restores;
	int			ngids;
	FILE	   *file;

	snprintf(path, sizeof(path), "%s/checkpoint.%" PRId64 ".%" PRId64, config.state,
			 name->attempt, name->sequence);
	file = fopen(path, "r");
	if (file == NULL ||
		fscanf(file, "%" SCNd64 " %" SCNd64, &c->copy_of.attempt, &c->copy_of.sequence) != 2 ||
		fscanf(file, "%d %" SCNd64 " %d", &restores, &c->number, &c->writers) != 3)
		die("could not read \"%s\"", path);
	c->attempt = name->attempt;
	c->sequence = name->sequence;
	c->restores = restores != 0;
	for (int s = 0; s < MAX_SHARDS; s++)
		for (int p = 0; p < MAX_PARTITIONS; p++)
			if (fscanf(file, "%" SCNd64, &c->positions.next[s][p]) != 1)
				die("could not read \"%s\"", path);
	if (fscanf(file, "%d", &ngids) != 1)
		die("could not read \"%s\"", path);
	for (int i = 0; i < ngids; i++)
	{
		if (fscanf(file, "%199s", gid) != 1)
			die("could not read \"%s\"", path);
		checkpoint_add_gid(c, gid);
	}
	fclose(file);
}

/* The one before; false if there is none. */
static bool
go_back(const Checkpoint *c, Name *name)
{
	*name = (Name) {c->attempt, c->sequence - 1};
	if (c->sequence == 0)
		*name = c->copy_of;
	return name->attempt > 0;
}

/*
 * Read the last checkpoint, or one that many before it, and make it the next
 * attempt's first. False: there is none so old, "checkpoint" is the start.
 */
bool
checkpoint_load(Checkpoint *checkpoint, int older)
{
	Name	   *names;
	Name		name;
	int			n = list_names(&names);
	int64_t		attempt = n > 0 ? names[0].attempt + 1 : 1;
	int			writers = 0;
	bool		found = n > 0;

	free(checkpoint->gids);
	memset(checkpoint, 0, sizeof(*checkpoint));
	if (found)
	{
		read_file(&names[0], checkpoint);
		writers = checkpoint->writers;
	}
	while (found && older-- > 0)
	{
		found = go_back(checkpoint, &name);
		free(checkpoint->gids);
		memset(checkpoint, 0, sizeof(*checkpoint));
		if (found)
			read_file(&name, checkpoint);
	}
	free(names);
	checkpoint->copy_of = (Name) {checkpoint->attempt, checkpoint->sequence};
	checkpoint->attempt = attempt;
	checkpoint->sequence = 0;
	/* somebody has to open all the writers that there have been */
	checkpoint->writers = writers > config.parallel ? writers : config.parallel;
	return found;
}

static void
sync_and_close(int fd, const char *path)
{
	if (fd < 0 || fsync(fd) != 0 || close(fd) != 0)
		die("could not sync \"%s\": %s", path, strerror(errno));
}

void
checkpoint_write(const Checkpoint *c)
{
	char		path[PATH_MAX];
	char		temp[PATH_MAX];
	FILE	   *file;

	step("write");
	snprintf(path, sizeof(path), "%s/checkpoint.%" PRId64 ".%" PRId64, config.state,
			 c->attempt, c->sequence);
	snprintf(temp, sizeof(temp), "%s/new.%d", config.state, (int) getpid());
	file = fopen(temp, "w");
	if (file == NULL)
		die("could not create \"%s\": %s", temp, strerror(errno));
	fprintf(file, "%" PRId64 " %" PRId64 "\n", c->copy_of.attempt, c->copy_of.sequence);
	fprintf(file, "%d %" PRId64 " %d\n", c->restores, c->number, c->writers);
	for (int s = 0; s < MAX_SHARDS; s++)
		for (int p = 0; p < MAX_PARTITIONS; p++)
			fprintf(file, "%" PRId64 "%c", c->positions.next[s][p], p == MAX_PARTITIONS - 1 ? '\n' : ' ');
	fprintf(file, "%d\n", c->ngids);
	for (int i = 0; i < c->ngids; i++)
		fprintf(file, "%s\n", c->gids[i]);
	if (fflush(file) != 0 || fsync(fileno(file)) != 0 || fclose(file) != 0)
		die("could not write \"%s\": %s", temp, strerror(errno));
	step("synced");
	if (renameat2(AT_FDCWD, temp, AT_FDCWD, path, RENAME_NOREPLACE) != 0)
	{
		if (errno == EEXIST)
			exit(EXIT_FENCED);
		die("could not rename \"%s\": %s", temp, strerror(errno));
	}
	sync_and_close(open(config.state, O_RDONLY | O_DIRECTORY), config.state);
	step("written");
}
