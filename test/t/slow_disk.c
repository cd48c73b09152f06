/*-------------------------------------------------------------------------
 *
 * slow_disk.c
 *	  A slow disk for the TAP tests: loaded before libc, it holds up those who
 *	  read some files.
 *
 * SLOW_DISK names a file whose lines are "slow NAME" or "stop NAME". While it
 * exists, whoever reads a file whose path ends like a NAME takes 50 ms longer, or
 * goes on only once the file of lines is gone; which a file ".stopped" tells.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static void
be_slow(int fd)
{
	const char *list = getenv("SLOW_DISK");
	FILE	   *file = list ? fopen(list, "r") : NULL;
	char		link[64];
	char		path[1024];
	char		line[1024];
	ssize_t		length;

	if (file == NULL)
		return;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = readlink(link, path, sizeof(path));
	while (length > 0 && fgets(line, sizeof(line), file) != NULL)
	{
		char	   *name = line + strlen("slow ");
		size_t		n = strcspn(name, "\n");

		if (n == 0 || (size_t) length < n || memcmp(path + length - n, name, n) != 0)
			continue;
		if (strncmp(line, "slow", 4) == 0)
			usleep(50000);
		else
		{
			char		mark[1024];
			FILE	   *stopped;

			snprintf(mark, sizeof(mark), "%s.stopped", list);
			if ((stopped = fopen(mark, "w")) != NULL)
				fclose(stopped);
			while (access(list, F_OK) == 0)
				usleep(10000);
		}
	}
	fclose(file);
}

#define SLOW(name, buffer_type, count_type) \
ssize_t \
name(int fd, buffer_type buffer, count_type count, off_t offset) \
{ \
	static ssize_t (*real) (int, buffer_type, count_type, off_t); \
\
	if (real == NULL) \
		*(void **) &real = dlsym(RTLD_NEXT, #name); \
	be_slow(fd); \
	return real(fd, buffer, count, offset); \
}

SLOW(pread, void *, size_t)
SLOW(pread64, void *, size_t)
SLOW(preadv, const struct iovec *, int)
SLOW(preadv64, const struct iovec *, int)
