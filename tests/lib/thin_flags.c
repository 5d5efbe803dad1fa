#include "tests/lib/thin_flags.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROBLEMS_SHOWN 10

/* ---- what maps refer to: as of some record ---- */

struct slot {
	uint64_t volume, idx; /* volume 0: none */
	struct thin_entry e;
};

struct refs {
	struct slot *slots; /* open addressing; nothing is ever taken out */
	size_t n_slots, n_used;
	uint16_t *clusters; /* entries that have it as own or base */
	uint16_t *subs;	    /* entries that read this subcluster, 16 per cluster */
};

struct change {
	uint64_t seq, volume, idx;
	struct thin_entry e;
};

struct thin_flags_mark {
	struct thin_flags_mark *next;
	uint64_t off, len;
	/* No map as of a record from `from` on may refer to it, up to what has been handed in when the write ended. */
	uint64_t from, upto;
	uint64_t ended; /* when; UINT64_MAX: it has not */
	bool judged, durable;
};

struct thin_flags {
	struct meta *m; /* NULL: nothing is known */
	struct thin *t;
	uint64_t seed, n_clusters, n_blocks, applied, clock;
	uint32_t cluster_bytes, sub_bytes, block_bytes;
	struct refs now, durable;
	struct change *changes; /* applied, not durable: oldest first */
	size_t n_changes, cap_changes;
	struct thin_flags_mark *fresh; /* in flight, not flushed or not judged */
	uint8_t *written;	       /* by block */
	struct rng rng;
	struct thin_flags_sum sum;
};

static size_t slot_find(const struct refs *r, uint64_t volume, uint64_t idx)
{
	size_t i = hash_mix(volume * 0x9e3779b97f4a7c15ULL ^ idx) & (r->n_slots - 1);

	while (r->slots[i].volume && (r->slots[i].volume != volume || r->slots[i].idx != idx))
		i = (i + 1) & (r->n_slots - 1);
	return i;
}

static void refs_grow(struct refs *r)
{
	struct slot *old = r->slots;
	size_t n = r->n_slots, i;

	r->n_slots = n ? 2 * n : 1024;
	r->slots = calloc(r->n_slots, sizeof(*r->slots));
	CHECK(r->slots);
	for (i = 0; i < n; i++)
		if (old[i].volume)
			r->slots[slot_find(r, old[i].volume, old[i].idx)] = old[i];
	free(old);
}

static void refs_count(struct refs *r, uint64_t cluster, uint16_t mask, int by)
{
	unsigned i;

	if (!cluster)
		return;
	r->clusters[cluster] = (uint16_t)(r->clusters[cluster] + by);
	for (i = 0; i < THIN_SUBS; i++)
		if (mask >> i & 1)
			r->subs[cluster * THIN_SUBS + i] = (uint16_t)(r->subs[cluster * THIN_SUBS + i] + by);
}

/* Returns what was there. */
static struct thin_entry refs_set(struct refs *r, uint64_t volume, uint64_t idx, const struct thin_entry *e)
{
	struct thin_entry old;
	struct slot *s;

	if (2 * (r->n_used + 1) > r->n_slots)
		refs_grow(r);
	s = &r->slots[slot_find(r, volume, idx)];
	r->n_used += !s->volume;
	s->volume = volume;
	s->idx = idx;
	old = s->e;
	refs_count(r, e->own, e->own_mask, 1);
	refs_count(r, e->base, e->base_mask, 1);
	refs_count(r, old.own, old.own_mask, -1);
	refs_count(r, old.base, old.base_mask, -1);
	s->e = *e;
	return old;
}

static void refs_init(struct refs *r, uint64_t n_clusters)
{
	memset(r, 0, sizeof(*r));
	r->clusters = calloc(n_clusters, sizeof(*r->clusters));
	r->subs = calloc(n_clusters * THIN_SUBS, sizeof(*r->subs));
	CHECK(r->clusters && r->subs);
}

static void refs_fini(struct refs *r)
{
	free(r->slots);
	free(r->clusters);
	free(r->subs);
}

/* ---- life ---- */

struct thin_flags *thin_flags_create(uint64_t seed, uint64_t size_bytes, uint32_t cluster_bytes, uint32_t block_bytes)
{
	struct thin_flags *f = calloc(1, sizeof(*f));

	CHECK(f);
	f->seed = seed;
	f->cluster_bytes = cluster_bytes;
	f->sub_bytes = cluster_bytes / THIN_SUBS;
	f->block_bytes = block_bytes;
	f->n_clusters = size_bytes / cluster_bytes;
	f->n_blocks = size_bytes / block_bytes;
	f->written = calloc(f->n_blocks, 1);
	CHECK(f->written);
	rng_init(&f->rng, seed);
	refs_init(&f->now, f->n_clusters);
	refs_init(&f->durable, f->n_clusters);
	return f;
}

static void fresh_drop(struct thin_flags_mark **at)
{
	struct thin_flags_mark *k = *at;

	*at = k->next;
	free(k);
}

static void changes_drop(struct thin_flags *f)
{
	free(f->changes);
	f->changes = NULL;
	f->n_changes = f->cap_changes = 0;
}

void thin_flags_destroy(struct thin_flags *f)
{
	while (f->fresh)
		fresh_drop(&f->fresh);
	changes_drop(f);
	refs_fini(&f->now);
	refs_fini(&f->durable);
	free(f->written);
	free(f);
}

/* Some of it, in units that a disk may tear. */
static void junk_poke(struct thin_flags *f, struct sim_disks *ds, const struct thin_flags_mark *k)
{
	uint64_t junk[512 / 8], off;
	unsigned i, share = 1 + (unsigned)rng_below(&f->rng, 4);

	for (off = k->off; off < k->off + k->len; off += sizeof(junk)) {
		if (!rng_chance(&f->rng, share, 4))
			continue;
		for (i = 0; i < ARRAY_LEN(junk); i++)
			junk[i] = rng_next(&f->rng);
		sim_disk_poke(ds, 0, off, junk, sizeof(junk));
	}
}

void thin_flags_world_gone(struct thin_flags *f, struct sim_disks *ds)
{
	while (f->fresh) {
		if (ds && !f->fresh->durable)
			junk_poke(f, ds, f->fresh);
		fresh_drop(&f->fresh);
	}
	changes_drop(f);
	f->m = NULL;
}

static void mapped_is_written(struct thin_flags *f, uint64_t cluster, uint16_t mask)
{
	unsigned per = f->sub_bytes / f->block_bytes, i;

	for (i = 0; i < THIN_SUBS; i++)
		if (mask >> i & 1)
			memset(f->written + (cluster * THIN_SUBS + i) * per, 1, per);
}

static int volume_co_load(struct thin_flags *f, struct thin_vol *v)
{
	struct thin_entry_disk *d = xaligned(16, META_PAGE_BYTES);
	uint64_t leaf = 0;
	unsigned i;
	int r;

	for (;; leaf++) {
		r = meta_array_co_next_leaf(&v->map, &leaf);
		if (r == 0)
			r = meta_array_co_leaf(&v->map, leaf, d);
		if (r < 0)
			break;
		for (i = 0; i < THIN_MAP_PER_LEAF; i++) {
			struct thin_entry e = thin_entry_load(&d[i]);

			if (!e.own)
				continue;
			refs_set(&f->now, v->id, leaf * THIN_MAP_PER_LEAF + i, &e);
			refs_set(&f->durable, v->id, leaf * THIN_MAP_PER_LEAF + i, &e);
			mapped_is_written(f, e.own, e.own_mask);
			mapped_is_written(f, e.base, e.base_mask);
		}
	}
	xfree(d);
	return r == -ENOENT ? 0 : r;
}

int thin_flags_co_load(struct thin_flags *f, struct meta *m, struct thin *t, bool fresh)
{
	struct thin_vol *v;
	int r = 0;

	refs_fini(&f->now);
	refs_fini(&f->durable);
	refs_init(&f->now, f->n_clusters);
	refs_init(&f->durable, f->n_clusters);
	memset(f->written, 0, f->n_blocks);
	if (!fresh)
		list_for_each (v, thin_vols(t), link)
			if (r == 0)
				r = volume_co_load(f, v);
	f->m = m;
	f->t = t;
	f->applied = meta_last_seq(m);
	CHECK(meta_applied_seq(m) == f->applied && meta_durable_seq(m) == f->applied);
	return r;
}

/* ---- judging ---- */

static void problem(struct thin_flags *f, const char *what, uint64_t off)
{
	if (f->sum.problems++ < PROBLEMS_SHOWN)
		fprintf(stderr, "seed %llu: cluster %llu, byte %llu: %s\n", (unsigned long long)f->seed,
			(unsigned long long)(off / f->cluster_bytes), (unsigned long long)(off % f->cluster_bytes), what);
}

static bool entry_covers(const struct thin_flags *f, const struct thin_entry *e, const struct thin_flags_mark *k)
{
	uint64_t s;

	for (s = k->off / f->sub_bytes; s * f->sub_bytes < k->off + k->len; s++) {
		uint64_t cluster = s / THIN_SUBS, bit = s % THIN_SUBS;

		if ((e->own == cluster && e->own_mask >> bit & 1) || (e->base == cluster && e->base_mask >> bit & 1))
			return true;
	}
	return false;
}

static void judge_state(struct thin_flags *f, struct thin_flags_mark *k)
{
	uint64_t s;

	k->judged = true;
	for (s = k->off / f->sub_bytes; s * f->sub_bytes < k->off + k->len; s++) {
		if (!f->durable.subs[s])
			continue;
		problem(f, "a fresh write to what a power cut would bring back", s * f->sub_bytes);
		return;
	}
}

static void judge_change(struct thin_flags *f, const struct thin_flags_mark *k, uint64_t seq, const struct thin_entry *e)
{
	if (seq > k->from && seq <= k->upto && entry_covers(f, e, k))
		problem(f, "a fresh write to what is mapped", k->off);
}

/* What is durable as of `upto` (at most): the oldest changes go from one state to the other. */
static void durable_advance(struct thin_flags *f, uint64_t upto)
{
	size_t n = 0;

	while (n < f->n_changes && f->changes[n].seq <= upto) {
		refs_set(&f->durable, f->changes[n].volume, f->changes[n].idx, &f->changes[n].e);
		n++;
	}
	if (!n)
		return;
	f->n_changes -= n;
	memmove(f->changes, f->changes + n, f->n_changes * sizeof(*f->changes));
}

static void change_apply(struct thin_flags *f, uint64_t seq, uint64_t volume, uint64_t idx, const struct thin_entry *e)
{
	unsigned per = f->cluster_bytes / f->block_bytes;
	struct thin_entry old = refs_set(&f->now, volume, idx, e);
	struct thin_flags_mark *k;

	if (old.own && !f->now.clusters[old.own])
		memset(f->written + old.own * per, 0, per);
	if (old.base && !f->now.clusters[old.base])
		memset(f->written + old.base * per, 0, per);
	if (f->n_changes == f->cap_changes) {
		f->cap_changes = f->cap_changes ? 2 * f->cap_changes : 256;
		f->changes = realloc(f->changes, f->cap_changes * sizeof(*f->changes));
		CHECK(f->changes);
	}
	f->changes[f->n_changes++] = (struct change){ seq, volume, idx, *e };
	for (k = f->fresh; k; k = k->next)
		judge_change(f, k, seq, e);
}

/* Forgets writes about which nothing is to come. */
static void fresh_sweep(struct thin_flags *f)
{
	struct thin_flags_mark **at = &f->fresh, *k;

	while ((k = *at)) {
		if (k->judged && k->durable && f->applied >= k->upto)
			fresh_drop(at);
		else
			at = &k->next;
	}
}

/* Calls change_apply() for every entry of a volume from leaf `first` up to leaf `end`: to another volume (0: it goes), or away. */
static void volume_apply(struct thin_flags *f, uint64_t seq, uint64_t volume, uint64_t first, uint64_t end, uint64_t to)
{
	static const struct thin_entry none;
	struct slot *all = malloc((f->now.n_used + 1) * sizeof(*all));
	size_t n = 0, i;

	CHECK(all);
	for (i = 0; i < f->now.n_slots; i++) {
		const struct slot *s = &f->now.slots[i];

		if (s->volume == volume && s->e.own && s->idx / THIN_MAP_PER_LEAF >= first && s->idx / THIN_MAP_PER_LEAF < end)
			all[n++] = *s;
	}
	for (i = 0; i < n; i++)
		change_apply(f, seq, to ? to : volume, all[i].idx, to ? &all[i].e : &none);
	free(all);
}

/* Coroutine. The leaf is gone, and all that went with it because other maps have it too: the next one that is there tells. */
static void leaf_co_drop(struct thin_flags *f, const struct thin_rec_leaf *rec, uint64_t seq)
{
	struct thin_vol *v = thin_vol_by_id(f->t, le64_get(rec->volume));
	uint64_t first = le64_get(rec->leaf), next = first;

	if (!v || meta_array_co_next_leaf(&v->map, &next) < 0)
		next = UINT64_MAX;
	volume_apply(f, seq, le64_get(rec->volume), first, next, 0);
}

static void rollback(struct thin_flags *f, const struct thin_rec_rollback *rec, uint64_t seq)
{
	volume_apply(f, seq, le64_get(rec->volume), 0, UINT64_MAX, le64_get(rec->trash));
	volume_apply(f, seq, le64_get(rec->volume), 0, UINT64_MAX, 0);
	volume_apply(f, seq, le64_get(rec->snapshot), 0, UINT64_MAX, le64_get(rec->volume));
}

void thin_flags_co_record(struct thin_flags *f, unsigned type, const void *payload, size_t len, uint64_t seq)
{
	const struct thin_rec_map *rec = payload;
	const struct thin_entry_disk *d = (const void *)(rec + 1);
	struct thin_flags_mark *k;
	size_t i;

	if (!f->m)
		return; /* replay: what comes of it is loaded */
	CHECK(seq == f->applied + 1);
	durable_advance(f, MIN(meta_durable_seq(f->m), f->applied));
	for (i = 0; type == THIN_REC_MAP_SET && i < (len - sizeof(*rec)) / sizeof(*d); i++) {
		struct thin_entry e = thin_entry_load(&d[i]);

		change_apply(f, seq, le64_get(rec->volume), le64_get(rec->first) + i, &e);
	}
	if (type == THIN_REC_LEAF_DROP)
		leaf_co_drop(f, payload, seq);
	if (type == THIN_REC_COPY)
		volume_apply(f, seq, le64_get(((const struct thin_rec_copy *)payload)->source), 0, UINT64_MAX,
			     le64_get(((const struct thin_rec_copy *)payload)->id));
	if (type == THIN_REC_ROLLBACK)
		rollback(f, payload, seq);
	f->applied = seq;
	if (meta_durable_seq(f->m) < seq)
		return;
	durable_advance(f, seq);
	for (k = f->fresh; k; k = k->next)
		if (!k->judged && k->from == seq)
			judge_state(f, k);
	fresh_sweep(f);
}

/* ---- writes ---- */

static struct thin_flags_mark *fresh_begin(struct thin_flags *f, const struct io *io)
{
	struct thin_flags_mark *k = calloc(1, sizeof(*k));
	size_t i;

	CHECK(k);
	*k = (struct thin_flags_mark){ .off = io->off_bytes, .len = io->len_bytes, .from = meta_durable_seq(f->m),
				       .upto = UINT64_MAX, .ended = UINT64_MAX, .next = f->fresh };
	f->fresh = k;
	memset(f->written + k->off / f->block_bytes, 0, k->len / f->block_bytes);
	if (io->off_bytes % f->sub_bytes || io->len_bytes % f->sub_bytes)
		problem(f, "a fresh write of parts of subclusters", io->off_bytes);
	if (f->applied < k->from)
		return k; /* judged when the records are applied that are durable now */
	durable_advance(f, k->from);
	judge_state(f, k);
	for (i = 0; i < f->n_changes; i++)
		judge_change(f, k, f->changes[i].seq, &f->changes[i].e);
	return k;
}

struct thin_flags_mark *thin_flags_write_begin(struct thin_flags *f, const struct io *io)
{
	uint64_t first = io->off_bytes / f->block_bytes, n = io->len_bytes / f->block_bytes, i;

	if ((io->flags & IO_FRESH) && (io->flags & IO_OVERWRITE))
		problem(f, "a write that says two things", io->off_bytes);
	if (io->flags & IO_FRESH) {
		f->sum.fresh++;
		return fresh_begin(f, io);
	}
	if (!(io->flags & IO_OVERWRITE)) {
		f->sum.neither++;
		return NULL;
	}
	f->sum.overwrite++;
	for (i = first; i < first + n; i++) {
		if (f->written[i])
			continue;
		problem(f, "an overwrite of what has not been written", i * f->block_bytes);
		break;
	}
	return NULL;
}

void thin_flags_write_end(struct thin_flags *f, struct thin_flags_mark *mark, const struct io *io, int result)
{
	f->clock++;
	if (mark) {
		mark->ended = f->clock;
		mark->upto = meta_last_seq(f->m);
	}
	if (result == 0 && !(io->flags & IO_OVERWRITE)) /* that says nothing about a cluster that is lost meanwhile */
		memset(f->written + io->off_bytes / f->block_bytes, 1, io->len_bytes / f->block_bytes);
	fresh_sweep(f);
}

uint64_t thin_flags_flush_begin(struct thin_flags *f)
{
	return f->clock;
}

void thin_flags_flush_end(struct thin_flags *f, uint64_t since)
{
	struct thin_flags_mark *k;

	for (k = f->fresh; k; k = k->next)
		k->durable |= k->ended <= since;
	fresh_sweep(f);
}

struct thin_flags_sum thin_flags_sum(const struct thin_flags *f)
{
	return f->sum;
}
