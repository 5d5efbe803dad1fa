/*
 * Send and receive. The data goes over a connection of its own (methods.h); these calls tell how far it is, and how it ended.
 */
#include <string.h>

#include "engine/base/units.h"
#include "engine/io/net.h"
#include "frontends/control/handlers.h"

#define PROGRESS_NS (200 * NS_PER_MS)

/* ---- streams ---- */

struct control_stream *control_stream_add(struct control_env *env)
{
	struct control_stream *s = xcalloc(1, sizeof(*s));

	s->env = env;
	s->id = ++env->last_stream;
	list_push_back(&env->streams, &s->link);
	return s;
}

void control_stream_remove(struct control_stream *s)
{
	list_del(&s->link);
	co_queue_wake_all(&s->env->streams_changed);
	xfree(s);
}

int control_co_stream_open(struct rpc_call *c, struct err *e)
{
	struct control_stream *s = control_stream_add(c->env);

	if (!c->lend || !c->lend(c->notify_arg, s)) {
		control_stream_remove(s);
		return err_set(e, -ENOTSUP, "this connection cannot carry data");
	}
	c->result = json_pack("{s:I}", "stream", (json_int_t)s->id);
	return 0;
}

static struct control_stream *stream_find(struct control_env *env, uint64_t id)
{
	struct control_stream *s;

	list_for_each (s, &env->streams, link)
		if (s->id == id && !s->is_taken)
			return s;
	return NULL;
}

/* It may still be sending its answer. */
static int stream_co_take(struct rpc_call *c, struct control_stream **out, struct err *e)
{
	struct control_env *env = c->env;
	uint64_t id = rpc_size(c, "stream", 0);
	struct control_stream *s;

	while ((s = stream_find(env, id)) && !s->is_ready)
		co_queue_wait(&env->streams_changed);
	if (!s)
		return err_set(e, -ENOENT, "there is no stream %llu, or it is in use", (unsigned long long)id);
	s->is_taken = true;
	*out = s;
	return 0;
}

static void stream_give_back(struct control_stream *s)
{
	stream_shutdown(s->io); /* what has been sent still arrives */
	s->is_over = true;
	co_queue_wake_all(&s->env->streams_changed);
}

/* ---- progress ---- */

static int percent_of(uint64_t done, uint64_t total)
{
	return total ? (int)((double)done * 100 / (double)total) : 100;
}

struct progress {
	struct rpc_call *c;
	const char *kind;
	uint64_t begin_ns, said_ns, begin_bytes;
	bool has_begun;
};

static void progress_init(struct progress *g, struct rpc_call *c, const char *kind)
{
	*g = (struct progress){ .c = c, .kind = kind };
}

static void progress_say(void *arg, uint64_t done, uint64_t total)
{
	struct progress *g = arg;
	uint64_t now = reactor_now_ns(), ns, rate;

	if (!g->has_begun) {
		g->has_begun = true;
		g->begin_ns = g->said_ns = now;
		g->begin_bytes = done;
	}
	if (!g->c->notify || now - g->said_ns < PROGRESS_NS)
		return;
	g->said_ns = now;
	ns = now - g->begin_ns;
	rate = (uint64_t)((double)(done - g->begin_bytes) * 1e9 / (double)ns);
	g->c->notify(g->c->notify_arg, "progress",
		     json_pack("{s:s, s:I, s:I, s:i, s:I, s:I}", "kind", g->kind, "done_bytes", (json_int_t)done, "total_bytes",
			       (json_int_t)total, "done_percent", percent_of(done, total), "bytes_per_second", (json_int_t)rate,
			       "seconds_left", (json_int_t)(rate ? (total - done) / rate : 0)));
}

static json_t *transfer_json(const char *pool, const struct ashlar_transfer *x)
{
	return json_pack("{s:o, s:o, s:I, s:I, s:I, s:I, s:I}", "snapshot", json_sprintf("%s/%s", pool, x->snapshot), "from",
			 *x->base ? control_json_text(x->base) : json_null(), "size_bytes", (json_int_t)x->size_bytes, "start_bytes",
			 (json_int_t)x->start_bytes, "data_bytes", (json_int_t)x->data_bytes, "zero_bytes", (json_int_t)x->zero_bytes,
			 "stream_bytes", (json_int_t)x->stream_bytes);
}

/* ---- the calls: they do not hold the gate while they run. The pool knows of them and waits for them when it closes. ---- */

int control_co_snapshot_send(struct rpc_call *c, struct err *e)
{
	struct ashlar_send_spec s = { .from = rpc_string(c, "from"), .resume = rpc_string(c, "resume"), .progress = progress_say };
	struct control_env *env = c->env;
	struct ashlar_transfer x;
	struct control_stream *st;
	struct point_name name;
	struct ashlar_pool *p;
	struct progress g;
	int r = stream_co_take(c, &st, e);

	if (r < 0)
		return r;
	progress_init(&g, c, "send");
	s.progress_arg = &g;
	r = control_snapshot_split(rpc_string(c, "snapshot"), &name, e);
	if (r == 0) {
		s.snapshot = name.rest;
		control_gate_co_enter(env);
		r = control_pool_find(env, name.pool, &p, e);
		control_gate_leave(env);
	}
	if (r == 0)
		r = ashlar_co_send(p, &s, st->io, &x, e);
	stream_give_back(st);
	if (r == 0)
		c->result = transfer_json(name.pool, &x);
	return r;
}

int control_co_snapshot_receive(struct rpc_call *c, struct err *e)
{
	struct ashlar_receive_spec s = { .layout = rpc_string(c, "layout"), .force = rpc_bool(c, "force"), .no_resume = rpc_bool(c, "no_resume"), .progress = progress_say };
	struct control_env *env = c->env;
	struct ashlar_transfer x;
	struct control_stream *st;
	struct volume_name name;
	struct ashlar_pool *p;
	struct progress g;
	int r = stream_co_take(c, &st, e);

	if (r < 0)
		return r;
	progress_init(&g, c, "receive");
	s.progress_arg = &g;
	control_gate_co_enter(env);
	r = control_call_volume(c, &name, &p, e);
	control_gate_leave(env);
	if (r == 0) {
		s.volume = name.volume;
		r = ashlar_co_receive(p, &s, st->io, &x, e);
	}
	stream_give_back(st);
	if (r == 0)
		c->result = transfer_json(name.pool, &x);
	return r;
}

/* ---- what is kept ---- */

static int receive_rows(struct ashlar_pool *p, json_t *out, struct err *e)
{
	struct ashlar_receive_info *v;
	struct ashlar_pool_info info;
	size_t i, n;
	int r = ashlar_co_receive_list(p, &v, &n, e);

	if (r < 0)
		return r;
	ashlar_co_pool_info(p, &info);
	for (i = 0; i < n; i++)
		json_array_append_new(
			out, json_pack("{s:o, s:s, s:I, s:I, s:I, s:i, s:b, s:b, s:s}", "volume", json_sprintf("%s/%s", info.name, v[i].volume),
				       "snapshot", v[i].snapshot, "size_bytes", (json_int_t)v[i].size_bytes, "received_bytes",
				       (json_int_t)v[i].received_bytes, "used_bytes", (json_int_t)v[i].used_bytes, "done_percent",
				       percent_of(v[i].received_bytes, v[i].size_bytes), "incremental", v[i].is_incremental, "running",
				       v[i].is_running, "token", v[i].token));
	xfree(v);
	return 0;
}

int control_co_receive_list(struct rpc_call *c, struct err *e)
{
	return control_co_rows(c, receive_rows, e);
}

int control_co_receive_abort(struct rpc_call *c, struct err *e)
{
	struct volume_name name;
	struct ashlar_pool *p;
	int r = control_call_volume(c, &name, &p, e);

	return r < 0 ? r : ashlar_co_receive_abort(p, name.volume, e);
}
