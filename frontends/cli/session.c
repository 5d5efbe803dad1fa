#include "frontends/cli/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/base/units.h"
#include "engine/io/disk_uri.h"
#include "engine/io/net.h"
#include "engine/io/real.h"
#include "frontends/control/client.h"
#include "frontends/control/methods.h"
#include "frontends/control/names.h"

#define FIRST_ANSWER_MS 10000
#define LOCKED_WAIT_NS (2 * NS_PER_SEC)
#define LOCAL_STREAM 1 /* the number of the only one there is in this process */
#define LOCKED_RETRY_NS (100 * NS_PER_MS)

struct cli_session {
	const struct cli *cl;
	struct control_client *daemon; /* NULL: none */
	json_t *served;		       /* its pools */
	char control[128];
	char **disks;
	size_t n_disks;
	bool is_env;  /* disks come from $ASHLAR_DISKS */
	cli_notify notify;
	void *notify_arg;
	/* cli_session_stream(): a connection to the daemon, or two ends of one in this process; -1: closed */
	struct control_client *data;
	int data_ours, data_engine;
	/* the engine in this process; NULL until needed */
	struct world *world;
	struct ashlar *a;
	struct control_env env;
};

/* One job for reactor 0 of the world in this process. */
struct local_run {
	struct cli_session *s;
	const char *pool, *method;
	const json_t *params;
	unsigned flags;
	bool with_unread, incomplete, no_pool;
	size_t n_found; /* pools, by local_co_list() */
	struct ashlar_looked looked;
	json_t *result;
	struct err *e;
};

/* ---- where things are ---- */

void cli_control_path(const struct cli *cl, char *buf, size_t len)
{
	const char *env = getenv("ASHLAR_CONTROL"), *dir = getenv("XDG_RUNTIME_DIR");

	if (cli_has(cl, OPT_CONTROL))
		snprintf(buf, len, "%s", cl->values[OPT_CONTROL]);
	else if (env && *env)
		snprintf(buf, len, "%s", env);
	else if (geteuid() == 0)
		snprintf(buf, len, "/run/ashlar/control.sock");
	else if (dir && *dir)
		snprintf(buf, len, "%s/ashlar.sock", dir);
	else
		*buf = '\0';
}

int cli_io(const struct cli *cl, enum real_io *io, struct err *e)
{
	const char *env = getenv("ASHLAR_IO"), *text = cli_has(cl, OPT_IO) ? cl->values[OPT_IO] : env && *env ? env : "auto";
	char q[72];

	if (real_io_parse(text, io))
		return 0;
	return err_set(e, -EINVAL, "%s is '%s'; it can be uring, aio or auto", cli_has(cl, OPT_IO) ? "--io" : "$ASHLAR_IO",
		       control_name_quote(text, q, sizeof(q)));
}

char **cli_disks_from_env(size_t *n)
{
	const char *list = getenv("ASHLAR_DISKS"), *s;
	char **v = NULL;
	size_t len;

	*n = 0;
	while (list && (s = disk_path_next(&list, &len))) {
		v = xrealloc(v, (*n + 1) * sizeof(*v));
		v[*n] = xcalloc(1, len + 1);
		memcpy(v[(*n)++], s, len);
	}
	return v;
}

void cli_disks_free(char **v, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		xfree(v[i]);
	xfree(v);
}

void cli_log(void *arg, const char *line) { fprintf(stderr, "ashlar: %s\n", line); }

/* ---- open, close ---- */

static void daemon_connect(struct cli_session *s)
{
	struct err e = { 0 };
	int r;

	cli_control_path(s->cl, s->control, sizeof(s->control));
	if (!*s->control)
		return;
	r = control_client_open(s->control, &s->daemon, &e);
	if (r == 0)
		r = control_client_call(s->daemon, "pool.list", NULL, FIRST_ANSWER_MS, NULL, NULL, &s->served, &e);
	if (r == 0)
		return;
	control_client_close(s->daemon);
	s->daemon = NULL;
	if (r != -ENOENT && r != -ECONNREFUSED && r != -ENOTDIR)
		cli_log(NULL, e.text);
}

struct cli_session *cli_session_open(const struct cli *cl)
{
	struct cli_session *s = xcalloc(1, sizeof(*s));

	s->cl = cl;
	s->data_ours = s->data_engine = -1;
	s->disks = cli_disks_from_env(&s->n_disks);
	s->is_env = s->n_disks > 0;
	daemon_connect(s);
	return s;
}

static void fd_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static int local_co_end(void *arg)
{
	struct cli_session *s = arg;

	ashlar_co_destroy(s->a);
	return 0;
}

void cli_session_close(struct cli_session *s)
{
	if (s->world) {
		real_world_run(s->world, local_co_end, s);
		real_world_destroy(s->world);
	}
	control_client_close(s->daemon);
	control_client_close(s->data);
	fd_close(&s->data_ours);
	fd_close(&s->data_engine);
	json_decref(s->served);
	cli_disks_free(s->disks, s->n_disks);
	xfree(s);
}

void cli_session_on_notify(struct cli_session *s, cli_notify fn, void *arg)
{
	s->notify = fn;
	s->notify_arg = arg;
}

/* ---- in this process ---- */

static int local_co_begin(void *arg)
{
	struct cli_session *s = arg;
	struct ashlar_options o = { .log = cli_log };

	s->a = ashlar_create(s->world, &o);
	control_env_init(&s->env, s->a);
	return 0;
}

static int local_run(struct local_run *run, int (*fn)(void *arg))
{
	struct real_options o = { .n_reactors = 1 };
	struct cli_session *s = run->s;
	int r;

	if (!s->world) {
		r = cli_io(s->cl, &o.io, run->e);
		if (r == 0)
			r = real_world_create(&o, &s->world, run->e);
		if (r < 0)
			return err_default(run->e, r, "starting the engine");
		real_world_run(s->world, local_co_begin, s);
	}
	r = real_world_run(s->world, fn, run);
	return err_default(run->e, r, run->method);
}

static void local_notify(void *arg, const char *method, json_t *params)
{
	struct cli_session *s = arg;

	if (s->notify)
		s->notify(s->notify_arg, method, params);
	json_decref(params);
}

/* Likewise: whoever serves the pool serves its exports as they are set. */
static void export_as_set(json_t *row)
{
	json_t *set = json_object_get(row, "set_read_only");

	if (set)
		json_object_set(row, "read_only", set);
}

static int local_co_call(struct local_run *run)
{
	struct cli_session *s = run->s;
	struct rpc_call c = { .env = &s->env, .params = run->params, .notify = local_notify, .notify_arg = s };
	json_t *row;
	size_t i;
	int r = rpc_co_call(control_methods, run->method, &c, run->e);

	if (r < 0)
		return r;
	run->result = c.result;
	export_as_set(run->result);
	json_array_foreach(run->result, i, row)
		export_as_set(row);
	/* Opened read-only to look at it: that says nothing about the pool. */
	if (json_object_get(run->result, "read_only") && !strncmp(run->method, "pool.", 5))
		json_object_set_new(run->result, "read_only", json_null());
	return 0;
}

/* The engine's end is its while the call runs. */
static int local_co_call_with_data(struct local_run *run)
{
	struct cli_session *s = run->s;
	struct control_stream *data;
	int r;

	if (s->data_engine < 0)
		return local_co_call(run);
	data = control_stream_add(&s->env);
	CHECK(data->id == LOCAL_STREAM);
	data->io = stream_from_fd(s->world, s->data_engine);
	data->is_ready = true;
	s->data_engine = -1;
	r = local_co_call(run);
	stream_close(data->io);
	control_stream_remove(data);
	return r;
}

static int local_co_here(void *arg) { return local_co_call(arg); }

/* The pool may be gone by the call itself; whatever is open is closed, and a failure to do so is a failure. */
static int local_co_close(struct cli_session *s, int r, struct err *e)
{
	struct ashlar_pool *p;
	struct err ce = { 0 };
	int cr;

	while ((p = ashlar_pool_at(s->a, 0))) {
		cr = ashlar_co_pool_close(p, &ce);
		if (cr < 0 && r >= 0) {
			err_default(&ce, cr, "closing the pool");
			*e = ce;
			r = cr;
		}
	}
	return r;
}

int cli_co_pool_open(struct ashlar *a, const char *name, const char *const *paths, size_t n_paths, unsigned flags,
		     struct ashlar_pool **out, struct err *e)
{
	uint64_t end = world_now_ns(ashlar_world(a)) + LOCKED_WAIT_NS;
	int r;

	while ((r = ashlar_co_pool_open(a, name, paths, n_paths, flags, out, e)) == -ERR_LOCKED) {
		if (world_now_ns(ashlar_world(a)) >= end)
			break;
		co_sleep_ns(LOCKED_RETRY_NS);
	}
	return r;
}

static int local_co_on_pool(void *arg)
{
	struct local_run *run = arg;
	struct cli_session *s = run->s;
	struct ashlar_pool *p;
	int r = cli_co_pool_open(s->a, run->pool, (const char *const *)s->disks, s->n_disks,
				 run->flags & SESSION_READ ? ASHLAR_OPEN_RDONLY : 0, &p, run->e);

	if (r < 0) {
		run->no_pool = r == -ENOENT;
		return r;
	}
	r = local_co_call_with_data(run);
	return local_co_close(s, r, run->e);
}

/* ---- lists ---- */

static bool is_served(const struct cli_session *s, const struct uuid *u)
{
	char text[UUID_TEXT_LEN];
	size_t i;

	uuid_format(u, text);
	for (i = 0; i < json_array_size(s->served); i++) {
		const char *have = json_string_value(json_object_get(json_array_get(s->served, i), "uuid"));

		if (have && !strcmp(have, text))
			return true;
	}
	return false;
}

static void unread_note(struct local_run *run, const struct ashlar_found *f, const char *why)
{
	char uuid[UUID_TEXT_LEN];

	run->incomplete = true;
	if (!run->with_unread) {
		fprintf(stderr, "ashlar: pool %s is left out: %s\n", f->name, why);
		return;
	}
	json_array_append_new(run->result, json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:s}", "name", f->name, "uuid",
						     uuid_format(&f->uuid, uuid), "state", f->in_use ? "in use" : "unreadable",
						     "health", f->in_use ? "unknown" : "failed", "disks", (int)f->n_disks,
						     "disks_online", (int)f->n_present, "reason", why));
}

static void rows_take(json_t *to, json_t *from, const char *state)
{
	json_t *row;
	size_t i;

	json_array_foreach(from, i, row) {
		if (state)
			json_object_set_new(row, "state", json_string(state));
		if (state && !strcmp(state, "idle"))
			json_object_set_new(row, "read_only", json_null());
		json_array_append(to, row);
	}
	json_decref(from);
}

static void found_co_list(struct local_run *run, const struct ashlar_found *f)
{
	struct local_run one = *run;
	struct ashlar_pool *p;
	struct err e = { 0 };
	int r;

	if (f->in_use) {
		unread_note(run, f, "another process uses its disks");
		return;
	}
	one.e = &e;
	r = ashlar_co_pool_open(run->s->a, f->name, (const char *const *)f->paths, f->n_paths, ASHLAR_OPEN_RDONLY, &p, &e);
	if (r == 0) {
		one.result = NULL;
		r = local_co_call(&one);
		r = local_co_close(run->s, r, &e);
		if (r == 0)
			rows_take(run->result, one.result, run->with_unread ? "idle" : NULL);
	}
	if (r < 0) {
		err_default(&e, r, f->name);
		unread_note(run, f, e.text);
	}
}

static int local_co_list(void *arg)
{
	struct local_run *run = arg;
	struct cli_session *s = run->s;
	struct ashlar_found *f;
	size_t i, n;
	int r = ashlar_co_discover(s->a, (const char *const *)s->disks, s->n_disks, &f, &n, &run->looked, run->e);

	if (r < 0)
		return r;
	run->n_found = n;
	for (i = 0; i < n; i++)
		if (!is_served(s, &f[i].uuid))
			found_co_list(run, &f[i]);
	ashlar_found_free(f, n);
	return 0;
}

/* There is no pool at all: a list that is empty for that reason says so. */
static void nothing_found_say(const struct cli_session *s, const struct local_run *run)
{
	const struct ashlar_looked *l = &run->looked;

	if (run->n_found || json_array_size(s->served))
		return;
	if (s->daemon && !s->is_env)
		fprintf(stderr, "ashlar: the daemon at %s serves no pool; if there are others, have $ASHLAR_DISKS name their disks\n",
			s->control);
	else if (l->n_unread)
		fprintf(stderr, "ashlar: no pool was found, and %zu of %zu disk%s could not be read: %s%s\n", l->n_unread, l->n_disks,
			l->n_disks == 1 ? "" : "s", l->why.text,
			err_to_errno(l->why.code) == -EACCES ? "; run this as root, or as a user who may read them" : "");
	else if (s->is_env)
		fprintf(stderr, "ashlar: no pool was found on the %zu disk%s that $ASHLAR_DISKS names; `ashlar pool create` makes one\n",
			l->n_disks, l->n_disks == 1 ? "" : "s");
	else
		fprintf(stderr, "ashlar: no pool was found on %zu block device%s; if disks are files, have $ASHLAR_DISKS name them or their "
			"directory\n", l->n_disks, l->n_disks == 1 ? "" : "s");
}

int cli_session_list(struct cli_session *s, const char *method, bool with_unread, json_t **rows, bool *incomplete, struct err *e)
{
	struct local_run run = { .s = s, .method = method, .with_unread = with_unread, .e = e };
	json_t *served = NULL;
	int r = 0;

	*incomplete = false;
	run.result = json_array();
	if (s->daemon) {
		r = control_client_call(s->daemon, method, NULL, 0, NULL, NULL, &served, e);
		if (r == 0)
			rows_take(run.result, served, with_unread ? "served" : NULL);
	}
	/* With a daemon at hand the block devices are not searched unasked: it has them. */
	if (r == 0 && (!s->daemon || s->is_env))
		r = local_run(&run, local_co_list);
	if (r < 0) {
		json_decref(run.result);
		return r;
	}
	nothing_found_say(s, &run);
	*rows = run.result;
	*incomplete = run.incomplete;
	return 0;
}

/* ---- calls ---- */

static bool daemon_holds(const struct cli_session *s, const char *pool)
{
	size_t i, n = json_array_size(s->served);

	if (!s->daemon)
		return false;
	if (!pool)
		return n > 0;
	for (i = 0; i < n; i++) {
		const char *name = json_string_value(json_object_get(json_array_get(s->served, i), "name"));

		if (name && !strcmp(name, pool))
			return true;
	}
	return false;
}

/* A sentence that helps when the pool is nowhere. */
static void nowhere_hint(const struct cli_session *s, const char *pool, struct err *e)
{
	size_t n;

	if (pool && !strstr(e->text, pool))
		err_prefix(e, "pool %s was not found: ", pool);
	n = strlen(e->text);

	snprintf(e->text + n, sizeof(e->text) - n, " (%s%s%s; $ASHLAR_DISKS %s)",
		 s->daemon ? "the daemon at " : *s->control ? "no daemon answers at " : "no control socket", s->control,
		 s->daemon ? " does not hold it" : "", s->is_env ? "was searched" : "is not set, so block devices were searched: have it name the disks' files or directory");
}

int cli_session_call(struct cli_session *s, const char *pool, const char *method, const json_t *params, unsigned flags, json_t **result,
		 struct err *e)
{
	struct local_run run = { .s = s, .pool = pool, .method = method, .params = params, .flags = flags, .e = e };
	int r;

	if (daemon_holds(s, pool))
		return control_client_call(s->daemon, method, params, 0, s->notify, s->notify_arg, result, e);
	r = local_run(&run, local_co_on_pool);
	fd_close(&s->data_engine); /* if it has not come so far */
	if (r < 0 && run.no_pool)
		nowhere_hint(s, pool, e);
	*result = run.result;
	return r;
}

static int daemon_stream(struct cli_session *s, int *fd, json_int_t *number, struct err *e)
{
	json_t *answer;
	int r = control_client_open(s->control, &s->data, e);

	if (r == 0)
		r = control_client_call(s->data, "stream.open", NULL, FIRST_ANSWER_MS, NULL, NULL, &answer, e);
	if (r < 0)
		return r;
	*number = json_integer_value(json_object_get(answer, "stream"));
	json_decref(answer);
	*fd = control_client_fd(s->data);
	return 0;
}

int cli_session_stream(struct cli_session *s, const char *pool, int *fd, json_int_t *number, struct err *e)
{
	int sv[2];

	if (daemon_holds(s, pool))
		return daemon_stream(s, fd, number, e);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return err_set(e, -errno, "cannot make a pair of sockets: %s", strerror(errno));
	s->data_ours = *fd = sv[0];
	s->data_engine = sv[1];
	*number = LOCAL_STREAM;
	return 0;
}

int cli_session_call_here(struct cli_session *s, const char *method, const json_t *params, json_t **result, struct err *e)
{
	struct local_run run = { .s = s, .method = method, .params = params, .e = e };
	int r = local_run(&run, local_co_here);

	*result = run.result;
	return r;
}

int cli_session_call_daemon(struct cli_session *s, const char *method, const json_t *params, json_t **result, struct err *e)
{
	if (!s->daemon)
		return err_set(e, -ENOTCONN, "no daemon answers at %s; start one by `ashlar serve`", *s->control ? s->control : "(no control socket)");
	return control_client_call(s->daemon, method, params, 0, s->notify, s->notify_arg, result, e);
}
