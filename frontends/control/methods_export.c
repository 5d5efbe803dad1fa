#include <stdio.h>
#include <string.h>

#include "engine/io/access.h"
#include "frontends/control/handlers.h"

static json_t *rules_json(const char *rules)
{
	json_t *out = json_array();
	const char *p, *end;
	char rule[ASHLAR_ACCESS_MAX + 1];

	for (p = rules; *p; p = *end ? end + 1 : end) {
		end = strchrnul(p, '\n');
		snprintf(rule, sizeof(rule), "%.*s", (int)(end - p), p);
		json_array_append_new(out, control_json_text(rule));
	}
	return out;
}

static json_t *export_json(const struct ashlar_export_info *x)
{
	return json_pack("{s:o, s:s+++, s:s, s:b, s:b, s:b, s:b, s:b, s:o, s:i, s:I, s:o}", "name", control_json_text(x->name), "volume", x->pool, "/", x->volume,
			 "", "pool", x->pool, "read_only", x->read_only, "set_read_only", x->set_read_only, "hidden",
			 x->hidden, "is_default", x->is_default, "is_snapshot", x->is_snapshot, "size_bytes", control_json_u64(x->size_bytes),
			 "attached", (int)x->n_attached, "max_connections", (json_int_t)x->max_clients, "allow", rules_json(x->access));
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
	return control_co_iscsi_fill(env, c->result, e);
}

static int call_point(struct rpc_call *c, struct point_name *name, struct ashlar_pool **p, struct err *e)
{
	int r = control_point_split(rpc_string(c, "volume"), name, e);

	return r < 0 ? r : control_pool_find(c->env, name->pool, p, e);
}

static int export_row(struct control_env *env, const struct point_name *name, json_t **out, struct err *e)
{
	struct ashlar_export_info *x = xcalloc(1, sizeof(*x));
	struct ashlar_pool *p;
	json_t *rows = json_array();
	int r = control_pool_find(env, name->pool, &p, e);

	if (r == 0)
		r = ashlar_export_find(p, name->rest, x, e);
	if (r == 0) {
		json_array_append_new(rows, export_json(x));
		r = control_co_iscsi_fill(env, rows, e);
	}
	if (r == 0)
		*out = json_incref(json_array_get(rows, 0));
	json_decref(rows);
	xfree(x);
	return r;
}

/* Rules, a newline between two, from an array of them; NULL: absent. ["any"]: none. xfree(). */
static int access_of(const struct rpc_call *c, char **out, struct err *e)
{
	const json_t *rules = rpc_strings(c, "allow"), *rule;
	size_t i, len = 0, n;
	const char *text;

	*out = NULL;
	if (!rules)
		return 0;
	*out = xcalloc(1, 1);
	if (json_array_size(rules) == 1 && !strcmp(json_string_value(json_array_get(rules, 0)), "any"))
		return 0;
	json_array_foreach((json_t *)(uintptr_t)rules, i, rule) {
		text = json_string_value(rule);
		if (access_rule_check(text, e) < 0) {
			xfree(*out);
			*out = NULL;
			return e->code;
		}
		n = strlen(text);
		*out = xrealloc(*out, len + n + 2);
		len += (size_t)sprintf(*out + len, "%s%s", len ? "\n" : "", text);
	}
	return 0;
}

/* What "read_only" means when it is absent differs between add and set. */
static int export_co_change(struct rpc_call *c, const char *as, int read_only, struct err *e)
{
	struct ashlar_export_change change = { .name = as, .read_only = read_only, .max_clients = -1 };
	struct point_name name;
	struct ashlar_pool *p;
	char *access = NULL;
	int r = call_point(c, &name, &p, e);

	if (r == 0 && as && *as)
		r = control_check_export(as, e);
	if (r == 0)
		r = access_of(c, &access, e);
	if (r < 0)
		return r;
	change.access = access;
	if (rpc_is_given(c, "max_connections"))
		change.max_clients = (int64_t)MIN(rpc_size(c, "max_connections", 0), (uint64_t)INT64_MAX);
	r = ashlar_co_export_set(p, name.rest, &change, e);
	xfree(access);
	return r < 0 ? r : export_row(c->env, &name, &c->result, e);
}

int control_co_export_add(struct rpc_call *c, struct err *e)
{
	const char *as = rpc_string(c, "name");

	return export_co_change(c, as ? as : "", rpc_bool(c, "read_only"), e);
}

int control_co_export_set(struct rpc_call *c, struct err *e)
{
	return export_co_change(c, rpc_string(c, "name"), rpc_is_given(c, "read_only") ? rpc_bool(c, "read_only") : -1, e);
}

/* An export keeps its name when its volume moves to another pool: it is known by that too. */
static int named_find(struct control_env *env, const char *export, struct point_name *out)
{
	struct ashlar_export_info *x;
	char text[sizeof(x->pool) + sizeof(x->volume) + 1];
	int r = -ENOENT;
	size_t i, n;

	if (ashlar_co_export_list(env->a, &x, &n, NULL) < 0)
		return -ENOENT;
	for (i = 0; i < n && r < 0; i++) {
		if (strcmp(x[i].name, export))
			continue;
		snprintf(text, sizeof(text), "%s/%s", x[i].pool, x[i].volume);
		r = control_point_split(text, out, NULL);
	}
	xfree(x);
	return r;
}

int control_co_export_show(struct rpc_call *c, struct err *e)
{
	struct point_name name;
	struct ashlar_pool *p;
	int r = call_point(c, &name, &p, e);

	if (r == 0)
		r = export_row(c->env, &name, &c->result, e);
	if (r == -ENOENT && named_find(c->env, rpc_string(c, "volume"), &name) == 0)
		r = export_row(c->env, &name, &c->result, e);
	if (r == 0 && !c->result)
		r = err_set(e, -ENOENT, "there is no %s in pool %s", name.rest, name.pool);
	return r;
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
