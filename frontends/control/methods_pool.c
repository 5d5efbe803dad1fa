#include <string.h>

#include "engine/base/units.h"
#include "frontends/control/handlers.h"

#define DISKS_MAX 128
#define FINDINGS_MAX 1000
#define PROGRESS_NS (200 * NS_PER_MS)

static void set_u64(json_t *o, const char *key, uint64_t v) { json_object_set_new(o, key, control_json_u64(v)); }

/* What holds now, also as a sentence. */
static void pool_row_redundancy(json_t *o, const struct ashlar_pool_info *i)
{
	json_object_set_new(o, "redundancy", json_integer(i->redundancy));
	json_object_set_new(o, "redundancy_promised", json_integer(i->redundancy_promised));
	set_u64(o, "groups", i->n_groups);
	set_u64(o, "groups_degraded", i->n_groups_degraded);
	set_u64(o, "groups_lost", i->n_groups_lost);
	set_u64(o, "rebuild_left_bytes", i->rebuild_left_bytes);
	set_u64(o, "stripes_full", i->stripes_full);
	set_u64(o, "stripes_rmw", i->stripes_rmw);
	set_u64(o, "stripes_rcw", i->stripes_rcw);
	set_u64(o, "writes_assembled", i->assembled);
	set_u64(o, "log_writes", i->log_writes);
	set_u64(o, "log_bytes", i->log_bytes);
	set_u64(o, "reads_hedged", i->hedged);
	if (i->redundancy < 0)
		json_object_set_new(o, "redundancy_text", json_sprintf("%llu of %llu groups cannot be read: too many disks are missing",
								       (unsigned long long)i->n_groups_lost, (unsigned long long)i->n_groups));
	else if (i->redundancy < i->redundancy_promised || i->n_groups_degraded)
		json_object_set_new(o, "redundancy_text",
				    json_sprintf("%d of %d disk failures can still be survived (%llu of %llu groups degraded)", i->redundancy,
						 i->redundancy_promised, (unsigned long long)i->n_groups_degraded,
						 (unsigned long long)i->n_groups));
	else if (i->redundancy == 0)
		json_object_set_new(o, "redundancy_text", json_string("none: a disk that fails takes data with it"));
	else
		json_object_set_new(o, "redundancy_text", json_sprintf("full: %d disk failure%s can be survived", i->redundancy,
								       i->redundancy == 1 ? "" : "s"));
}

static void pool_row_settings(json_t *o, struct ashlar_pool *p)
{
	struct ashlar_pool_settings s;

	ashlar_co_pool_settings(p, &s);
	json_object_set_new(o, "rebuild_delay", control_json_duration(s.rebuild_delay_ns));
	set_u64(o, "pace_floor_bytes", s.pace_floor_bps);
	set_u64(o, "pace_ceiling_bytes", s.pace_ceiling_bps);
	json_object_set_new(o, "hedge", control_json_duration(s.hedge_ns));
	json_object_set_new(o, "timeout", control_json_duration(s.timeout_ns));
}

static json_t *pool_row(struct ashlar_pool *p)
{
	struct ashlar_pool_info i;
	json_t *o = json_object();

	ashlar_co_pool_info(p, &i);
	json_object_set_new(o, "name", json_string(i.name));
	json_object_set_new(o, "uuid", control_json_uuid(&i.uuid));
	json_object_set_new(o, "health", json_string(ashlar_health_name(i.health)));
	json_object_set_new(o, "layout", json_string(i.layout));
	json_object_set_new(o, "read_only", json_boolean(i.read_only));
	set_u64(o, "disks", i.n_disks);
	set_u64(o, "disks_online", i.n_disks_online);
	set_u64(o, "volumes", i.n_volumes);
	set_u64(o, "raw_bytes", i.raw_bytes);
	set_u64(o, "raw_used_bytes", i.raw_used_bytes);
	set_u64(o, "used_bytes", i.used_bytes);
	set_u64(o, "free_bytes", i.free_bytes);
	set_u64(o, "used_percent", i.used_bytes + i.free_bytes
					   ? (uint64_t)((unsigned __int128)i.used_bytes * 100 / (i.used_bytes + i.free_bytes))
					   : 100);
	set_u64(o, "metadata_bytes", i.metadata_bytes);
	set_u64(o, "metadata_cache_bytes", i.metadata_cache_bytes);
	set_u64(o, "metadata_cache_limit_bytes", i.metadata_cache_limit_bytes);
	set_u64(o, "cluster_bytes", i.cluster_bytes);
	set_u64(o, "block_bytes", i.block_bytes);
	set_u64(o, "group_bytes", i.group_bytes);
	set_u64(o, "checkpoint", i.checkpoint);
	set_u64(o, "resync_total_bytes", i.resync_total_bytes);
	set_u64(o, "resync_done_bytes", i.resync_done_bytes);
	set_u64(o, "open_ns", i.open_ns);
	set_u64(o, "errors_read", i.errors_read);
	set_u64(o, "errors_write", i.errors_write);
	set_u64(o, "errors_repaired", i.errors_repaired);
	set_u64(o, "errors_metadata_repaired", i.errors_metadata_repaired);
	pool_row_redundancy(o, &i);
	return o;
}

int control_co_pool_list(struct rpc_call *c, struct err *e)
{
	struct control_env *env = c->env;
	struct ashlar_pool *p;
	size_t i;

	c->result = json_array();
	for (i = 0; (p = ashlar_pool_at(env->a, i)); i++)
		json_array_append_new(c->result, pool_row(p));
	return 0;
}

int control_co_pool_show(struct rpc_call *c, struct err *e)
{
	struct ashlar_pool *p;
	int r = control_call_pool(c, &p, e);

	if (r < 0)
		return r;
	c->result = pool_row(p);
	pool_row_settings(c->result, p);
	return 0;
}

int control_co_pool_set(struct rpc_call *c, struct err *e)
{
	struct ashlar_pool_settings s;
	struct ashlar_pool *p;
	int r = control_call_pool(c, &p, e);

	if (r < 0)
		return r;
	if (!rpc_is_given(c, "rebuild_delay") && !rpc_is_given(c, "pace_floor") && !rpc_is_given(c, "pace_ceiling") &&
	    !rpc_is_given(c, "hedge") && !rpc_is_given(c, "timeout"))
		return err_set(e, RPC_ERR_PARAMS,
			       "nothing to set; settings are: rebuild_delay, pace_floor, pace_ceiling, hedge, timeout");
	ashlar_co_pool_settings(p, &s);
	s.rebuild_delay_ns = rpc_duration(c, "rebuild_delay", s.rebuild_delay_ns);
	s.pace_floor_bps = rpc_size(c, "pace_floor", s.pace_floor_bps);
	s.pace_ceiling_bps = rpc_size(c, "pace_ceiling", s.pace_ceiling_bps);
	s.hedge_ns = rpc_duration(c, "hedge", s.hedge_ns);
	s.timeout_ns = rpc_duration(c, "timeout", s.timeout_ns);
	r = ashlar_co_pool_set(p, &s, e);
	if (r == 0) {
		c->result = pool_row(p);
		pool_row_settings(c->result, p);
	}
	return r;
}

/* ---- create, destroy ---- */

static int create_check(const struct rpc_call *c, size_t n_disks, struct err *e)
{
	uint64_t cluster = rpc_size(c, "cluster", 0);
	int r = control_check_pool(rpc_string(c, "pool"), e);

	if (r < 0)
		return r;
	if (n_disks == 0)
		return err_set(e, -EINVAL, "a pool needs at least one disk");
	if (n_disks > DISKS_MAX)
		return err_set(e, -E2BIG, "a pool has at most %d disks, not %zu", DISKS_MAX, n_disks);
	if (cluster && (cluster > UINT32_MAX || !IS_POW2(cluster)))
		return err_set(e, -EINVAL, "the cluster size must be a power of two below 4G");
	return 0;
}

static int create_and_open(struct rpc_call *c, const struct ashlar_pool_spec *s, struct err *e)
{
	struct control_env *env = c->env;
	struct ashlar_pool *p;
	int r;

	if (ashlar_pool_find(env->a, s->name))
		return err_set(e, -EEXIST, "a pool named %s is open here already", s->name);
	r = ashlar_co_pool_create(env->a, s, e);
	if (r < 0)
		return r;
	if (rpc_bool(c, "serve") && !s->dry_run) {
		r = ashlar_co_pool_open(env->a, s->name, s->paths, s->n_paths, 0, &p, e);
		if (r < 0) {
			err_prefix(e, "pool %s was created but cannot be opened: ", s->name);
			return r;
		}
	}
	return 0;
}

int control_co_pool_create(struct rpc_call *c, struct err *e)
{
	struct control_env *env = c->env;
	const json_t *disks = rpc_strings(c, "disks");
	size_t i, n = json_array_size(disks);
	struct ashlar_pool_spec s = {
		.name = rpc_string(c, "pool"),
		.layout = rpc_string(c, "layout"),
		.n_paths = n,
		.force = rpc_bool(c, "force"),
		.dry_run = rpc_bool(c, "dry_run"),
		.cluster_bytes = (uint32_t)rpc_size(c, "cluster", 0),
		.group_bytes = rpc_size(c, "group", 0),
	};
	const char **paths;
	int r = create_check(c, n, e);

	if (r < 0)
		return r;
	if (env->read_only && rpc_bool(c, "serve"))
		return err_set(e, -EROFS, "this daemon serves read-only; it does not make pools");
	paths = xcalloc(n, sizeof(*paths));
	for (i = 0; i < n; i++)
		paths[i] = json_string_value(json_array_get(disks, i));
	s.paths = paths;
	r = create_and_open(c, &s, e);
	xfree(paths);
	if (r == 0)
		c->result = json_pack("{s:s, s:O, s:b}", "name", s.name, "disks", disks, "dry_run", s.dry_run);
	return r;
}

int control_co_pool_destroy(struct rpc_call *c, struct err *e)
{
	struct ashlar_pool_info info;
	struct ashlar_pool *p;
	json_t *disks;
	bool dry_run = rpc_bool(c, "dry_run");
	int r = control_call_pool(c, &p, e);

	if (r < 0)
		return r;
	ashlar_co_pool_info(p, &info);
	disks = json_array();
	r = control_disk_rows(p, info.name, disks, e);
	if (r == 0)
		r = ashlar_co_pool_destroy(p, rpc_bool(c, "force"), dry_run, e);
	if (r < 0) {
		json_decref(disks);
		return r;
	}
	c->result = json_pack("{s:s, s:b, s:I, s:I, s:I, s:o}", "name", info.name, "dry_run", dry_run, "volumes",
			      (json_int_t)info.n_volumes, "used_bytes", (json_int_t)info.used_bytes, "raw_bytes",
			      (json_int_t)info.raw_bytes, "disks", disks);
	return 0;
}

/* ---- check ---- */

struct check_run {
	struct rpc_call *call;
	json_t *findings;
	uint64_t last_ns;
};

static void check_say(void *arg, const char *sentence)
{
	struct check_run *run = arg;

	if (json_array_size(run->findings) < FINDINGS_MAX)
		json_array_append_new(run->findings, control_json_text(sentence));
}

static void check_progress(void *arg, uint64_t done, uint64_t total)
{
	struct check_run *run = arg;
	uint64_t now = world_now_ns(reactor_self()->world);

	if (!run->call->notify || (done < total && now - run->last_ns < PROGRESS_NS))
		return;
	run->last_ns = now;
	run->call->notify(run->call->notify_arg, "progress",
			  json_pack("{s:s, s:I, s:I}", "method", "pool.check", "done", (json_int_t)done, "total", (json_int_t)total));
}

int control_co_pool_check(struct rpc_call *c, struct err *e)
{
	struct control_env *env = c->env;
	struct check_run run = { .call = c };
	struct ashlar_check_options o = {
		.data = rpc_bool(c, "data"),
		.say = check_say,
		.progress = check_progress,
		.arg = &run,
	};
	struct ashlar_pool_info info;
	struct ashlar_pool *p;
	int64_t n;
	int r = control_call_pool(c, &p, e);

	if (r < 0)
		return r;
	run.findings = json_array();
	env->n_checks++;
	n = ashlar_co_pool_check(p, &o, e);
	env->n_checks--;
	if (n < 0) {
		json_decref(run.findings);
		return (int)n;
	}
	ashlar_co_pool_info(p, &info);
	c->result = json_pack("{s:s, s:I, s:o, s:b, s:s}", "name", info.name, "problems", (json_int_t)n, "findings", run.findings,
			      "data", o.data, "health", ashlar_health_name(info.health));
	return 0;
}
