/*
 * Families of volumes that move to another layout, or to another pool.
 */
#include "frontends/control/handlers.h"

static void set_u64(json_t *o, const char *key, uint64_t v) { json_object_set_new(o, key, control_json_u64(v)); }

static void info_set(json_t *o, const struct ashlar_move_info *i)
{
	json_object_set_new(o, "layout", i->layout ? json_string(i->layout) : json_null());
	set_u64(o, "volumes", i->n_volumes);
	set_u64(o, "snapshots", i->n_snapshots);
	set_u64(o, "used_bytes", i->used_bytes);
	set_u64(o, "free_bytes", i->free_bytes);
}

static int move_co_begin(struct rpc_call *c, struct ashlar_move_info *info, struct err *e)
{
	struct ashlar_move_spec s = { .volume = rpc_string(c, "volume"), .layout = rpc_string(c, "layout"), .dry_run = rpc_bool(c, "dry_run") };
	struct ashlar_pool *p;
	int r = control_call_pool(c, &p, e);

	if (r == 0 && rpc_is_given(c, "to"))
		r = control_pool_find(c->env, rpc_string(c, "to"), &s.to, e);
	if (r == 0 && !s.to && !s.layout)
		return err_set(e, RPC_ERR_PARAMS, "neither a pool nor a layout is given");
	return r < 0 ? r : ashlar_co_volume_move(p, &s, info, e);
}

int control_co_volume_move(struct rpc_call *c, struct err *e)
{
	struct ashlar_move_info info = { 0 };
	int r;

	control_gate_co_enter(c->env);
	r = move_co_begin(c, &info, e);
	control_gate_leave(c->env);
	if (r == 0 && info.job)
		r = control_job_co_wait(c, info.job, control_must_wait(c) ? UINT64_MAX : 0, e);
	if (r < 0)
		return r;
	if (!info.job)
		c->result = json_pack("{s:s, s:b}", "pool", rpc_string(c, "pool"), "dry_run", rpc_bool(c, "dry_run"));
	json_object_set_new(c->result, "volume", json_string(rpc_string(c, "volume")));
	info_set(c->result, &info);
	return 0;
}

int control_co_volume_take_back(struct rpc_call *c, struct err *e)
{
	struct ashlar_move_info info;
	struct volume_name name;
	struct ashlar_pool *p;
	int r = control_call_volume(c, &name, &p, e);

	if (r == 0)
		r = ashlar_co_volume_take_back(p, name.volume, rpc_bool(c, "force"), rpc_bool(c, "dry_run"), &info, e);
	if (r == 0)
		c->result = json_pack("{s:s+++, s:I, s:I, s:b}", "name", name.pool, "/", name.volume, "", "volumes", (json_int_t)info.n_volumes,
				      "snapshots", (json_int_t)info.n_snapshots, "dry_run", rpc_bool(c, "dry_run"));
	return r;
}

int control_co_pool_layout(struct rpc_call *c, struct err *e)
{
	struct ashlar_move_info info;
	struct ashlar_pool *p;
	int r = control_call_pool(c, &p, e);

	if (r == 0)
		r = ashlar_co_pool_set_layout(p, rpc_string(c, "layout"), rpc_bool(c, "dry_run"), &info, e);
	if (r < 0)
		return r;
	c->result = json_pack("{s:s, s:b}", "pool", rpc_string(c, "pool"), "dry_run", rpc_bool(c, "dry_run"));
	info_set(c->result, &info);
	return 0;
}
