/*
 * exports.c: under which name, how, and for whom volumes and snapshots are exported.
 */
#include <stdio.h>
#include <string.h>

#include "engine/io/access.h"
#include "engine/pool/label_format.h"
#include "engine/pool/volumes.h"

_Static_assert(ASHLAR_ACCESS_MAX + 1 == sizeof(((struct thin_vol *)0)->access), "as the record has it");

/* All rules, cut at their newlines; they fit the record. */
static int access_check(const char *rules, struct err *e)
{
	char rule[ASHLAR_ACCESS_MAX + 1];
	const char *p, *end;
	int r = 0;

	if (strlen(rules) > ASHLAR_ACCESS_MAX)
		return err_set(e, -E2BIG, "the rules of access are %zu bytes long, and at most %d are kept: use fewer, such as one name for several clients",
			       strlen(rules), ASHLAR_ACCESS_MAX);
	for (p = rules; r == 0 && *p; p = *end ? end + 1 : end) {
		end = strchrnul(p, '\n');
		snprintf(rule, sizeof(rule), "%.*s", (int)(end - p), p);
		r = access_rule_check(rule, e);
	}
	return r;
}

static int change_check(const struct ashlar_export_change *c, struct err *e)
{
	int r = c->name && *c->name ? export_name_check(c->name, e) : 0;

	if (r == 0 && c->access)
		r = access_check(c->access, e);
	if (r == 0 && c->max_clients > UINT32_MAX)
		r = err_set(e, -ERANGE, "there cannot be so many clients");
	return r;
}

/* The name: *to gets what is asked for, if nothing else is called so. */
static int name_apply(struct ashlar_pool *p, const char *volume, const char *name, const struct thin_vol *v, struct thin_vol *to, struct err *e)
{
	char dflt[POOL_EXPORT_NAME];
	bool named;
	int r;

	snprintf(dflt, sizeof(dflt), "%s/%s", p->label->name, volume);
	named = *name && strcmp(name, dflt);
	r = pool_check_export_free(p->a, named ? name : dflt, v, e);
	if (r < 0)
		return r;
	to->export_kind = named ? THIN_EXPORT_NAMED : THIN_EXPORT_DEFAULT;
	memset(to->export_name, 0, sizeof(to->export_name));
	if (named)
		memcpy(to->export_name, name, strlen(name));
	return 0;
}

static int mode_apply(struct ashlar_pool *p, const char *volume, bool read_only, const struct thin_vol *v, struct thin_vol *to, struct err *e)
{
	read_only |= v->kind == THIN_KIND_SNAPSHOT;
	if (pool_vol_n_clients(v) && v->kind == THIN_KIND_VOLUME && read_only != !!(v->export_flags & THIN_EXPORT_READ_ONLY))
		return err_set(e, -EBUSY, "volume %s/%s is in use by %u clients: its mode can be changed when they have gone",
			       p->label->name, volume, pool_vol_n_clients(v));
	to->export_flags = read_only ? THIN_EXPORT_READ_ONLY : 0;
	return 0;
}

static int set_co_locked(struct ashlar_pool *p, const char *volume, const struct ashlar_export_change *c, struct err *e)
{
	struct thin_vol *v, *to;
	int r = pool_point_find(p, volume, &v, e);

	if (r == 0 && ((c->access && *c->access) || c->max_clients > 0))
		r = pool_co_feature(p, LABEL_INCOMPAT_ACCESS, e);
	if (r < 0)
		return r;
	to = xmalloc(sizeof(*to));
	*to = *v;
	if (c->read_only >= 0)
		r = mode_apply(p, volume, c->read_only, v, to, e);
	if (r == 0 && c->name)
		r = name_apply(p, volume, c->name, v, to, e);
	if (c->access) {
		memset(to->access, 0, sizeof(to->access));
		memcpy(to->access, c->access, strlen(c->access));
	}
	if (c->max_clients >= 0)
		to->max_clients = (uint32_t)c->max_clients;
	if (r == 0)
		r = pool_co_vol_update(p, v, to, e);
	xfree(to);
	return r;
}

int ashlar_co_export_set(struct ashlar_pool *p, const char *volume, const struct ashlar_export_change *c, struct err *e)
{
	int r = pool_check_writable(p, e);

	if (r == 0)
		r = change_check(c, e);
	if (r < 0)
		return r;
	co_mutex_lock(&p->a->admin);
	r = set_co_locked(p, volume, c, e);
	co_mutex_unlock(&p->a->admin);
	return r;
}

int ashlar_co_export_add(struct ashlar_pool *p, const char *volume, const char *export_name, bool read_only, struct err *e)
{
	struct ashlar_export_change c = { .name = export_name ? export_name : "", .read_only = read_only, .max_clients = -1 };

	return ashlar_co_export_set(p, volume, &c, e);
}

int ashlar_co_export_remove(struct ashlar_pool *p, const char *volume, struct err *e)
{
	struct thin_vol *v, *to;
	int r = pool_check_writable(p, e);

	if (r < 0)
		return r;
	co_mutex_lock(&p->a->admin);
	r = pool_point_find(p, volume, &v, e);
	if (r == 0 && pool_vol_n_clients(v))
		r = err_set(e, -EBUSY, "%s %s/%s is in use by %u client%s: end them first",
			    v->kind == THIN_KIND_SNAPSHOT ? "snapshot" : "volume", p->label->name, volume, pool_vol_n_clients(v),
			    pool_vol_n_clients(v) == 1 ? "" : "s");
	if (r == 0) {
		to = xmalloc(sizeof(*to));
		*to = *v;
		to->export_kind = THIN_EXPORT_HIDDEN;
		memset(to->export_name, 0, sizeof(to->export_name));
		r = pool_co_vol_update(p, v, to, e);
		xfree(to);
	}
	co_mutex_unlock(&p->a->admin);
	return r;
}
