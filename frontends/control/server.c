/*
 * Two coroutines per connection: the reader takes messages and runs their calls, one after the other; the writer sends
 * what is in `out`. So a notification can be put down from any place inside a call without suspending there.
 */
#include "frontends/control/server.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/units.h"
#include "frontends/control/methods.h"

struct control_server {
	struct world *world;
	struct control_server_options o;
	struct listener *listener;
	struct list conns;
	unsigned n_conns;
	bool is_stopping;
	struct co_queue ended; /* a connection has gone */
};

struct conn {
	struct list link;
	struct control_server *srv;
	struct stream *st;
	struct timer idle;
	struct rpc_framer in;
	char *out;
	size_t out_len, out_cap;
	bool is_busy;	  /* a call runs */
	bool is_dead;	  /* nothing can be sent any more */
	bool is_last;	  /* the writer ends when `out` is empty */
	bool has_writer;
	bool is_sending;  /* the writer is at it */
	struct control_stream *lent; /* it carries data, or is about to */
	struct co_queue out_filled, out_drained;
};

struct control_server *control_server_create(struct world *w, const struct control_server_options *o)
{
	struct control_server *s = xcalloc(1, sizeof(*s));

	s->world = w;
	s->o = *o;
	if (!s->o.max_connections)
		s->o.max_connections = 64;
	if (!s->o.idle_ns)
		s->o.idle_ns = 10 * NS_PER_SEC;
	if (!s->o.send_ns)
		s->o.send_ns = 30 * NS_PER_SEC;
	list_init(&s->conns);
	co_queue_init(&s->ended);
	return s;
}

unsigned control_server_connections(const struct control_server *s) { return s->n_conns; }

/* ---- output ---- */

static void conn_put(struct conn *c, const char *text, size_t len)
{
	if (c->is_dead)
		return;
	if (c->out_len + len > c->out_cap) {
		c->out_cap = MAX(c->out_cap * 2, c->out_len + len);
		c->out = xrealloc(c->out, c->out_cap);
	}
	memcpy(c->out + c->out_len, text, len);
	c->out_len += len;
	co_queue_wake_all(&c->out_filled);
}

static void conn_put_json(struct conn *c, json_t *j)
{
	size_t len;
	char *text = rpc_dump_line(j, &len);

	json_decref(j);
	conn_put(c, text, len);
	xfree(text);
}

static void conn_notify(void *arg, const char *method, json_t *params)
{
	struct conn *c = arg;
	json_t *j = rpc_notification(method, params);

	if (c->out_len < CONTROL_OUT_MAX)
		conn_put_json(c, j);
	else
		json_decref(j);
}

static void conn_die(struct conn *c)
{
	c->is_dead = true;
	c->out_len = 0;
	stream_shutdown(c->st);
	co_queue_wake_all(&c->out_drained);
}

static void conn_co_write(void *arg)
{
	struct conn *c = arg;

	for (;;) {
		struct iovec iov;
		char *text = c->out;
		int r;

		if (!c->out_len) {
			co_queue_wake_all(&c->out_drained);
			if (c->is_last)
				break;
			co_queue_wait(&c->out_filled);
			continue;
		}
		iov = (struct iovec){ .iov_base = text, .iov_len = c->out_len };
		c->out = NULL;
		c->out_len = c->out_cap = 0;
		c->is_sending = true;
		r = stream_co_send_all(c->st, &iov, 1, reactor_now_ns() + c->srv->o.send_ns);
		c->is_sending = false;
		xfree(text);
		if (r < 0)
			conn_die(c);
	}
	c->has_writer = false;
	co_queue_wake_all(&c->out_drained);
}

/* ---- input ---- */

static void conn_idle_fire(struct timer *t)
{
	struct conn *c = container_of(t, struct conn, idle);

	stream_shutdown(c->st);
}

static void conn_refuse(struct conn *c, int code, const char *text)
{
	struct err e = { 0 };

	err_set(&e, code, "%s", text);
	conn_put_json(c, rpc_error_answer(NULL, &e));
}

/* Bytes in memory (tests) are not lent: nobody would come for them. */
static bool conn_lend(void *arg, struct control_stream *s)
{
	struct conn *c = arg;

	if (c->lent || c->st->fd < 0)
		return false;
	c->lent = s;
	s->io = c->st;
	return true;
}

/* The answer goes out; then whoever has its number uses the stream. Who does not come in time finds it closed. */
static void conn_co_be_lent(struct conn *c)
{
	struct control_stream *s = c->lent;
	uint64_t deadline = reactor_now_ns() + c->srv->o.idle_ns;

	while ((c->out_len || c->is_sending) && !c->is_dead)
		co_queue_wait(&c->out_drained);
	s->is_ready = true;
	co_queue_wake_all(&s->env->streams_changed);
	while (s->is_taken ? !s->is_over : !c->srv->is_stopping && reactor_now_ns() < deadline)
		(void)!co_queue_wait_until(&s->env->streams_changed, s->is_taken ? UINT64_MAX : deadline);
	control_stream_remove(s);
}

static void conn_co_message(struct conn *c, const char *text, size_t len)
{
	struct rpc_call call = { .env = c->srv->o.env, .notify = conn_notify, .notify_arg = c, .lend = conn_lend };
	json_t *answer;

	c->is_busy = true;
	answer = rpc_co_handle(c->srv->o.methods, &call, text, len);
	if (answer)
		conn_put_json(c, answer);
	while (c->out_len > CONTROL_OUT_MAX && !c->is_dead)
		co_queue_wait(&c->out_drained);
	c->is_busy = false;
}

static void conn_co_read(struct conn *c)
{
	const char *text;
	size_t len;
	int64_t n;
	int r;

	while (!c->srv->is_stopping && !c->is_dead) {
		r = rpc_framer_next(&c->in, &text, &len);
		if (r < 0) {
			conn_refuse(c, RPC_ERR_REQUEST, "the message is longer than 1 MiB");
			break;
		}
		if (r == 1) {
			timer_cancel(&c->idle);
			conn_co_message(c, text, len);
			if (!c->lent)
				continue;
			conn_co_be_lent(c);
			break;
		}
		/* The clock runs from the first byte of a message, so that it cannot be fed drop by drop. */
		if (!rpc_framer_is_partial(&c->in))
			timer_cancel(&c->idle);
		else if (!timer_is_armed(&c->idle))
			timer_arm(&c->idle, reactor_now_ns() + c->srv->o.idle_ns);
		{
			char *space = rpc_framer_space(&c->in, &len);

			n = stream_co_recv(c->st, space, len);
		}
		if (n <= 0)
			break;
		rpc_framer_received(&c->in, (size_t)n);
	}
	timer_cancel(&c->idle);
}

static bool is_peer_allowed(const struct stream *st)
{
	struct ucred u;
	socklen_t len = sizeof(u);

	if (st->fd < 0)
		return true; /* bytes in memory */
	if (getsockopt(st->fd, SOL_SOCKET, SO_PEERCRED, &u, &len) < 0)
		return false;
	return u.uid == 0 || u.uid == geteuid();
}

void control_server_co_serve(struct control_server *s, struct stream *st)
{
	struct conn *c = xcalloc(1, sizeof(*c));

	c->srv = s;
	c->st = st;
	c->idle.fire = conn_idle_fire;
	rpc_framer_init(&c->in, RPC_MESSAGE_MAX);
	co_queue_init(&c->out_filled);
	co_queue_init(&c->out_drained);
	list_push_back(&s->conns, &c->link);
	s->n_conns++;
	c->has_writer = true;
	co_spawn(CO_SERVICE, conn_co_write, c, "control writer");
	if (!s->o.any_peer && !is_peer_allowed(st))
		conn_refuse(c, -EACCES, "only root and the user that the daemon runs as may use this socket");
	else if (s->n_conns > s->o.max_connections)
		conn_refuse(c, -EBUSY, "too many control connections; close one and try again");
	else if (!s->is_stopping)
		conn_co_read(c);
	c->is_last = true;
	co_queue_wake_all(&c->out_filled);
	while (c->has_writer)
		co_queue_wait(&c->out_drained);
	list_del(&c->link);
	s->n_conns--;
	stream_close(st);
	rpc_framer_fini(&c->in);
	xfree(c->out);
	xfree(c);
	co_queue_wake_all(&s->ended);
}

/* ---- listening ---- */

static void accept_co(void *arg, struct stream *st) { control_server_co_serve(arg, st); }

/* The directory of the socket: made if there is none; one in which strangers may rename files is refused. */
static int directory_prepare(const char *path, struct err *e)
{
	const char *slash = strrchr(path, '/');
	char dir[256];
	struct stat st;

	if (!slash)
		snprintf(dir, sizeof(dir), ".");
	else if (slash == path)
		snprintf(dir, sizeof(dir), "/");
	else
		snprintf(dir, sizeof(dir), "%.*s", (int)MIN(slash - path, (long)sizeof(dir) - 1), path);
	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return err_set(e, -errno, "cannot make the directory %s for the control socket: %s", dir, strerror(errno));
	if (stat(dir, &st) < 0)
		return err_set(e, -errno, "cannot use the directory %s for the control socket: %s", dir, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return err_set(e, -ENOTDIR, "%s, for the control socket, is not a directory", dir);
	if (st.st_uid != 0 && st.st_uid != geteuid())
		return err_set(e, -EPERM, "the directory %s of the control socket belongs to another user", dir);
	if ((st.st_mode & 0022) && !(st.st_mode & S_ISVTX))
		return err_set(e, -EPERM, "others may write to the directory %s of the control socket; make it mode 0700, or choose another",
			       dir);
	return 0;
}

int control_server_listen(struct control_server *s, const char *path, struct err *e)
{
	static const struct listen_ops ops = { .co_accept = accept_co };
	char addr[128];
	mode_t old;
	int r;

	if (strlen(path) > 107)
		return err_set(e, -ENAMETOOLONG, "the path of the control socket is longer than 107 bytes: %.64s...", path);
	r = directory_prepare(path, e);
	if (r < 0)
		return r;
	snprintf(addr, sizeof(addr), "unix:%s", path);
	old = umask(0177);
	r = listener_open(s->world, addr, &ops, s, &s->listener, e);
	umask(old);
	if (r < 0)
		return err_default(e, r, addr);
	return 0;
}

void control_server_co_destroy(struct control_server *s)
{
	struct conn *c;

	s->is_stopping = true;
	if (s->listener)
		listener_co_close(s->listener);
	list_for_each(c, &s->conns, link) {
		if (!c->is_busy)
			stream_shutdown(c->st);
		if (c->lent)
			co_queue_wake_all(&c->lent->env->streams_changed);
	}
	while (s->n_conns)
		co_queue_wait(&s->ended);
	xfree(s);
}
