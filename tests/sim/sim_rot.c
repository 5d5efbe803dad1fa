/*
 * sim_rot.c: damage that no disk reports. In service to metadata, where checksums tell good copies from bad ones; at the end to
 * data, where a scrub must find it, and put it right where redundancy says what is right.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/io/buf.h"
#include "engine/pool/pool_internal.h"
#include "tests/sim/sim_run.h"

/* first_bytes, step_bytes: where a move may carry it, on any disk; 0, 0: nowhere. */
static void rot_at(struct sim_run *s, unsigned disk, uint64_t off_bytes, uint64_t first_bytes, uint64_t step_bytes)
{
	struct rot *r = &s->rots[s->n_rots++];

	r->disk = disk;
	r->off_bytes = off_bytes;
	r->first_bytes = first_bytes;
	r->step_bytes = step_bytes;
	sim_disk_peek(s->rig.disks, disk, off_bytes, r->before, 512);
	memcpy(r->after, r->before, 512);
	r->after[rng_below(&s->rng, 512)] ^= (uint8_t)(1u << rng_below(&s->rng, 8));
	sim_disk_poke(s->rig.disks, disk, off_bytes, r->after, 512);
	rig_note(&s->rig, "nemesis: rot on disk %u at %" PRIu64, disk, off_bytes);
}

/* False: it has been written there, and the write may be lost yet. */
static bool undo_at(struct sim_run *s, const struct rot *r, unsigned disk, uint64_t off_bytes)
{
	uint8_t now[512];

	sim_disk_peek(s->rig.disks, disk, off_bytes, now, 512);
	if (sim_disk_is_volatile(s->rig.disks, disk, off_bytes))
		return (disk != r->disk || off_bytes != r->off_bytes) && memcmp(now, r->after, 512);
	if (!memcmp(now, r->after, 512))
		sim_disk_poke(s->rig.disks, disk, off_bytes, r->before, 512);
	return true;
}

/* A column that moves takes it along. */
static bool undo_moved(struct sim_run *s, const struct rot *r)
{
	bool is_undone = true;
	uint64_t off;
	unsigned i;

	for (i = 0; i < s->rig.n_disks && r->step_bytes; i++)
		for (off = r->first_bytes; off + 512 <= sim_disk_size(s->rig.disks, i); off += r->step_bytes)
			is_undone &= undo_at(s, r, i, off);
	return is_undone;
}

void rot_undo(struct sim_run *s)
{
	unsigned i, k = 0;

	for (i = 0; i < s->n_rots; i++) {
		bool is_undone = undo_at(s, &s->rots[i], s->rots[i].disk, s->rots[i].off_bytes);

		is_undone &= undo_moved(s, &s->rots[i]);
		if (!is_undone)
			s->rots[k++] = s->rots[i];
	}
	s->n_rots = k;
}

/* ---- metadata ---- */

/* Where one copy of the metadata lies on the disk: with two copies there, the second. 0: nowhere, or it is the only copy. */
static uint64_t metadata_place(struct sim_run *s, unsigned disk)
{
	const struct label *l = s->rig.p->label;
	unsigned i = (unsigned)rng_below(&s->rng, MAX(l->n_meta, 1)), c;
	uint64_t off = 0;

	for (c = 0; i < l->n_meta && c < l->meta[i].n_cols; c++)
		if ((int)l->meta[i].cols[c].disk == rig_member(&s->rig, disk) && l->meta[i].n_cols > 1)
			off = l->meta[i].cols[c].off_bytes;
	return off;
}

void rot_one(struct sim_run *s, unsigned disk)
{
	const struct label *l = s->rig.p->label;
	uint64_t off = metadata_place(s, disk), at;

	if (!off || s->n_rots == ROT_MAX)
		return;
	at = 512 * rng_below(&s->rng, l->group_bytes / 512);
	if (!sim_disk_is_volatile(s->rig.disks, disk, off + at)) /* else what is undone would be a write */
		rot_at(s, disk, off + at, l->data_off + at, l->extent_bytes);
}

/* ---- data ---- */

struct planted {
	uint64_t group, stripe;
	unsigned disk;
	bool named; /* the scrub must say which disk it is */
	char volume[MODEL_NAME_MAX];
};

#define PLANTED_MAX 4

/* A cluster of the volume that holds something: its logical address and which subclusters. 0: none was found. */
static uint64_t co_some_data(struct sim_run *s, const char *volume, uint16_t *mask)
{
	struct thin_entry_disk *v = xmalloc(THIN_MAP_PER_LEAF * sizeof(*v));
	struct ashlar_volume_info info;
	uint64_t leaf = 0, found = 0, n = 0;
	struct thin_entry e;
	unsigned i;

	if (ashlar_co_volume_info(s->rig.p, volume, &info, NULL) < 0)
		goto out;
	for (; leaf < 64 && thin_co_next_leaf(s->rig.p->thin, info.id, &leaf) == 0; leaf++) {
		if (thin_co_leaf(s->rig.p->thin, info.id, leaf, false, v) < 0)
			break;
		for (i = 0; i < THIN_MAP_PER_LEAF; i++) {
			e = thin_entry_load(&v[i]);
			if (e.own && e.own_mask && rng_below(&s->rng, ++n) == 0) {
				found = e.own * s->rig.cluster_bytes;
				*mask = e.own_mask;
			}
		}
	}
out:
	xfree(v);
	return found;
}

/* Which column to damage so that what is right can be told; -1: that layout cannot. */
static int choose_column(struct sim_run *s, const struct raid_desc *d, const struct raid_place *at, bool *named)
{
	int any[3] = { at->cols[0], at->p, at->q };

	*named = true;
	if (d->layout == RAID_RAID6)
		return any[rng_below(&s->rng, 3)];
	if (d->copies == 3)
		return at->cols[rng_below(&s->rng, 3)];
	*named = false;
	if (d->layout == RAID_RAID5)
		return at->p; /* computed again from the data */
	return d->copies == 2 ? at->cols[1] : -1; /* the first one counts */
}

static bool co_plant(struct sim_run *s, struct planted *v, unsigned n)
{
	struct rig *g = &s->rig;
	struct model_vol *vol = model_vol(g->model, (unsigned)rng_below(&s->rng, model_n_vols(g->model)));
	struct planted *x = &v[n];
	struct raid_place at;
	struct pgroup *pg;
	uint64_t addr, off, sub = g->cluster_bytes / 16;
	uint16_t mask = 0;
	unsigned i;
	int col;

	if (vol->state != MODEL_LIVE)
		return false;
	addr = co_some_data(s, vol->name, &mask);
	if (!addr || pool_co_pgroup_get(g->p, addr / g->group_bytes, &pg) < 0)
		return false;
	addr += sub * (unsigned)__builtin_ctz(mask) + ALIGN_DOWN(rng_below(&s->rng, sub), 512ULL);
	raid_place(&pg->desc, addr % g->group_bytes, 512, &at);
	col = choose_column(s, &pg->desc, &at, &x->named);
	if (col < 0)
		return false;
	x->group = pg->desc.group;
	x->stripe = at.col_off_bytes / pg->desc.strip_bytes;
	x->disk = rig_disk_of(g, pg->desc.cols[col].disk);
	snprintf(x->volume, sizeof(x->volume), "%s", vol->name);
	for (i = 0; i < n; i++)
		if (v[i].group == x->group && v[i].stripe == x->stripe)
			return false;
	off = pg->desc.cols[col].off_bytes + at.col_off_bytes;
	if (s->n_rots == ROT_MAX || sim_disk_is_volatile(g->disks, x->disk, off))
		return false;
	rot_at(s, x->disk, off, 0, 0);
	return true;
}

/* Is there an event that names it? */
static bool is_reported(const struct planted *x, const struct ashlar_event *ev, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (!strcmp(ev[i].type, "scrub.mismatch") && (!x->named || !strcmp(ev[i].disk, rig_paths[x->disk])))
			return true;
	return false;
}

void rot_co_scrub(struct sim_run *s)
{
	struct rig *g = &s->rig;
	struct planted v[PLANTED_MAX];
	struct ashlar_event *ev;
	unsigned n = 0, i, tries;
	size_t n_ev;

	rig_co_scrub(g, false, 0);
	for (tries = 0; tries < 20 && n < PLANTED_MAX && model_n_vols(g->model) && !g->failed; tries++)
		n += co_plant(s, v, n);
	if (!n || g->failed)
		return;
	if (rig_co_scrub(g, true, UINT64_MAX) < n && !g->failed)
		rig_fail(g, "%u places have been damaged, and the scrub has not found them all", n);
	if (g->failed || ashlar_co_events(g->a, 0, 1024, 0, &ev, &n_ev, NULL) < 0)
		return;
	for (i = 0; i < n; i++)
		if (!is_reported(&v[i], ev, n_ev))
			rig_fail(g, "group %" PRIu64 ", stripe %" PRIu64 ", of volume %s is damaged on disk %u: no event says so", v[i].group,
				 v[i].stripe, v[i].volume, v[i].disk);
	xfree(ev);
	s->n_rots = 0; /* repaired */
	if (!g->failed)
		rig_co_scrub(g, false, 0);
}
