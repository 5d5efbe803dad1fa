#include <stdio.h>
#include <string.h>

#include "engine/base/units.h"
#include "frontends/control/handlers.h"

#define KEEP_MAX 100000

static json_t *snapshot_json(const char *pool, const struct ashlar_snapshot_info *s)
{
	json_t *o = json_object();

	json_object_set_new(o, "name", json_sprintf("%s/%s", pool, s->name));
	json_object_set_new(o, "pool", json_string(pool));
	json_object_set_new(o, "volume", json_string(s->volume));
	json_object_set_new(o, "snapshot", json_string(s->name + strcspn(s->name, "@") + 1));
	json_object_set_new(o, "id", control_json_u64(s->id));
	json_object_set_new(o, "guid", control_json_uuid(&s->guid));
	json_object_set_new(o, "size_bytes", control_json_u64(s->size_bytes));
	json_object_set_new(o, "refer_bytes", control_json_u64(s->refer_bytes));
	json_object_set_new(o, "used_bytes", control_json_u64(s->used_bytes));
	json_object_set_new(o, "exclusive_bytes", control_json_u64(s->exclusive_bytes));
	json_object_set_new(o, "created", control_json_time(s->created_wall_ns));
	json_object_set_new(o, "attached", control_json_u64(s->n_attached));
	json_object_set_new(o, "clones", control_json_u64(s->n_clones));
	json_object_set_new(o, "by_policy", json_boolean(s->made_by_policy));
	return o;
}

static int snapshot_row(struct ashlar_pool *p, const char *pool, const char *name, json_t **out, struct err *e)
{
	struct ashlar_snapshot_info s;
	int r = ashlar_co_snapshot_info(p, name, &s, e);

	if (r == 0)
		*out = snapshot_json(pool, &s);
	return r;
}

static int call_snapshot(struct rpc_call *c, struct point_name *name, struct ashlar_pool **p, struct err *e)
{
	int r = control_snapshot_split(rpc_string(c, "snapshot"), name, e);

	return r < 0 ? r : control_pool_find(c->env, name->pool, p, e);
}

/* ---- several in one call ---- */

struct names {
	struct point_name *v; /* as they were given */
	const char **rest;    /* as ashlar.h takes them */
	size_t n;
};

static void names_free(struct names *x)
{
	xfree(x->v);
	xfree(x->rest);
}

/* All in one pool. names_free() in any case. */
static int call_snapshots(struct rpc_call *c, struct names *x, struct ashlar_pool **p, struct err *e)
{
	const json_t *all = rpc_strings(c, "snapshots");
	size_t i;
	int r = 0;

	x->n = json_array_size(all);
	x->v = xcalloc(x->n + 1, sizeof(*x->v));
	x->rest = xcalloc(x->n + 1, sizeof(*x->rest));
	if (!x->n)
		return err_set(e, -EINVAL, "no snapshot is named");
	for (i = 0; i < x->n && r == 0; i++) {
		r = control_snapshot_split(json_string_value(json_array_get(all, i)), &x->v[i], e);
		x->rest[i] = x->v[i].rest;
		if (r == 0 && strcmp(x->v[i].pool, x->v[0].pool))
			r = err_set(e, -EXDEV, "one command works on one pool: %s/%s and %s/%s are of two", x->v[0].pool, x->v[0].rest,
				    x->v[i].pool, x->v[i].rest);
	}
	return r < 0 ? r : control_pool_find(c->env, x->v[0].pool, p, e);
}

int control_co_snapshot_create(struct rpc_call *c, struct err *e)
{
	struct ashlar_pool *p;
	struct names x;
	json_t *row;
	size_t i;
	int r = call_snapshots(c, &x, &p, e);

	if (r == 0)
		r = ashlar_co_snapshot_create(p, x.rest, x.n, e);
	if (r == 0)
		c->result = json_array();
	for (i = 0; i < x.n && r == 0; i++) {
		row = NULL;
		if (snapshot_row(p, x.v[i].pool, x.rest[i], &row, NULL) == 0) /* else somebody has deleted it already */
			json_array_append_new(c->result, row);
	}
	names_free(&x);
	return r;
}

int control_co_snapshot_delete(struct rpc_call *c, struct err *e)
{
	bool dry_run = rpc_bool(c, "dry_run");
	struct ashlar_pool *p;
	uint64_t freed = 0;
	struct names x;
	json_t *done;
	size_t i;
	int r = call_snapshots(c, &x, &p, e);

	if (r == 0)
		r = ashlar_co_snapshot_delete(p, x.rest, x.n, rpc_bool(c, "force"), dry_run, &freed, e);
	if (r == 0) {
		done = json_array();
		for (i = 0; i < x.n; i++)
			json_array_append_new(done, json_sprintf("%s/%s", x.v[i].pool, x.rest[i]));
		c->result = json_pack("{s:o, s:o, s:b}", "names", done, "freed_bytes", control_json_u64(freed), "dry_run", dry_run);
	}
	names_free(&x);
	return r;
}

/* ---- lists ---- */

static int rows(struct ashlar_pool *p, const char *volume, json_t *out, struct err *e)
{
	struct ashlar_snapshot_info *s;
	struct ashlar_pool_info info;
	size_t i, n;
	int r = ashlar_co_snapshot_list(p, volume, &s, &n, e);

	if (r < 0)
		return r;
	ashlar_co_pool_info(p, &info);
	for (i = 0; i < n; i++)
		json_array_append_new(out, snapshot_json(info.name, &s[i]));
	xfree(s);
	return 0;
}

int control_co_snapshot_list(struct rpc_call *c, struct err *e)
{
	struct control_env *env = c->env;
	struct volume_name name;
	struct ashlar_pool *p;
	size_t i;
	int r = 0;

	c->result = json_array();
	if (rpc_is_given(c, "volume")) {
		r = control_call_volume(c, &name, &p, e);
		if (r == 0 && rpc_is_given(c, "pool") && strcmp(rpc_string(c, "pool"), name.pool))
			r = err_set(e, RPC_ERR_PARAMS, "pool and volume do not fit together");
		return r < 0 ? r : rows(p, name.volume, c->result, e);
	}
	if (rpc_is_given(c, "pool")) {
		r = control_call_pool(c, &p, e);
		return r < 0 ? r : rows(p, NULL, c->result, e);
	}
	for (i = 0; r == 0 && (p = ashlar_pool_at(env->a, i)); i++)
		r = rows(p, NULL, c->result, e);
	return r;
}

int control_co_snapshot_show(struct rpc_call *c, struct err *e)
{
	struct point_name name;
	struct ashlar_pool *p;
	int r = call_snapshot(c, &name, &p, e);

	return r < 0 ? r : snapshot_row(p, name.pool, name.rest, &c->result, e);
}

/* ---- one ---- */

int control_co_snapshot_rollback(struct rpc_call *c, struct err *e)
{
	bool dry_run = rpc_bool(c, "dry_run");
	struct point_name name;
	struct ashlar_pool *p;
	uint64_t freed = 0;
	int r = call_snapshot(c, &name, &p, e);

	if (r == 0)
		r = ashlar_co_snapshot_rollback(p, name.rest, rpc_bool(c, "force"), dry_run, &freed, e);
	if (r < 0)
		return r;
	c->result = json_pack("{s:s+++, s:s+++, s:o, s:b}", "name", name.pool, "/", name.rest, "", "volume", name.pool, "/", name.volume, "",
			      "freed_bytes", control_json_u64(freed), "dry_run", dry_run);
	return 0;
}

int control_co_snapshot_rename(struct rpc_call *c, struct err *e)
{
	const char *to = rpc_string(c, "new_name");
	char rest[2 * ASHLAR_VOLUME_NAME_MAX + 2];
	struct point_name name;
	struct ashlar_pool *p;
	int r = call_snapshot(c, &name, &p, e);

	if (r == 0)
		r = control_check_snapshot(to, e);
	if (r == 0)
		r = ashlar_co_snapshot_rename(p, name.rest, to, e);
	if (r < 0)
		return r;
	snprintf(rest, sizeof(rest), "%s@%.127s", name.volume, to);
	return snapshot_row(p, name.pool, rest, &c->result, e);
}

int control_co_volume_clone(struct rpc_call *c, struct err *e)
{
	struct volume_name to, old;
	struct point_name name;
	struct ashlar_pool *p;
	int r = call_snapshot(c, &name, &p, e);

	if (r < 0)
		return r;
	snprintf(old.pool, sizeof(old.pool), "%s", name.pool);
	snprintf(old.volume, sizeof(old.volume), "%s", name.volume);
	if (control_name_split_new(rpc_string(c, "volume"), &old, &to, e) == -EXDEV)
		return err_set(e, -EXDEV, "a clone shares its data with the snapshot: it must be in pool %s too", name.pool);
	r = control_name_split_new(rpc_string(c, "volume"), &old, &to, e);
	if (r == 0)
		r = ashlar_co_clone(p, name.rest, to.volume, e);
	return r < 0 ? r : control_volume_row(p, &to, &c->result, e);
}

/* ---- policy ---- */

static int policy_change(struct rpc_call *c, struct ashlar_pool *p, const struct ashlar_volume_info *v, struct err *e)
{
	uint64_t keep = rpc_size(c, "keep", v->policy_keep);
	uint64_t every = rpc_duration(c, "every", v->policy_every_ns);

	if (rpc_bool(c, "off")) {
		if (rpc_is_given(c, "every") || rpc_is_given(c, "keep"))
			return err_set(e, RPC_ERR_PARAMS, "a policy is either off or has a time and a number");
		return ashlar_co_snapshot_policy(p, v->name, 0, 0, e);
	}
	if (!every || !keep || keep > KEEP_MAX)
		return err_set(e, -EINVAL, "a policy needs both `every`, 1m or more, and `keep`, how many: 1 to %d", KEEP_MAX);
	return ashlar_co_snapshot_policy(p, v->name, every, (unsigned)keep, e);
}

int control_co_snapshot_policy(struct rpc_call *c, struct err *e)
{
	struct ashlar_volume_info v;
	struct volume_name name;
	struct ashlar_pool *p;
	int r = control_call_volume(c, &name, &p, e);

	if (r == 0)
		r = ashlar_co_volume_info(p, name.volume, &v, e);
	if (r == 0 && (rpc_bool(c, "off") || rpc_is_given(c, "every") || rpc_is_given(c, "keep"))) {
		r = policy_change(c, p, &v, e);
		if (r == 0)
			r = ashlar_co_volume_info(p, name.volume, &v, e);
	}
	if (r < 0)
		return r;
	c->result = json_pack("{s:s+++, s:o, s:i}", "name", name.pool, "/", name.volume, "", "every",
			      v.policy_every_ns ? control_json_duration(v.policy_every_ns) : json_null(), "keep", (int)v.policy_keep);
	return 0;
}
