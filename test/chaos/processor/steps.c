/*-------------------------------------------------------------------------
 *
 * steps.c
 *	  The named steps of the processor, and the faults that it meets there.
 *
 * A fault is "who:step:nth:what": when that process comes to that step for
 * the nth time it
 *
 *	kill	dies, as by kill -9
 *	stop	halts, until somebody sends SIGCONT: a zombie to be
 *	hold	waits for a line on stdin, while the driver does something
 *
 * and says so on stdout, where the driver hears it.
 *
 *-------------------------------------------------------------------------
 */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "processor.h"
#include "session.h"

#define MAX_FAULTS 8
#define MAX_NAME 32

typedef struct Fault
{
	char		who[MAX_NAME];
	char		step[MAX_NAME];
	int			nth;
	char		what[MAX_NAME];
} Fault;

static Fault faults[MAX_FAULTS];
static int	nfaults;
static char self[MAX_NAME] = "coordinator";

/* Who this process is. */
void
steps_of(const char *name)
{
	snprintf(self, sizeof(self), "%s", name);
}

void
steps_fault(const char *spec)
{
	Fault	   *fault = &faults[nfaults++];

	if (nfaults > MAX_FAULTS ||
		sscanf(spec, "%31[^:]:%31[^:]:%d:%31s", fault->who, fault->step, &fault->nth, fault->what) != 4)
		die("fault \"%s\" isn't who:step:nth:what", spec);
}

/* One line to the driver: a single write, as others write there, too. */
void
tell(const char *fmt,...)
{
	char		line[512];
	int			len = snprintf(line, sizeof(line), "%s ", self);
	va_list		ap;

	va_start(ap, fmt);
	len += vsnprintf(line + len, sizeof(line) - (size_t) len - 1, fmt, ap);
	va_end(ap);
	line[len++] = '\n';
	if (write(STDOUT_FILENO, line, (size_t) len) != len)
		exit(EXIT_RESTART);		/* the driver is gone */
}

void
step(const char *name)
{
	for (int i = 0; i < nfaults; i++)
	{
		Fault	   *fault = &faults[i];
		char		go;

		if (strcmp(fault->step, name) != 0 || strcmp(fault->who, self) != 0 || --fault->nth != 0)
			continue;
		tell("%s %s %d %d", fault->what, name, (int) getpid(), session_backend());
		if (strcmp(fault->what, "kill") == 0)
			raise(SIGKILL);
		else if (strcmp(fault->what, "stop") == 0)
			raise(SIGSTOP);
		else if (read(STDIN_FILENO, &go, 1) != 1)
			exit(EXIT_RESTART);
	}
}
