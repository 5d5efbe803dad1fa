/*
 * Started by systemd, or by whoever does as it does: LISTEN_FDS (sockets that are open already, so that clients who come while
 * the daemon is being started again wait instead of being refused) and NOTIFY_SOCKET (it is told when all is ready, when we
 * stop, and that we live).
 */
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/base/units.h"
#include "frontends/cli/serve.h"

#define FIRST_FD 3

static uint64_t env_number(const char *name)
{
	const char *text = getenv(name);
	char *end;
	uint64_t n;

	if (!text || *text < '0' || *text > '9')
		return 0;
	n = strtoull(text, &end, 10);
	return *end ? 0 : n;
}

static bool env_is_for_us(const char *pid_name)
{
	return !getenv(pid_name) || env_number(pid_name) == (uint64_t)getpid();
}

static int fds_take(struct manager *m)
{
	uint64_t i, n = getenv("LISTEN_PID") && env_is_for_us("LISTEN_PID") ? env_number("LISTEN_FDS") : 0;

	if (n > MANAGER_FDS_MAX)
		return cli_failf("LISTEN_FDS: %llu sockets, at most %d", (unsigned long long)n, MANAGER_FDS_MAX);
	for (i = 0; i < n; i++) {
		m->fds[m->n_fds] = FIRST_FD + (int)i;
		if (fcntl(m->fds[m->n_fds], F_GETFD) < 0)
			return cli_failf("LISTEN_FDS: file descriptor %d is not open", m->fds[m->n_fds]);
		m->n_fds++;
	}
	return 0;
}

static int notify_open(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	size_t len = strlen(path);
	int fd;

	if ((*path != '/' && *path != '@') || len >= sizeof(a.sun_path))
		return -1;
	memcpy(a.sun_path, path, len);
	if (*path == '@')
		a.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

int manager_take(struct manager *m)
{
	static const char *const names[] = { "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID" };
	const char *notify = getenv("NOTIFY_SOCKET");
	size_t i;
	int r = fds_take(m);

	m->notify_fd = notify ? notify_open(notify) : -1;
	if (m->notify_fd >= 0 && env_is_for_us("WATCHDOG_PID"))
		m->watchdog_ns = env_number("WATCHDOG_USEC") * NS_PER_US;
	for (i = 0; i < ARRAY_LEN(names); i++)
		unsetenv(names[i]);
	return r;
}

static void tell(const struct manager *m, const char *text)
{
	if (m->notify_fd >= 0)
		(void)!send(m->notify_fd, text, strlen(text), MSG_NOSIGNAL);
}

static void watchdog_fire(struct timer *t)
{
	struct manager *m = container_of(t, struct manager, watchdog);

	tell(m, "WATCHDOG=1");
	timer_arm(t, reactor_now_ns() + m->watchdog_ns / 3);
}

void manager_ready(struct manager *m)
{
	tell(m, "READY=1\nSTATUS=serving");
	m->watchdog.fire = watchdog_fire;
	if (m->watchdog_ns)
		watchdog_fire(&m->watchdog);
}

void manager_stopping(struct manager *m)
{
	tell(m, "STOPPING=1\nSTATUS=closing pools");
}

void manager_end(struct manager *m)
{
	timer_cancel(&m->watchdog);
}
