/*
 * Disks that join a pool, and what moves between disks.
 */
#include <string.h>

#include "frontends/control/handlers.h"

static void set_u64(json_t *o, const char *key, uint64_t v) { json_object_set_new(o, key, control_json_u64(v)); }

int control_co_disk_add(struct rpc_call *c, struct err *e)
{
	const json_t *disks = rpc_strings(c, "disks");
	bool dry_run = rpc_bool(c, "dry_run");
	struct ashlar_pool_info info;
	struct ashlar_pool *p;
	const char **paths;
	json_t *one;
	size_t i;
	int r = control_call_pool(c, &p, e);

	if (r < 0)
		return r;
	paths = xcalloc(json_array_size(disks) + 1, sizeof(*paths));
	json_array_foreach(disks, i, one)
		paths[i] = json_string_value(one);
	r = ashlar_co_disk_add(p, paths, json_array_size(disks), rpc_bool(c, "force"), dry_run, e);
	xfree(paths);
	if (r < 0)
		return r;
	ashlar_co_pool_info(p, &info);
	c->result = json_pack("{s:s, s:O, s:b, s:i}", "pool", info.name, "added", disks, "dry_run", dry_run, "disks", (int)info.n_disks);
	set_u64(c->result, "free_bytes", info.free_bytes);
	return 0;
}

enum relocation { EVACUATE, REMOVE, REPLACE, REBALANCE };

static int relocation_co_begin(struct rpc_call *c, enum relocation what, struct ashlar_relocation *out, struct err *e)
{
	const char *disk = what == REBALANCE ? NULL : rpc_string(c, "disk");
	bool dry_run = rpc_bool(c, "dry_run");
	struct ashlar_pool *p;
	int r = control_call_pool(c, &p, e);

	if (r < 0)
		return r;
	switch (what) {
	case EVACUATE: return ashlar_co_disk_evacuate(p, disk, dry_run, out, e);
	case REMOVE: return ashlar_co_disk_remove(p, disk, dry_run, out, e);
	case REPLACE: return ashlar_co_disk_replace(p, disk, rpc_string(c, "path"), rpc_bool(c, "force"), dry_run, out, e);
	default: return ashlar_co_pool_rebalance(p, dry_run, out, e);
	}
}

/* The plan, or the job's row with the plan beside it. */
static int relocate_co(struct rpc_call *c, enum relocation what, struct err *e)
{
	struct ashlar_relocation rel = { 0 };
	int r;

	control_gate_co_enter(c->env);
	r = relocation_co_begin(c, what, &rel, e);
	control_gate_leave(c->env);
	if (r == 0 && rel.job)
		r = control_job_co_wait(c, rel.job, control_must_wait(c) ? UINT64_MAX : 0, e);
	if (r < 0)
		return r;
	if (!rel.job)
		c->result = json_pack("{s:s, s:b}", "pool", rpc_string(c, "pool"), "dry_run", true);
	if (what != REBALANCE)
		json_object_set_new(c->result, "disk", json_string(rpc_string(c, "disk")));
	set_u64(c->result, "copy_bytes", rel.copy_bytes);
	set_u64(c->result, "columns", rel.n_columns);
	json_object_set_new(c->result, "redundancy", json_integer(rel.redundancy));
	json_object_set_new(c->result, "redundancy_promised", json_integer(rel.redundancy_promised));
	return 0;
}

int control_co_disk_evacuate(struct rpc_call *c, struct err *e) { return relocate_co(c, EVACUATE, e); }
int control_co_disk_remove(struct rpc_call *c, struct err *e) { return relocate_co(c, REMOVE, e); }
int control_co_disk_replace(struct rpc_call *c, struct err *e) { return relocate_co(c, REPLACE, e); }
int control_co_rebalance(struct rpc_call *c, struct err *e) { return relocate_co(c, REBALANCE, e); }
