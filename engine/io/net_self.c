/*
 * net_self.c: does a connection lead to this very process?
 *
 * By the address at its other end: one of our sockets that listen has it. Of TCP, only if the other end is this machine. Nothing is
 * known of what goes a way around (another host that forwards, a device of the kernel).
 */
#include <dirent.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/io/net.h"

struct addr {
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
		struct sockaddr_un un;
	};
	socklen_t len;
};

static bool addr_get(int fd, int (*get)(int fd, struct sockaddr *sa, socklen_t *len), struct addr *a)
{
	memset(a, 0, sizeof(*a));
	a->len = sizeof(*a) - sizeof(a->len);
	return get(fd, &a->sa, &a->len) == 0;
}

static bool hosts_are_same(const struct addr *x, const struct addr *y)
{
	if (x->sa.sa_family == AF_INET)
		return x->in.sin_addr.s_addr == y->in.sin_addr.s_addr;
	return IN6_ARE_ADDR_EQUAL(&x->in6.sin6_addr, &y->in6.sin6_addr);
}

/* A socket of IPv6 takes connections by IPv4 too, unless it has been told not to. */
static bool takes_all(int fd, const struct addr *l, const struct addr *peer)
{
	int only = 0;
	socklen_t len = sizeof(only);

	if (l->sa.sa_family == AF_INET)
		return l->in.sin_addr.s_addr == htonl(INADDR_ANY) && peer->sa.sa_family == AF_INET;
	if (peer->sa.sa_family == AF_INET && (getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, &len) < 0 || only))
		return false;
	return IN6_IS_ADDR_UNSPECIFIED(&l->in6.sin6_addr);
}

static bool is_that_listener(int fd, const struct addr *peer)
{
	int listens = 0;
	socklen_t len = sizeof(listens);
	struct addr l;

	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) < 0 || !listens || !addr_get(fd, getsockname, &l))
		return false;
	if (peer->sa.sa_family == AF_UNIX || l.sa.sa_family == AF_UNIX)
		return l.sa.sa_family == peer->sa.sa_family && l.len == peer->len && !memcmp(&l.un, &peer->un, l.len);
	if (l.in.sin_port != peer->in.sin_port) /* in the same place in both families */
		return false;
	return takes_all(fd, &l, peer) || (l.sa.sa_family == peer->sa.sa_family && hosts_are_same(&l, peer));
}

/* A relative path means something else to a process that runs elsewhere. */
static bool unix_is_certain(int fd, const struct addr *peer)
{
	struct ucred cred = { 0 };
	socklen_t len = sizeof(cred);

	return peer->un.sun_path[0] == '/' ||
	       (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 && cred.pid == getpid());
}

bool net_peer_is_self(int fd)
{
	struct addr peer, own;
	struct dirent *de;
	bool is = false;
	DIR *d;

	if (!addr_get(fd, getpeername, &peer) || !addr_get(fd, getsockname, &own))
		return false;
	if (peer.sa.sa_family == AF_UNIX ? !unix_is_certain(fd, &peer) : !hosts_are_same(&peer, &own))
		return false;
	d = opendir("/proc/self/fd");
	if (!d)
		return false;
	while (!is && (de = readdir(d)))
		is = de->d_name[0] != '.' && is_that_listener(atoi(de->d_name), &peer);
	closedir(d);
	return is;
}
