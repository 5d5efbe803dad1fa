/*
 * sim_between.c: what happens to disks while nobody looks: some are missing at the next opening, an old copy of one is put back in
 * its place, one has been wiped, or cut short. Within what redundancy covers.
 */
#include <string.h>

#include "engine/base/hash.h"
#include "engine/pool/pool_internal.h"
#include "tests/sim/sim_run.h"

#define CUTS_SALT 0x6375747373686f72ULL
#define FEW_LEFT_SALT 73
#define GENERATIONS_APART 4 /* of labels: closing writes some that we have not noted; and every disk has been told that there were more since */

void between_note(struct sim_run *s)
{
	unsigned i;

	if (!s->rig.p)
		return;
	s->hurt |= rig_away(&s->rig);
	s->generation = s->rig.p->label->generation;
	s->acked_generation = s->rig.p->label->acked_generation;
	for (i = 0; i < s->rig.n_disks; i++) {
		int at = rig_member(&s->rig, i);

		s->uuids[i] = at < 0 ? (struct uuid){ 0 } : s->rig.p->label->disks[at].uuid;
	}
}

static void take(struct sim_run *s, unsigned i)
{
	rig_note(&s->rig, "nemesis: disk %u is missing", i);
	model_lost(s->rig.model);
	sim_disk_remove(s->rig.disks, i);
	s->harm[i].now = s->harm[i].missed = s->harm[i].removed = true;
	s->hurt |= 1U << i;
}

static void old_copy(struct sim_run *s, unsigned i)
{
	rig_note(&s->rig, "nemesis: an old copy of disk %u has been put back", i);
	sim_disk_restore(s->rig.disks, i, s->old);
	s->hurt |= 1U << i;
}

/* Another disk of the pool then, or none: putting that back is taking the disk away for good. */
static bool is_same_member(const struct sim_run *s, unsigned i)
{
	return !uuid_is_zero(&s->uuids[i]) && uuid_is_equal(&s->uuids[i], &s->old_uuids[i]);
}

/* An old copy is worth anything only after the pool has gone on for some time without it. */
static void old_copies(struct sim_run *s, unsigned i)
{
	if (s->old && s->acked_generation >= s->old_generation + GENERATIONS_APART && rng_chance(&s->rng, 1, 4) && !s->harm[i].saved &&
	    is_same_member(s, i))
		old_copy(s, i);
	if (!s->generation || (s->old && !rng_chance(&s->rng, 1, 3)))
		return;
	for (i = 0; i < s->rig.n_disks; i++)
		if (s->harm[i].saved) /* wiped: not a copy that anybody would keep */
			return;
	if (s->old)
		sim_disks_destroy(s->old);
	s->old = sim_disks_clone(s->rig.disks);
	s->old_generation = s->generation;
	memcpy(s->old_uuids, s->uuids, sizeof(s->uuids));
}

static void all_back(struct sim_run *s)
{
	unsigned i;

	for (i = 0; i < s->rig.n_disks; i++) {
		struct harm *h = &s->harm[i];

		if (h->saved && !s->last && rng_chance(&s->rng, 1, 2)) {
			sim_disk_put_back(s->rig.disks, i);
			continue;
		}
		if (h->saved) {
			sim_disk_restore(s->rig.disks, i, h->saved);
			sim_disks_destroy(h->saved);
		}
		if (h->cut_bytes)
			sim_disk_resize(s->rig.disks, i, h->cut_bytes);
		*h = (struct harm){ 0 };
		sim_disk_put_back(s->rig.disks, i);
	}
}

/* Is a label left in the first so many bytes? One that has joined of late has few. */
static bool has_label(struct sim_run *s, unsigned i, uint64_t size)
{
	char magic[8];
	unsigned k;

	for (k = 0; k < LABEL_SLOTS && k * LABEL_SLOT_BYTES + 4096 <= MAX(ALIGN_DOWN(size, 4096ULL), 4096ULL); k++) {
		sim_disk_peek(s->rig.disks, i, k * LABEL_SLOT_BYTES, magic, sizeof(magic));
		if (!memcmp(magic, LABEL_MAGIC, sizeof(magic)))
			return true;
	}
	return false;
}

/* Some of those that are missing are there after all, but have been cut short; some of them have been made long again. */
static void cut_short(struct sim_run *s)
{
	struct rng rng, few; /* of its own: older seeds go on meaning what they meant */
	uint64_t size;
	unsigned i;

	rng_init(&rng, hash_mix(s->seed + CUTS_SALT) + s->life);
	rng_init(&few, hash_mix(s->seed + FEW_LEFT_SALT) + s->life);
	for (i = 0; i < s->rig.n_disks; i++) {
		struct harm *h = &s->harm[i];

		if (!h->removed || h->saved || uuid_is_zero(&s->uuids[i]) || !rng_chance(&rng, 1, 3))
			continue;
		sim_disk_put_back(s->rig.disks, i);
		h->removed = false;
		h->cut_bytes = sim_disk_size(s->rig.disks, i);
		size = rng_below(&rng, rng_chance(&rng, 1, 3) ? MIN(h->cut_bytes, MIB) : h->cut_bytes);
		size = rng_chance(&rng, 1, 2) ? h->cut_bytes - size : size;
		if (rng_chance(&few, 1, 3)) /* labels, and not all of them */
			size = rng_below(&few, 256 * KIB);
		if (!has_label(s, i, size)) /* then it would be anybody's, and no `disk online` brings it back */
			size = MAX(size, 256 * KIB);
		sim_disk_resize(s->rig.disks, i, MAX(ALIGN_DOWN(size, 4096ULL), 4096ULL));
		rig_note(&s->rig, "nemesis: disk %u has been cut short, to %llu of %llu KiB", i, (unsigned long long)size / 1024,
			 (unsigned long long)h->cut_bytes / 1024);
		if (rng_chance(&rng, 1, 2))
			continue;
		rig_note(&s->rig, "nemesis: and it has been made long again");
		sim_disk_resize(s->rig.disks, i, h->cut_bytes);
		h->cut_bytes = 0;
		h->now = false;
	}
}

void between_lives(struct sim_run *s)
{
	unsigned i;
	int spare;

	all_back(s);
	nemesis_off(s);
	pools_between(s);
	s->claim.valid = false;
	spare = (int)s->tolerates - __builtin_popcount(s->hurt);
	if (s->hurt)
		s->rig.degraded = s->rig.may_be_full = true;
	if (s->last || s->beyond || spare < 0)
		return;
	for (i = 0; i < s->rig.n_disks; i++)
		if (s->hurt >> i & 1 && rng_chance(&s->rng, 1, 3))
			take(s, i);
	i = (unsigned)rng_below(&s->rng, s->rig.n_disks);
	if (spare >= 1 && !(s->hurt >> i & 1) && s->faults && rng_chance(&s->rng, 1, 3)) {
		take(s, i);
		spare--;
	}
	i = (unsigned)rng_below(&s->rng, s->rig.n_disks);
	if (s->faults && (spare >= 1 || s->hurt >> i & 1))
		old_copies(s, i);
	cut_short(s);
	if (s->hurt)
		s->rig.degraded = s->rig.may_be_full = true;
}
