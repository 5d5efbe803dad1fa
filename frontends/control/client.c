#include "frontends/control/client.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ANSWER_MAX (256U << 20)

struct control_client {
	int fd;
	char path[108];
	json_int_t next_id;
	struct rpc_framer in;
};

static int peer_check(int fd, const char *path, struct err *e)
{
	struct ucred u;
	socklen_t len = sizeof(u);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &len) < 0)
		return err_set(e, -errno, "cannot tell who serves %s: %s", path, strerror(errno));
	if (u.uid != 0 && u.uid != geteuid())
		return err_set(e, -EPERM, "the control socket %s is served by another user (uid %u); not using it", path, u.uid);
	return 0;
}

int control_client_open(const char *path, struct control_client **out, struct err *e)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct control_client *c;
	int fd, r;

	if (strlen(path) >= sizeof(sa.sun_path))
		return err_set(e, -ENAMETOOLONG, "the path of the control socket is longer than 107 bytes: %.64s...", path);
	memcpy(sa.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_set(e, -errno, "cannot make a socket: %s", strerror(errno));
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		r = err_set(e, -errno, "cannot connect to the control socket %s: %s", path, strerror(errno));
		goto out_close;
	}
	r = peer_check(fd, path, e);
	if (r < 0)
		goto out_close;
	c = xcalloc(1, sizeof(*c));
	c->fd = fd;
	snprintf(c->path, sizeof(c->path), "%s", path);
	rpc_framer_init(&c->in, ANSWER_MAX);
	*out = c;
	return 0;
out_close:
	close(fd);
	return r;
}

void control_client_close(struct control_client *c)
{
	if (!c)
		return;
	close(c->fd);
	rpc_framer_fini(&c->in);
	xfree(c);
}

static int send_all(struct control_client *c, const char *text, size_t len, struct err *e)
{
	ssize_t n;

	while (len) {
		n = send(c->fd, text, len, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(e, -errno, "cannot send to the daemon at %s: %s", c->path, strerror(errno));
		text += n;
		len -= (size_t)n;
	}
	return 0;
}

/* The next message. New reference. */
static int receive(struct control_client *c, unsigned timeout_ms, json_t **out, struct err *e)
{
	struct pollfd p = { .fd = c->fd, .events = POLLIN };
	const char *text;
	char *space;
	size_t len;
	ssize_t n;
	int r;

	while ((r = rpc_framer_next(&c->in, &text, &len)) == 0) {
		r = poll(&p, 1, timeout_ms ? (int)timeout_ms : -1);
		if (r < 0 && errno == EINTR)
			continue;
		if (r == 0)
			return err_set(e, -ETIMEDOUT, "the daemon at %s does not answer", c->path);
		space = rpc_framer_space(&c->in, &len);
		n = recv(c->fd, space, len, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(e, -errno, "cannot receive from the daemon at %s: %s", c->path, strerror(errno));
		if (n == 0)
			return err_set(e, -ECONNRESET, "the daemon at %s closed the connection without an answer", c->path);
		rpc_framer_received(&c->in, (size_t)n);
	}
	*out = r == 1 ? json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL) : NULL;
	if (!json_is_object(*out)) {
		json_decref(*out);
		return err_set(e, -EPROTO, "what answers at %s is not an ashlar daemon", c->path);
	}
	return 0;
}

int control_client_call(struct control_client *c, const char *method, const json_t *params, unsigned timeout_ms,
			void (*notify)(void *arg, const char *method, const json_t *params), void *arg, json_t **result,
			struct err *e)
{
	json_t *msg = rpc_request(method, params, ++c->next_id);
	size_t len;
	char *text = rpc_dump_line(msg, &len);
	int r = send_all(c, text, len, e);

	xfree(text);
	json_decref(msg);
	while (r == 0) {
		const char *note;

		r = receive(c, timeout_ms, &msg, e);
		if (r < 0)
			break;
		note = json_string_value(json_object_get(msg, "method"));
		if (note) {
			if (notify)
				notify(arg, note, json_object_get(msg, "params"));
			json_decref(msg);
			continue;
		}
		*result = json_object_get(msg, "result");
		if (*result)
			json_incref(*result);
		else
			r = rpc_error_load(json_object_get(msg, "error"), e);
		json_decref(msg);
		break;
	}
	return r;
}

int control_client_fd(const struct control_client *c) { return c->fd; }
