/*
 * ranges.c: what a snapshot holds, by its block status; or where the maps of two of a family point to different places.
 */
#include "engine/pool/ranges.h"

void ranges_init(struct ranges *x, struct ashlar_pool *p, struct thin_vol *from, struct thin_vol *to, uint64_t start_bytes)
{
	*x = (struct ranges){ .p = p, .from = from, .to = to, .start_bytes = start_bytes, .pos_bytes = start_bytes, .sub = THIN_SUBS,
			      .size_bytes = to->size_bytes, .sub_bytes = p->label->cluster_bytes / THIN_SUBS };
}

static int status_there(void *arg)
{
	struct ranges *x = arg;

	x->n_ext = RANGES_EXTENTS;
	return bdev_co_status(thin_volume_bdev(x->to->open), x->pos_bytes, x->size_bytes - x->pos_bytes, x->ext, &x->n_ext);
}

/* The next piece of data. -ENOENT: there is none. */
static int held_co_next(struct ranges *x, struct ashlar_range *out)
{
	int r;

	for (;;) {
		if (x->at_ext == x->n_ext) {
			if (x->pos_bytes >= x->size_bytes)
				return -ENOENT;
			r = reactor_co_call(thin_volume_home(x->p->thin, x->to->id), status_there, x);
			if (r < 0)
				return r;
			x->at_ext = 0;
		}
		*out = (struct ashlar_range){ x->pos_bytes, x->ext[x->at_ext].len_bytes, !(x->ext[x->at_ext].flags & BDEV_HOLE) };
		x->pos_bytes += out->len_bytes;
		x->at_ext++;
		if (out->is_data)
			return 0;
	}
}

/* The next subcluster that differs. */
static int diff_co_next(struct ranges *x, struct ashlar_range *out)
{
	uint64_t cluster_bytes = x->p->label->cluster_bytes;
	int r;

	for (;;) {
		for (; x->sub < THIN_SUBS; x->sub++) {
			uint64_t off = x->cluster * cluster_bytes + x->sub * x->sub_bytes;

			if (!(x->mask >> x->sub & 1) || off < x->start_bytes)
				continue;
			if (off >= x->size_bytes)
				return -ENOENT;
			*out = (struct ashlar_range){ off, MIN(x->sub_bytes, x->size_bytes - off), x->data >> x->sub & 1 };
			x->sub++;
			return 0;
		}
		x->cluster = x->pos_bytes / cluster_bytes;
		r = thin_co_diff(x->p->thin, x->from, x->to, &x->cluster, &x->mask, &x->data);
		if (r < 0)
			return r;
		x->pos_bytes = (x->cluster + 1) * cluster_bytes;
		x->sub = 0;
	}
}

int ranges_co_find(struct ranges *x)
{
	int r;

	if (x->cur.len_bytes || x->has_all)
		return 0;
	r = x->from ? diff_co_next(x, &x->cur) : held_co_next(x, &x->cur);
	if (r == -ENOENT) {
		x->cur = (struct ashlar_range){ 0 };
		x->has_all = true;
		return 0;
	}
	return r;
}

int ranges_co_take(struct ranges *x, uint64_t max, struct ashlar_range *out)
{
	uint64_t n;
	int r;

	*out = x->cur;
	out->len_bytes = 0;
	while (x->cur.len_bytes && x->cur.is_data == out->is_data && x->cur.off_bytes == out->off_bytes + out->len_bytes &&
	       out->len_bytes < max) {
		n = MIN(x->cur.len_bytes, max - out->len_bytes);
		out->len_bytes += n;
		x->cur.off_bytes += n;
		x->cur.len_bytes -= n;
		r = ranges_co_find(x);
		if (r < 0)
			return r;
	}
	return 0;
}
