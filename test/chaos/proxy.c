/*-------------------------------------------------------------------------
 *
 * proxy.c
 *	  Stands between clients and a server, and loses answers.
 *
 *	proxy LISTEN SERVER			paths of unix sockets
 *
 * Commands come on stdin, a line each; what was done, or has happened, is told on stdout.
 *
 *	server PATH					new connections go there (a promoted standby)
 *	cut HOW NTH TEXT			lose a connection: at the nth request from now on
 *								that has the text in it
 *
 *	request		the request doesn't reach the server
 *	answer		the server answers, and nobody hears it
 *	midway		the request is on its way, and both ends find nobody there
 *	linger		as answer, but the server goes on believing in its client, until
 *				some more requests of others have passed
 *
 * A request is what a client sends at once, its first part if it's long.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MAX_CONNECTIONS 100
#define MAX_RULES 16
#define LINGER 20				/* requests */

typedef enum How
{
	NONE, REQUEST, ANSWER, MIDWAY, LINGERING
} How;

static const char *const how_name[] = {"", "request", "answer", "midway", "linger"};

typedef struct Rule
{
	How			how;
	int			nth;
	char		text[64];
} Rule;

/* A client and its session with the server; -1 is closed. */
typedef struct Connection
{
	int			client;
	int			server;
	How			lose;			/* at the end of the answer under way */
	char		text[64];		/* of the rule */
	uint8_t		header[5];		/* of the server's current message */
	int			nheader;
	uint32_t	rest;			/* bytes of it that are to come */
	int			linger;			/* requests until the server's end is closed, too */
} Connection;

static Connection connections[MAX_CONNECTIONS];
static int	nconnections;
static Rule rules[MAX_RULES];
static int	nrules;
static char server_path[108];

static void
fail(const char *what)
{
	fprintf(stderr, "proxy: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int
open_socket(const char *path, bool listens)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int			fd = socket(AF_UNIX, SOCK_STREAM, 0);
	int			status;

	if (fd < 0)
		fail("socket");
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (listens)
		status = bind(fd, (struct sockaddr *) &address, sizeof(address)) == 0 ? listen(fd, 100) : -1;
	else
		status = connect(fd, (struct sockaddr *) &address, sizeof(address));
	if (status == 0)
		return fd;
	if (listens)
		fail(path);
	close(fd);
	return -1;
}

static void
close_end(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void
hang_up(Connection *c)
{
	close_end(&c->client);
	close_end(&c->server);
}

static bool
pass_on(int fd, const char *data, size_t n)
{
	while (n > 0)
	{
		ssize_t		sent = send(fd, data, n, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			return false;
		data += sent;
		n -= (size_t) sent;
	}
	return true;
}

/* The rule that this request is the turn of, removed; NULL if there is none. */
static const Rule *
rule_for(const char *data, size_t n)
{
	static Rule found;

	for (int i = 0; i < nrules; i++)
	{
		if (memmem(data, n, rules[i].text, strlen(rules[i].text)) == NULL || --rules[i].nth > 0)
			continue;
		found = rules[i];
		rules[i] = rules[--nrules];
		return &found;
	}
	return NULL;
}

static void
told(How how, const char *text)
{
	printf("cut %s %s\n", how_name[how], text);
	fflush(stdout);
}

static void
from_client(Connection *c)
{
	char		data[65536];
	ssize_t		n = recv(c->client, data, sizeof(data), 0);
	const Rule *rule;

	if (n <= 0)
	{
		hang_up(c);
		return;
	}
	for (int i = 0; i < nconnections; i++)
		if (connections[i].linger > 0 && --connections[i].linger == 0)
			hang_up(&connections[i]);
	rule = rule_for(data, (size_t) n);
	if (rule && rule->how == REQUEST)
	{
		told(rule->how, rule->text);
		hang_up(c);
		return;
	}
	if (!pass_on(c->server, data, (size_t) n))
	{
		hang_up(c);
		return;
	}
	if (rule && rule->how == MIDWAY)
	{
		told(rule->how, rule->text);
		hang_up(c);
	}
	else if (rule)
	{
		c->lose = rule->how;
		snprintf(c->text, sizeof(c->text), "%s", rule->text);
	}
}

/* Follow the server's messages: does ReadyForQuery end in here? */
static bool
answer_ends(Connection *c, const uint8_t *data, size_t n)
{
	bool		ends = false;

	while (n > 0)
	{
		size_t		part;

		if (c->nheader < 5)
		{
			c->header[c->nheader++] = *data++;
			n--;
			if (c->nheader == 5)
				c->rest = ((uint32_t) c->header[1] << 24 | (uint32_t) c->header[2] << 16 |
						   (uint32_t) c->header[3] << 8 | c->header[4]) - 4;
		}
		part = c->nheader < 5 ? 0 : c->rest < n ? c->rest : n;
		data += part;
		n -= part;
		c->rest -= (uint32_t) part;
		if (c->nheader == 5 && c->rest == 0)
		{
			ends |= c->header[0] == 'Z';
			c->nheader = 0;
		}
	}
	return ends;
}

static void
from_server(Connection *c)
{
	char		data[65536];
	ssize_t		n = recv(c->server, data, sizeof(data), 0);
	bool		ends;

	if (n <= 0)
	{
		hang_up(c);
		return;
	}
	ends = answer_ends(c, (uint8_t *) data, (size_t) n);
	if (c->lose != NONE && ends)
	{
		told(c->lose, c->text);
		close_end(&c->client);
		if (c->lose == LINGERING)
			c->linger = LINGER;
		else
			close_end(&c->server);
		c->lose = NONE;
	}
	else if (c->client >= 0 && !pass_on(c->client, data, (size_t) n))
		hang_up(c);
}

static void
command(void)
{
	char		line[256];
	char		how[16];
	Rule	   *rule = &rules[nrules];

	if (fgets(line, sizeof(line), stdin) == NULL)
		exit(0);
	line[strcspn(line, "\n")] = '\0';
	if (sscanf(line, "server %107s", server_path) == 1)
	{
		/* whoever is connected to the old one finds nobody there */
		for (int i = 0; i < nconnections; i++)
			hang_up(&connections[i]);
		printf("done\n");
		fflush(stdout);
		return;
	}
	if (nrules == MAX_RULES ||
		sscanf(line, "cut %15s %d %63[^\n]", how, &rule->nth, rule->text) != 3)
		fail(line);
	for (How h = REQUEST; h <= LINGERING; h++)
		if (strcmp(how_name[h], how) == 0)
		{
			rule->how = h;
			nrules++;
		}
}

static void
accept_client(int listener)
{
	Connection	c = {.client = accept(listener, NULL, NULL), .server = open_socket(server_path, false)};

	if (c.client < 0 || c.server < 0 || nconnections == MAX_CONNECTIONS)
		hang_up(&c);
	else
		connections[nconnections++] = c;
}

int
main(int argc, char **argv)
{
	int			listener;

	if (argc != 3)
	{
		fprintf(stderr, "usage: proxy LISTEN SERVER\n");
		return 1;
	}
	/* whole lines, or poll() wouldn't see what is in the buffer already */
	setvbuf(stdin, NULL, _IONBF, 0);
	snprintf(server_path, sizeof(server_path), "%s", argv[2]);
	listener = open_socket(argv[1], true);
	for (;;)
	{
		struct pollfd fds[2 + 2 * MAX_CONNECTIONS];
		int			n = nconnections;
		int			kept = 0;

		fds[0] = (struct pollfd) {.fd = STDIN_FILENO, .events = POLLIN};
		fds[1] = (struct pollfd) {.fd = listener, .events = POLLIN};
		for (int i = 0; i < n; i++)
		{
			fds[2 + 2 * i] = (struct pollfd) {.fd = connections[i].client, .events = POLLIN};
			fds[3 + 2 * i] = (struct pollfd) {.fd = connections[i].server, .events = POLLIN};
		}
		if (poll(fds, (nfds_t) (2 + 2 * n), -1) < 0 && errno != EINTR)
			fail("poll");
		for (int i = 0; i < n; i++)
		{
			if (connections[i].client >= 0 && fds[2 + 2 * i].revents)
				from_client(&connections[i]);
			if (connections[i].server >= 0 && fds[3 + 2 * i].revents)
				from_server(&connections[i]);
		}
		if (fds[1].revents)
			accept_client(listener);
		if (fds[0].revents)
			command();
		for (int i = 0; i < nconnections; i++)
			if (connections[i].client >= 0 || connections[i].server >= 0)
				connections[kept++] = connections[i];
		nconnections = kept;
	}
}
