/*
 * Disks, and the background work that keeps them in step. Calls that wait do so in slices, so that a pool can be closed
 * meanwhile and a client that has gone is not waited for.
 */
#include <stdio.h>
#include <string.h>

#include "engine/base/units.h"
#include "frontends/control/handlers.h"

#define WAIT_MAX_NS (10 * NS_PER_SEC)
#define SLICE_NS (500 * NS_PER_MS)
#define STUCK_NS (10 * NS_PER_SEC)
#define EVENTS_MAX 256

static void set_u64(json_t *o, const char *key, uint64_t v) { json_object_set_new(o, key, control_json_u64(v)); }

/* ---- disks ---- */

int control_disk_rows(struct ashlar_pool *p, const char *pool, json_t *out, struct err *e)
{
	struct ashlar_disk_info *d;
	size_t i, n;
	int r = ashlar_co_disk_list(p, &d, &n, e);

	if (r < 0)
		return r;
	for (i = 0; i < n; i++) {
		json_t *o = json_object();

		json_object_set_new(o, "pool", json_string(pool));
		set_u64(o, "index", d[i].index);
		json_object_set_new(o, "path", control_json_text(d[i].path));
		json_object_set_new(o, "uuid", control_json_uuid(&d[i].uuid));
		json_object_set_new(o, "state", json_string(d[i].state));
		json_object_set_new(o, "reason", control_json_text(d[i].reason));
		json_object_set_new(o, "slow", json_boolean(d[i].slow));
		set_u64(o, "size_bytes", d[i].size_bytes);
		set_u64(o, "used_bytes", d[i].used_bytes);
		set_u64(o, "reads", d[i].reads);
		set_u64(o, "writes", d[i].writes);
		set_u64(o, "bytes_read", d[i].bytes_read);
		set_u64(o, "bytes_written", d[i].bytes_written);
		set_u64(o, "errors", d[i].errors);
		set_u64(o, "read_repairs", d[i].read_repairs);
		set_u64(o, "hedged", d[i].hedged);
		set_u64(o, "latency_us", d[i].latency_ns / NS_PER_US);
		json_array_append_new(out, o);
	}
	xfree(d);
	return 0;
}

int control_co_disk_list(struct rpc_call *c, struct err *e)
{
	struct control_env *env = c->env;
	struct ashlar_pool_info info;
	struct ashlar_pool *p;
	size_t i;
	int r = 0;

	c->result = json_array();
	if (rpc_is_given(c, "pool")) {
		r = control_call_pool(c, &p, e);
		return r < 0 ? r : control_disk_rows(p, rpc_string(c, "pool"), c->result, e);
	}
	for (i = 0; r == 0 && (p = ashlar_pool_at(env->a, i)); i++) {
		ashlar_co_pool_info(p, &info);
		r = control_disk_rows(p, info.name, c->result, e);
	}
	return r;
}

int control_co_disk_fail(struct rpc_call *c, struct err *e)
{
	bool dry_run = rpc_bool(c, "dry_run");
	struct ashlar_pool_info info;
	struct ashlar_pool *p;
	int r = control_call_pool(c, &p, e);

	if (r == 0)
		r = ashlar_co_disk_fail(p, rpc_string(c, "disk"), rpc_bool(c, "force"), dry_run, e);
	if (r < 0)
		return r;
	ashlar_co_pool_info(p, &info);
	c->result = json_pack("{s:s, s:s, s:b, s:i, s:i}", "pool", info.name, "disk", rpc_string(c, "disk"), "dry_run", dry_run,
			      "redundancy", info.redundancy, "redundancy_promised", info.redundancy_promised);
	return 0;
}

/* ---- jobs ---- */

static json_t *job_row(const char *pool, const struct ashlar_job_info *j)
{
	bool is_over = j->state >= ASHLAR_JOB_DONE;
	json_t *o = json_object();
	uint64_t percent = j->total_bytes ? (uint64_t)((unsigned __int128)j->done_bytes * 100 / j->total_bytes) : 0;

	json_object_set_new(o, "pool", json_string(pool));
	set_u64(o, "job", j->id);
	json_object_set_new(o, "kind", json_string(ashlar_job_kind_name(j->kind)));
	json_object_set_new(o, "state", json_string(ashlar_job_state_name(j->state)));
	json_object_set_new(o, "what", control_json_text(j->what));
	json_object_set_new(o, "result", control_json_text(j->result));
	set_u64(o, "total_bytes", j->total_bytes);
	set_u64(o, "done_bytes", j->done_bytes);
	set_u64(o, "done_percent", j->state == ASHLAR_JOB_DONE ? 100 : MIN(percent, 100));
	set_u64(o, "bytes_per_second", j->bytes_per_s);
	json_object_set_new(o, "seconds_left", j->left_ns == UINT64_MAX ? json_null() : control_json_u64(j->left_ns / NS_PER_SEC));
	set_u64(o, "started", j->started_wall_ns / NS_PER_SEC);
	if (!is_over && j->redundancy_promised) {
		json_object_set_new(o, "redundancy", json_integer(j->redundancy));
		json_object_set_new(o, "redundancy_promised", json_integer(j->redundancy_promised));
	}
	set_u64(o, "problems", j->problems);
	set_u64(o, "repaired", j->repaired);
	return o;
}

static bool job_has_ended(const struct ashlar_job_info *j)
{
	return j->state >= ASHLAR_JOB_DONE;
}

static int job_rows(struct ashlar_pool *p, json_t *out, struct err *e)
{
	struct ashlar_pool_info info;
	struct ashlar_job_info *j;
	size_t i, n;
	int r;

	ashlar_co_pool_info(p, &info);
	r = ashlar_co_job_list(p, &j, &n, e);
	if (r < 0)
		return r;
	for (i = 0; i < n; i++)
		json_array_append_new(out, job_row(info.name, &j[i]));
	xfree(j);
	return 0;
}

int control_co_job_list(struct rpc_call *c, struct err *e)
{
	return control_co_rows(c, job_rows, e);
}

/* Coroutine. One look at a job, after waiting a slice for its end. */
static int job_co_slice(struct rpc_call *c, uint64_t id, struct ashlar_job_info *j, struct err *e)
{
	struct control_env *env = c->env;
	struct ashlar_pool *p;
	int r;

	control_gate_co_enter(env);
	r = control_call_pool(c, &p, e);
	if (r == 0)
		r = ashlar_co_job_wait(p, id, SLICE_NS, j, e);
	control_gate_leave(env);
	return r;
}

static void job_progress(struct rpc_call *c, const struct ashlar_job_info *j)
{
	if (c->notify)
		c->notify(c->notify_arg, "progress", job_row(rpc_string(c, "pool"), j));
}

/* Coroutine. Some job of the pool is at work. */
static bool jobs_co_run(struct rpc_call *c)
{
	struct ashlar_job_info *j;
	struct ashlar_pool *p;
	bool any = false;
	size_t i, n;

	control_gate_co_enter(c->env);
	if (control_call_pool(c, &p, NULL) == 0 && ashlar_co_job_list(p, &j, &n, NULL) == 0) {
		for (i = 0; i < n; i++)
			any |= j[i].state == ASHLAR_JOB_RUNNING;
		xfree(j);
	}
	control_gate_leave(c->env);
	return any;
}

/* Coroutine. Without a daemon whoever waits is the only one who could change anything: where nothing has gone on for a while, nothing
 * ever will. */
static int job_co_check_stuck(struct rpc_call *c, const struct ashlar_job_info *j, uint64_t *since_ns, struct err *e)
{
	const struct control_env *env = c->env;
	uint64_t now = world_now_ns(reactor_self()->world);

	if (env->status || j->state != ASHLAR_JOB_WAITING || jobs_co_run(c)) {
		*since_ns = 0;
	} else if (!*since_ns) {
		*since_ns = now;
	} else if (now - *since_ns >= STUCK_NS) {
		return err_set(e, -EAGAIN, "the %s of %s %s: nothing goes on meanwhile, so this command does not wait; it is done when the pool is "
			       "served, or by the same command another time", ashlar_job_kind_name(j->kind), j->what, j->result);
	}
	return 0;
}

/* Coroutine. Waits for the job's end, at most max_ns, telling how far it is. */
int control_job_co_wait(struct rpc_call *c, uint64_t id, uint64_t max_ns, struct err *e)
{
	uint64_t now = world_now_ns(reactor_self()->world), end = max_ns > UINT64_MAX - now ? UINT64_MAX : now + max_ns;
	uint64_t stuck_since_ns = 0;
	struct ashlar_job_info j;
	int r;

	do {
		r = job_co_slice(c, id, &j, e);
		if (r < 0)
			return r;
		job_progress(c, &j);
		r = job_co_check_stuck(c, &j, &stuck_since_ns, e);
		if (r < 0)
			return r;
	} while (!job_has_ended(&j) && world_now_ns(reactor_self()->world) < end);
	c->result = job_row(rpc_string(c, "pool"), &j);
	return 0;
}

int control_co_job_wait(struct rpc_call *c, struct err *e)
{
	return control_job_co_wait(c, rpc_size(c, "job", 0), WAIT_MAX_NS, e);
}

int control_co_job_pause(struct rpc_call *c, struct err *e)
{
	struct ashlar_pool *p;
	int r = control_call_pool(c, &p, e);

	return r < 0 ? r : ashlar_co_job_pause(p, rpc_size(c, "job", 0), !rpc_bool(c, "resume"), e);
}

int control_co_job_stop(struct rpc_call *c, struct err *e)
{
	struct ashlar_pool *p;
	int r = control_call_pool(c, &p, e);

	return r < 0 ? r : ashlar_co_job_stop(p, rpc_size(c, "job", 0), e);
}

/* Without a daemon the pool is closed when the call returns, so the work is waited for. */
bool control_must_wait(const struct rpc_call *c)
{
	const struct control_env *env = c->env;

	return rpc_bool(c, "wait") || !env->status;
}

int control_co_scrub(struct rpc_call *c, struct err *e)
{
	struct control_env *env = c->env;
	struct ashlar_pool *p;
	uint64_t id;
	int r;

	control_gate_co_enter(env);
	r = control_call_pool(c, &p, e);
	if (r == 0)
		r = ashlar_co_scrub_start(p, rpc_bool(c, "repair"), &id, e);
	control_gate_leave(env);
	return r < 0 ? r : control_job_co_wait(c, id, control_must_wait(c) ? UINT64_MAX : 0, e);
}

/* Coroutine. The newest resync that has not ended: 0 if there is none. */
static int resync_co_find(struct rpc_call *c, uint64_t *id, struct err *e)
{
	struct control_env *env = c->env;
	struct ashlar_job_info *j;
	struct ashlar_pool *p;
	size_t i, n;
	int r;

	*id = 0;
	control_gate_co_enter(env);
	r = control_call_pool(c, &p, e);
	if (r == 0)
		r = ashlar_co_job_list(p, &j, &n, e);
	for (i = 0; r == 0 && i < n; i++)
		if (j[i].kind == ASHLAR_JOB_RESYNC && !job_has_ended(&j[i]))
			*id = j[i].id;
	if (r == 0)
		xfree(j);
	control_gate_leave(env);
	return r;
}

int control_co_disk_online(struct rpc_call *c, struct err *e)
{
	struct control_env *env = c->env;
	struct ashlar_disk_info was = { .state = "" };
	struct ashlar_pool *p;
	uint64_t id = 0;
	int r;

	control_gate_co_enter(env);
	r = control_call_pool(c, &p, e);
	if (r == 0)
		r = ashlar_co_disk_info(p, rpc_string(c, "disk"), &was, e);
	if (r == 0)
		r = ashlar_co_disk_online(p, rpc_string(c, "disk"), rpc_string(c, "path"), e);
	control_gate_leave(env);
	if (r == 0 && control_must_wait(c))
		r = resync_co_find(c, &id, e);
	if (r == 0 && id)
		r = control_job_co_wait(c, id, UINT64_MAX, e);
	if (r == 0 && !id)
		c->result = json_pack("{s:s, s:s, s:s}", "pool", rpc_string(c, "pool"), "disk", rpc_string(c, "disk"), "was", was.state);
	return r;
}

/* ---- events ---- */

static json_t *event_row(const struct ashlar_event *ev)
{
	json_t *o = json_object();

	set_u64(o, "seq", ev->seq);
	json_object_set_new(o, "time", json_real((double)(ev->wall_ns / NS_PER_MS) / 1000));
	json_object_set_new(o, "severity", json_string(ashlar_severity_name(ev->severity)));
	json_object_set_new(o, "type", json_string(ev->type));
	json_object_set_new(o, "pool", json_string(ev->pool));
	if (*ev->disk)
		json_object_set_new(o, "disk", control_json_text(ev->disk));
	if (*ev->volume)
		json_object_set_new(o, "volume", json_string(ev->volume));
	json_object_set_new(o, "text", control_json_text(ev->text));
	return o;
}

int control_co_events(struct rpc_call *c, struct err *e)
{
	struct control_env *env = c->env;
	uint64_t wait_ns = MIN(rpc_duration(c, "wait", 0), WAIT_MAX_NS);
	struct ashlar_event *v;
	size_t i, n;
	int r = ashlar_co_events(env->a, rpc_size(c, "since", 0), EVENTS_MAX, wait_ns, &v, &n, e);

	if (r < 0)
		return r;
	c->result = json_array();
	for (i = 0; i < n; i++)
		json_array_append_new(c->result, event_row(&v[i]));
	xfree(v);
	return 0;
}
