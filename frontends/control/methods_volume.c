#include "engine/base/units.h"
#include "engine/io/disk_uri.h"
#include "frontends/control/handlers.h"

static void set_u64(json_t *o, const char *key, uint64_t v) { json_object_set_new(o, key, control_json_u64(v)); }

static void set_limit(json_t *o, const char *key, int64_t v) { json_object_set_new(o, key, v ? json_integer(v) : json_null()); }

static json_t *volume_json(const char *pool, const struct ashlar_volume_info *v)
{
	json_t *o = json_object();

	json_object_set_new(o, "name", json_sprintf("%s/%s", pool, v->name));
	json_object_set_new(o, "pool", json_string(pool));
	json_object_set_new(o, "volume", json_string(v->name));
	set_u64(o, "id", v->id);
	set_u64(o, "size_bytes", v->size_bytes);
	set_u64(o, "refer_bytes", v->refer_bytes);
	set_u64(o, "used_bytes", v->used_bytes);
	set_u64(o, "exclusive_bytes", v->exclusive_bytes);
	set_u64(o, "snapshots", v->n_snapshots);
	json_object_set_new(o, "origin", *v->origin ? json_sprintf("%s/%s", pool, v->origin) : json_null());
	json_object_set_new(o, "policy_every", v->policy_every_ns ? control_json_duration(v->policy_every_ns) : json_null());
	set_u64(o, "policy_keep", v->policy_keep);
	json_object_set_new(o, "layout", json_string(v->layout));
	json_object_set_new(o, "full_wait", control_json_duration(v->full_wait_ns));
	json_object_set_new(o, "full_waiting", json_boolean(v->full_waiting));
	set_u64(o, "attached", v->n_attached);
	json_object_set_new(o, "moving", json_string(v->moving));
	json_object_set_new(o, "elsewhere", json_boolean(v->is_elsewhere));
	json_object_set_new(o, "created", control_json_time(v->created_wall_ns));
	set_u64(o, "reads", v->reads);
	set_u64(o, "writes", v->writes);
	set_u64(o, "bytes_read", v->bytes_read);
	set_u64(o, "bytes_written", v->bytes_written);
	set_limit(o, "iops", v->limits.iops);
	set_limit(o, "bps", v->limits.bps);
	set_limit(o, "burst_iops", v->limits.burst_iops);
	set_limit(o, "burst_bps", v->limits.burst_bps);
	set_limit(o, "burst_seconds", v->limits.burst_seconds);
	set_u64(o, "limited", v->limited);
	set_u64(o, "limited_ms", v->limited_ns / NS_PER_MS);
	set_u64(o, "limit_waiting", v->limit_waiting);
	json_object_set_new(o, "source", *v->source ? json_string(v->source) : json_null());
	return o;
}

int control_volume_row(struct ashlar_pool *p, const struct volume_name *name, json_t **out, struct err *e)
{
	struct ashlar_volume_info v;
	int r = ashlar_co_volume_info(p, name->volume, &v, e);

	if (r == 0)
		*out = volume_json(name->pool, &v);
	return r;
}

static int volume_rows(struct ashlar_pool *p, json_t *out, struct err *e)
{
	struct ashlar_pool_info info;
	struct ashlar_volume_info *v;
	size_t i, n;
	int r = ashlar_co_volume_list(p, &v, &n, e);

	if (r < 0)
		return r;
	ashlar_co_pool_info(p, &info);
	for (i = 0; i < n; i++)
		json_array_append_new(out, volume_json(info.name, &v[i]));
	xfree(v);
	return 0;
}

int control_co_volume_list(struct rpc_call *c, struct err *e)
{
	return control_co_rows(c, volume_rows, e);
}

int control_co_volume_show(struct rpc_call *c, struct err *e)
{
	struct volume_name name;
	struct ashlar_pool *p;
	int r = control_call_volume(c, &name, &p, e);

	return r < 0 ? r : control_volume_row(p, &name, &c->result, e);
}

/* -1: absent. */
static int64_t limit_param(const struct rpc_call *c, const char *key)
{
	return rpc_is_given(c, key) ? (int64_t)MIN(rpc_size(c, key, 0), (uint64_t)INT64_MAX) : -1;
}

static struct ashlar_limits limits_param(const struct rpc_call *c)
{
	return (struct ashlar_limits){ .iops = limit_param(c, "iops"),
				       .bps = limit_param(c, "bps"),
				       .burst_iops = limit_param(c, "burst_iops"),
				       .burst_bps = limit_param(c, "burst_bps"),
				       .burst_seconds = limit_param(c, "burst_seconds") };
}

static bool has_limits(const struct ashlar_limits *l)
{
	return l->iops >= 0 || l->bps >= 0 || l->burst_iops >= 0 || l->burst_bps >= 0 || l->burst_seconds >= 0;
}

int control_co_volume_create(struct rpc_call *c, struct err *e)
{
	struct volume_name name;
	struct ashlar_volume_spec s = {
		.size_bytes = rpc_size(c, "size", 0),
		.layout = rpc_string(c, "layout"),
		.full_wait_ns = rpc_duration(c, "full_wait", ASHLAR_FULL_WAIT_DEFAULT_NS),
		.from = rpc_string(c, "from"),
		.limits = limits_param(c),
	};
	struct ashlar_pool *p;
	int r = control_call_volume(c, &name, &p, e);

	if (r == 0 && (!s.from || rpc_is_given(c, "size")))
		r = control_check_size(s.size_bytes, e);
	if (r == 0 && s.from && *s.from != '/' && !disk_path_is_uri(s.from))
		r = err_set(e, RPC_ERR_PARAMS, "from: it must be an absolute path");
	if (r < 0)
		return r;
	s.name = name.volume;
	r = ashlar_co_volume_create(p, &s, e);
	return r < 0 ? r : control_volume_row(p, &name, &c->result, e);
}

int control_co_volume_resize(struct rpc_call *c, struct err *e)
{
	uint64_t size = rpc_size(c, "size", 0);
	struct ashlar_volume_info before;
	struct volume_name name;
	struct ashlar_pool *p;
	bool dry_run = rpc_bool(c, "dry_run");
	int r = control_call_volume(c, &name, &p, e);

	if (r == 0)
		r = control_check_size(size, e);
	if (r == 0)
		r = ashlar_co_volume_info(p, name.volume, &before, e);
	if (r < 0)
		return r;
	if (!dry_run) {
		r = ashlar_co_volume_resize(p, name.volume, size, rpc_bool(c, "force"), e);
		if (r < 0)
			return r;
	}
	c->result = json_pack("{s:s+++, s:I, s:I, s:b}", "name", name.pool, "/", name.volume, "", "size_bytes", (json_int_t)size,
			      "old_size_bytes", (json_int_t)before.size_bytes, "dry_run", dry_run);
	return 0;
}

int control_co_volume_rename(struct rpc_call *c, struct err *e)
{
	struct volume_name name, to;
	struct ashlar_pool *p;
	int r = control_call_volume(c, &name, &p, e);

	if (r == 0)
		r = control_name_split_new(rpc_string(c, "new_name"), &name, &to, e);
	if (r == 0)
		r = ashlar_co_volume_rename(p, name.volume, to.volume, e);
	return r < 0 ? r : control_volume_row(p, &to, &c->result, e);
}

int control_co_volume_set(struct rpc_call *c, struct err *e)
{
	struct ashlar_limits limits = limits_param(c);
	struct volume_name name;
	struct ashlar_pool *p;
	int r = control_call_volume(c, &name, &p, e);

	if (r == 0 && !rpc_is_given(c, "full_wait") && !has_limits(&limits))
		r = err_set(e, RPC_ERR_PARAMS, "nothing to set; settings are: full_wait, iops, bps, burst_iops, burst_bps, burst_seconds");
	if (r == 0 && has_limits(&limits)) /* first: it may refuse what it is given */
		r = ashlar_co_volume_set_limits(p, name.volume, &limits, e);
	if (r == 0 && rpc_is_given(c, "full_wait"))
		r = ashlar_co_volume_set_full_wait(p, name.volume, rpc_duration(c, "full_wait", 0), e);
	return r < 0 ? r : control_volume_row(p, &name, &c->result, e);
}

int control_co_volume_delete(struct rpc_call *c, struct err *e)
{
	struct volume_name name;
	struct ashlar_pool *p;
	struct ashlar_deleted gone;
	json_t *snapshots;
	size_t i;
	bool dry_run = rpc_bool(c, "dry_run");
	int r = control_call_volume(c, &name, &p, e);

	if (r == 0)
		r = ashlar_co_volume_delete(p, name.volume, rpc_bool(c, "force"), rpc_bool(c, "snapshots"), dry_run, &gone, e);
	if (r < 0)
		return r;
	snapshots = json_array();
	for (i = 0; i < gone.n_snapshots; i++)
		json_array_append_new(snapshots, json_sprintf("%s/%s", name.pool, gone.snapshots[i]));
	xfree(gone.snapshots);
	c->result = json_pack("{s:s+++, s:o, s:b, s:I, s:b}", "name", name.pool, "/", name.volume, "", "snapshots", snapshots,
			      "receive_dropped", gone.receive_dropped, "freed_bytes", (json_int_t)gone.freed_bytes, "dry_run", dry_run);
	return 0;
}

int control_co_volume_move_out(struct rpc_call *c, struct err *e)
{
	const char *target = rpc_string(c, "target");
	struct volume_name name;
	struct ashlar_pool *p;
	uint64_t job;
	int r = control_call_volume(c, &name, &p, e);

	if (r == 0 && *target != '/' && !disk_path_is_uri(target))
		r = err_set(e, RPC_ERR_PARAMS, "target: it must be an absolute path or a URI");
	if (r == 0)
		r = ashlar_co_volume_move_out(p, name.volume, target, rpc_bool(c, "force"), rpc_bool(c, "dry_run"), &job, e);
	if (r == 0)
		c->result = json_pack("{s:s+++, s:s, s:s, s:I, s:b}", "name", name.pool, "/", name.volume, "", "pool", name.pool, "target", target,
				      "job", (json_int_t)job, "dry_run", rpc_bool(c, "dry_run"));
	return r;
}
