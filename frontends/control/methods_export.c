#include <string.h>

#include "frontends/control/handlers.h"

static json_t *export_json(const struct ashlar_export_info *x)
{
	return json_pack("{s:o, s:s+++, s:s, s:b, s:b, s:b, s:b, s:b, s:o, s:i}", "name", control_json_text(x->name), "volume", x->pool, "/", x->volume,
			 "", "pool", x->pool, "read_only", x->read_only, "set_read_only", x->set_read_only, "hidden",
			 x->hidden, "is_default", x->is_default, "is_snapshot", x->is_snapshot, "size_bytes", control_json_u64(x->size_bytes),
			 "attached", (int)x->n_attached);
}

int control_co_export_list(struct rpc_call *c, struct err *e)
{
	struct control_env *env = c->env;
	const char *pool = rpc_string(c, "pool");
	struct ashlar_export_info *x;
	struct ashlar_pool *p;
	size_t i, n;
	int r;

	if (pool) {
		r = control_call_pool(c, &p, e);
		if (r < 0)
			return r;
	}
	r = ashlar_co_export_list(env->a, &x, &n, e);
	if (r < 0)
		return r;
	c->result = json_array();
	for (i = 0; i < n; i++)
		if (!pool || !strcmp(x[i].pool, pool))
			json_array_append_new(c->result, export_json(&x[i]));
	xfree(x);
	return 0;
}

static int call_point(struct rpc_call *c, struct point_name *name, struct ashlar_pool **p, struct err *e)
{
	int r = control_point_split(rpc_string(c, "volume"), name, e);

	return r < 0 ? r : control_pool_find(c->env, name->pool, p, e);
}

static int export_row(struct control_env *env, const struct point_name *name, json_t **out, struct err *e)
{
	struct ashlar_export_info *x;
	size_t i, n;
	int r = ashlar_co_export_list(env->a, &x, &n, e);

	if (r < 0)
		return r;
	for (i = 0; i < n && !*out; i++)
		if (!strcmp(x[i].pool, name->pool) && !strcmp(x[i].volume, name->rest))
			*out = export_json(&x[i]);
	xfree(x);
	return 0;
}

int control_co_export_add(struct rpc_call *c, struct err *e)
{
	const char *as = rpc_string(c, "name");
	struct point_name name;
	struct ashlar_pool *p;
	int r = call_point(c, &name, &p, e);

	if (r == 0 && as)
		r = control_check_export(as, e);
	if (r == 0)
		r = ashlar_co_export_add(p, name.rest, as, rpc_bool(c, "read_only"), e);
	return r < 0 ? r : export_row(c->env, &name, &c->result, e);
}

int control_co_export_remove(struct rpc_call *c, struct err *e)
{
	struct point_name name;
	struct ashlar_pool *p;
	int r = call_point(c, &name, &p, e);

	if (r == 0)
		r = ashlar_co_export_remove(p, name.rest, e);
	return r < 0 ? r : export_row(c->env, &name, &c->result, e);
}
