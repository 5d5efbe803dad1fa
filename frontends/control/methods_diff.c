/*
 * Differences between snapshots, a page of ranges at a time: the answer tells where to go on, so neither side holds all of it.
 */
#include <string.h>

#include "frontends/control/handlers.h"

#define PAGE_RANGES 4096

/* The pool of "POOL/VOL@SNAP" or "POOL/VOL"; *rest: what is behind it. */
static int side_split(const char *text, char pool[ASHLAR_POOL_NAME_MAX + 1], const char **rest, struct err *e)
{
	const char *slash = strchr(text, '/');
	size_t n = slash ? (size_t)(slash - text) : 0;
	char q[72];

	if (!slash || n > ASHLAR_POOL_NAME_MAX)
		return err_set(e, -EINVAL, "'%s' is not the name of a snapshot or volume; it must be POOL/VOLUME@SNAP or POOL/VOLUME",
			       control_name_quote(text, q, sizeof(q)));
	memcpy(pool, text, n);
	pool[n] = '\0';
	*rest = slash + 1;
	return control_check_pool(pool, e);
}

static json_t *range_json(const struct ashlar_range *x)
{
	return json_pack("{s:I, s:I, s:s}", "offset", (json_int_t)x->off_bytes, "length", (json_int_t)x->len_bytes, "type",
			 x->is_data ? "data" : "zero");
}

static int diff_page(struct rpc_call *c, struct ashlar_pool *p, const char *from, const char *to, struct err *e)
{
	struct ashlar_range *v = xmalloc(PAGE_RANGES * sizeof(*v));
	uint64_t off = rpc_size(c, "offset", 0);
	size_t i, n = PAGE_RANGES;
	json_t *ranges;
	int r = ashlar_co_diff(p, from, to, &off, v, &n, e);

	if (r == 0) {
		ranges = json_array();
		for (i = 0; i < n; i++)
			json_array_append_new(ranges, range_json(&v[i]));
		c->result = json_pack("{s:o, s:o}", "ranges", ranges, "next",
				      n == PAGE_RANGES ? control_json_u64(off) : json_null());
	}
	xfree(v);
	return r;
}

int control_co_snapshot_diff(struct rpc_call *c, struct err *e)
{
	char pool[ASHLAR_POOL_NAME_MAX + 1], other[ASHLAR_POOL_NAME_MAX + 1];
	const char *from, *to;
	struct ashlar_pool *p;
	int r = side_split(rpc_string(c, "from"), pool, &from, e);

	if (r == 0)
		r = side_split(rpc_string(c, "to"), other, &to, e);
	if (r == 0 && strcmp(pool, other))
		r = err_set(e, -EXDEV, "pool %s and pool %s have no volume in common: a difference is told between snapshots and clones "
			    "of one volume", pool, other);
	if (r == 0)
		r = control_pool_find(c->env, pool, &p, e);
	return r < 0 ? r : diff_page(c, p, from, to, e);
}
