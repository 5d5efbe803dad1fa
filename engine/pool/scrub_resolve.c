/*
 * scrub_resolve.c: which of the places where columns disagree matter.
 *
 * Those that some volume's map says hold data. The maps are walked once for all places that have been gathered; what is data is
 * looked at once more, because the world goes on meanwhile, and reported with the volume, its offset there, and the disk if
 * copies or parity can tell it.
 *
 * A row of a parity stripe that does not add up is reported once, by the first of its blocks that is data: as damage of that
 * block if the wrong column is its own, else as a loss of protection.
 */
#include <stdio.h>
#include <string.h>

#include "engine/base/hash.h"
#include "engine/pool/scrub.h"
#include "engine/pool/volumes.h"

void scrub_found_add(struct scrub_run *s, uint64_t off_bytes, uint64_t len_bytes)
{
	uint64_t cluster_bytes = s->p->label->cluster_bytes, sub_bytes = cluster_bytes / THIN_SUBS, end = off_bytes + len_bytes;

	for (off_bytes = ALIGN_DOWN(off_bytes, sub_bytes); off_bytes < end; off_bytes += sub_bytes) {
		uint64_t cluster = s->group * (s->p->label->group_bytes / cluster_bytes) + off_bytes / cluster_bytes;
		struct hash_node *n = hash_find(&s->found, cluster);
		struct scrub_found *f;

		if (!n) {
			f = xcalloc(1, sizeof(*f));
			hash_add(&s->found, &f->node, cluster);
			n = &f->node;
		}
		f = container_of(n, struct scrub_found, node);
		f->subs |= (uint16_t)(1u << (off_bytes % cluster_bytes / sub_bytes));
	}
}

static bool found_free(struct hash_node *n, void *arg)
{
	xfree(container_of(n, struct scrub_found, node));
	return true;
}

static bool row_free(struct hash_node *n, void *arg)
{
	xfree(n);
	return true;
}

void scrub_forget(struct scrub_run *s)
{
	hash_each(&s->found, found_free, NULL);
	hash_fini(&s->found);
	hash_init(&s->found);
	hash_each(&s->rows, row_free, NULL);
	hash_fini(&s->rows);
	hash_init(&s->rows);
}

/* ---- one place ---- */

struct look {
	uint64_t bytes;
	int col;
};

static void look_bad(void *arg, uint64_t off_bytes, uint64_t len_bytes, int col)
{
	struct look *l = arg;

	if (!l->bytes)
		l->col = col;
	l->bytes += len_bytes;
}

/* The row that a place belongs to has been reported already; notes it. */
static bool row_is_known(struct scrub_run *s, const struct raid_desc *d, uint64_t off)
{
	struct hash_node *n;
	struct raid_place p;
	uint64_t key;

	raid_place(d, off, 1, &p);
	key = d->group * s->p->label->group_bytes + p.col_off_bytes;
	if (p.p < 0)
		key = d->group * s->p->label->group_bytes + off; /* a mirror's row is its block */
	if (hash_find(&s->rows, key))
		return true;
	n = xcalloc(1, sizeof(*n));
	hash_add(&s->rows, n, key);
	return false;
}

/* "on disk A" or "on one of disks A, B, C". */
static void where_text(const struct scrub_run *s, const struct raid_desc *d, uint64_t off, int col, char *buf, size_t len)
{
	struct raid_place p;
	size_t at = 0;
	unsigned i;

	if (col >= 0) {
		snprintf(buf, len, "on disk %s", pool_disk_path(s->p, d->cols[col].disk));
		return;
	}
	raid_place(d, off, 1, &p);
	at = (size_t)snprintf(buf, len, "on one of the disks");
	for (i = 0; i < d->n_cols && at + 1 < len; i++)
		if (p.p >= 0 || memchr(p.cols, (int)i, p.n))
			at += (size_t)snprintf(buf + at, len - at, " %s", pool_disk_path(s->p, d->cols[i].disk));
}

/* Coroutine. Looks again, reports, mends. */
static int place_co_report(struct scrub_run *s, struct pgroup *g, const struct thin_vol *v, uint64_t off, uint64_t vol_off)
{
	uint64_t len = s->p->label->cluster_bytes / THIN_SUBS;
	struct look l = { 0, -1 };
	struct raid_scrub rs = { .bad = look_bad, .arg = &l };
	struct raid_place place;
	const char *done = "";
	char where[140], name[POOL_POINT_NAME];
	int disk, r;

	pool_point_name(s->p, v, name); /* v may be gone after this */
	r = raid_co_scrub_range(s->p->reactors[0].raid, g->desc.group, off, len, &rs);
	if (r < 0 || !l.bytes || row_is_known(s, &g->desc, off))
		return r == -ERR_MISSING ? 0 : r;
	raid_place(&g->desc, off, 1, &place);
	s->job->info.problems++;
	where_text(s, &g->desc, off, l.col, where, sizeof(where));
	disk = l.col >= 0 ? g->desc.cols[l.col].disk : -1;
	if (s->repair) {
		r = raid_co_scrub_fix(s->p->reactors[0].raid, g->desc.group, off, len, true);
		done = r < 0 ? "; it could not be repaired" : "; repaired";
		s->job->info.repaired += r == 0;
	}
	pool_event(s->p, ASHLAR_ERROR, "scrub.mismatch", disk, name, "volume %s, offset %llu: %s %s%s", name, (unsigned long long)vol_off,
		   l.col < 0 || place.p < 0 || l.col == place.cols[0] ? "copies or parity do not match" : "what protects it is wrong", where,
		   done);
	return 0;
}

/* Coroutine. The bad subclusters of a cluster that this entry says are data. */
static int cluster_co_report(struct scrub_run *s, const struct thin_vol *v, uint64_t cluster, uint16_t valid, uint64_t vol_off)
{
	uint64_t cluster_bytes = s->p->label->cluster_bytes, per_group = s->p->label->group_bytes / cluster_bytes;
	struct hash_node *n = cluster ? hash_find(&s->found, cluster) : NULL;
	uint16_t subs = n ? container_of(n, struct scrub_found, node)->subs & valid : 0;
	struct pgroup *g;
	unsigned i;
	int r = 0;

	if (!subs)
		return 0;
	r = pool_co_group_claim(s->p, cluster / per_group, &g);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	pool_co_transition_begin(s->p, g, NULL, 0);
	for (i = 0; i < THIN_SUBS && r == 0; i++)
		if (subs & 1u << i)
			r = place_co_report(s, g, v, cluster % per_group * cluster_bytes + i * (cluster_bytes / THIN_SUBS),
					    vol_off + i * (cluster_bytes / THIN_SUBS));
	pool_co_transition_end(s->p, g);
	pool_group_unclaim(s->p, g);
	if (r == 0) /* once, however many snapshots have it */
		container_of(hash_find(&s->found, cluster), struct scrub_found, node)->subs &= (uint16_t)~subs;
	return r;
}

/* ---- all maps ---- */

static int volume_co_walk(struct scrub_run *s, uint64_t id)
{
	struct thin_entry_disk *d = xaligned(16, META_PAGE_BYTES);
	uint64_t leaf = 0, idx;
	struct thin_vol *v;
	unsigned i;
	int r;

	for (;; leaf++) {
		r = thin_co_next_leaf(s->p->thin, id, &leaf);
		if (r == 0)
			r = thin_co_leaf(s->p->thin, id, leaf, false, d);
		for (i = 0; i < THIN_MAP_PER_LEAF && r == 0; i++) {
			struct thin_entry e = thin_entry_load(&d[i]);

			v = thin_vol_by_id(s->p->thin, id);
			idx = (leaf * THIN_MAP_PER_LEAF + i) * s->p->label->cluster_bytes;
			r = v ? cluster_co_report(s, v, e.own, e.own_mask, idx) : -ENOENT;
			v = thin_vol_by_id(s->p->thin, id);
			if (r == 0)
				r = v ? cluster_co_report(s, v, e.base, e.base_mask, idx) : -ENOENT;
		}
		if (r < 0)
			break;
		if (s->job->stop) {
			r = -EINTR;
			break;
		}
	}
	xfree(d);
	return r == -ENOENT ? 0 : r; /* the end, or the volume is gone */
}

int scrub_co_resolve(struct scrub_run *s)
{
	uint64_t *ids;
	struct thin_vol *v;
	size_t n = 0, i;
	int r = 0;

	if (!s->found.count)
		return 0;
	list_for_each (v, thin_vols(s->p->thin), link)
		n++;
	ids = xcalloc(n + 1, sizeof(*ids));
	n = 0;
	list_for_each (v, thin_vols(s->p->thin), link)
		if (v->state == THIN_VOLUME_LIVE)
			ids[n++] = v->id;
	for (i = 0; i < n && r == 0; i++)
		r = volume_co_walk(s, ids[i]);
	xfree(ids);
	scrub_forget(s);
	return r;
}
