#include <string.h>

#include "frontends/control/handlers.h"
#include "frontends/iscsi/exports.h"

static json_t *initiators_json(const struct iscsi_export *x)
{
	json_t *out = json_array();
	unsigned i;

	for (i = 0; i < x->n_initiators; i++)
		json_array_append_new(out, control_json_text(x->initiators[i]));
	return out;
}

/* Without secrets. */
static json_t *iscsi_json(const struct iscsi_export *x)
{
	return json_pack("{s:s, s:i, s:s+++, s:s, s:b, s:o, s:o, s:o}", "target", x->target, "lun", x->lun, "volume", x->pool, "/", x->volume, "", "pool",
			 x->pool, "read_only", x->read_only, "initiators", initiators_json(x), "chap_user",
			 *x->chap.user ? control_json_text(x->chap.user) : json_null(), "mutual_user",
			 *x->mutual.user ? control_json_text(x->mutual.user) : json_null());
}

int control_co_iscsi_fill(struct control_env *env, json_t *rows, struct err *e)
{
	struct iscsi_export *v;
	json_t *row, *list, *targets, *x;
	size_t i, k, n;
	int r = iscsi_exports_co_list(env->a, NULL, NULL, &v, &n, e);

	if (r < 0)
		return r;
	json_array_foreach(rows, k, row) {
		list = json_array();
		targets = json_array();
		for (i = 0; i < n; i++) {
			x = iscsi_json(&v[i]);
			if (json_equal(json_object_get(row, "volume"), json_object_get(x, "volume"))) {
				json_array_append(list, x);
				json_array_append_new(targets, json_sprintf("%s/%u", v[i].target, v[i].lun));
			}
			json_decref(x);
		}
		json_object_set_new(row, "iscsi", list);
		json_object_set_new(row, "targets", targets);
	}
	iscsi_exports_free(v, n);
	return 0;
}

int control_co_export_list_iscsi(struct rpc_call *c, struct err *e)
{
	struct control_env *env = c->env;
	struct ashlar_pool *p = NULL;
	struct iscsi_export *v;
	size_t i, n;
	int r = rpc_is_given(c, "pool") ? control_call_pool(c, &p, e) : 0;

	if (r == 0)
		r = iscsi_exports_co_list(env->a, p, NULL, &v, &n, e);
	if (r < 0)
		return r;
	c->result = json_array();
	for (i = 0; i < n; i++)
		json_array_append_new(c->result, iscsi_json(&v[i]));
	iscsi_exports_free(v, n);
	return 0;
}

void control_co_iscsi_changed(struct control_env *env)
{
	if (env->co_iscsi_changed)
		env->co_iscsi_changed(env->arg);
}

static int call_point(struct rpc_call *c, struct point_name *name, struct ashlar_pool **p, struct err *e)
{
	int r = control_point_split(rpc_string(c, "volume"), name, e);

	return r < 0 ? r : control_pool_find(c->env, name->pool, p, e);
}

static int text_take(const char *text, char *out, size_t len, const char *what, struct err *e)
{
	if (!text)
		return 0;
	if (strlen(text) >= len)
		return err_set(e, -ENAMETOOLONG, "%s is longer than %zu bytes", what, len - 1);
	memcpy(out, text, strlen(text) + 1);
	return 0;
}

static int secret_take(const struct rpc_call *c, const char *user, const char *secret, struct iscsi_secret *s, struct err *e)
{
	const char *u = rpc_string(c, user), *p = rpc_string(c, secret);
	int r;

	if (!u != !p || (u && !*u))
		return err_set(e, -EINVAL, "a CHAP user needs a secret, and a secret a user");
	r = text_take(u, s->user, sizeof(s->user), "the CHAP user's name", e);
	if (r < 0 || !p)
		return r;
	if (strlen(p) > sizeof(s->bytes))
		return err_set(e, -EINVAL, "a CHAP secret is longer than %d bytes", ISCSI_SECRET_MAX);
	s->len = (uint8_t)strlen(p);
	memcpy(s->bytes, p, s->len);
	return 0;
}

static int initiators_take(const struct rpc_call *c, struct iscsi_export *x, struct err *e)
{
	const json_t *names = rpc_strings(c, "initiators"), *name;
	size_t i;
	int r = 0;

	if (json_array_size(names) > ISCSI_INITIATORS_MAX)
		return err_set(e, -E2BIG, "more than %u initiators", ISCSI_INITIATORS_MAX);
	x->initiators = xcalloc(json_array_size(names) + 1, sizeof(*x->initiators));
	json_array_foreach((json_t *)(uintptr_t)names, i, name) {
		r = iscsi_export_check_name(json_string_value(name), "--initiator", e);
		if (r < 0)
			break;
		memcpy(x->initiators[x->n_initiators++], json_string_value(name), strlen(json_string_value(name)) + 1);
	}
	return r;
}

static int lun_take(const struct rpc_call *c, int *lun, struct err *e)
{
	uint64_t n = rpc_size(c, "lun", 0);

	*lun = rpc_is_given(c, "lun") ? (int)MIN(n, (uint64_t)ISCSI_LUN_MAX) : -1;
	return n > ISCSI_LUN_MAX ? err_set(e, -ERANGE, "a LUN is a number from 0 to %d", ISCSI_LUN_MAX) : 0;
}

/* Has it rules that one might think hold here? */
static bool is_open_beside_rules(struct ashlar_pool *p, const char *volume, const struct iscsi_export *x)
{
	struct ashlar_export_info *info = xcalloc(1, sizeof(*info));
	bool is = !x->n_initiators && !*x->chap.user && ashlar_export_find(p, volume, info, NULL) == 0 && *info->access;

	xfree(info);
	return is;
}

int control_co_export_add_iscsi(struct rpc_call *c, struct err *e)
{
	struct iscsi_export *x = xcalloc(1, sizeof(*x));
	struct point_name name;
	struct ashlar_pool *p;
	int lun, r = call_point(c, &name, &p, e);

	if (r == 0)
		r = text_take(rpc_string(c, "iqn"), x->target, sizeof(x->target), "the target's name", e);
	if (r == 0)
		r = lun_take(c, &lun, e);
	if (r == 0)
		r = initiators_take(c, x, e);
	if (r == 0)
		r = secret_take(c, "chap_user", "chap_secret", &x->chap, e);
	if (r == 0)
		r = secret_take(c, "mutual_user", "mutual_secret", &x->mutual, e);
	x->read_only = rpc_bool(c, "read_only");
	if (r == 0)
		r = iscsi_export_co_add(p, name.rest, x, lun, e);
	if (r == 0) {
		c->result = iscsi_json(x);
		json_object_set_new(c->result, "open_beside_rules", json_boolean(is_open_beside_rules(p, name.rest, x)));
		control_co_iscsi_changed(c->env);
	}
	iscsi_exports_free(x, 1);
	return r;
}

int control_co_export_remove_iscsi(struct rpc_call *c, struct err *e)
{
	const char *iqn = rpc_string(c, "iqn");
	struct point_name name;
	struct ashlar_pool *p;
	int lun, r = call_point(c, &name, &p, e);

	if (r == 0)
		r = lun_take(c, &lun, e);
	if (r == 0)
		r = iscsi_export_co_remove(p, name.rest, iqn ? iqn : "", lun, e);
	if (r == 0)
		control_co_iscsi_changed(c->env);
	return r;
}
