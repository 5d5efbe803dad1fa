/*
 * sim_nemesis.c: disk faults, within the atlas: one disk at a time has them, and only where redundancy covers it; on pools
 * without redundancy one copy of the metadata has. Slow disks are everywhere.
 *
 * The victim stays the victim until it has no latent damage and the pool is whole again.
 */
#include <string.h>

#include "engine/pool/pool_internal.h"
#include "tests/sim/sim_run.h"

static struct sim_faults *victim(struct sim_run *s)
{
	return sim_disk_faults(s->rig.disks, s->victim);
}

static void victim_is_out(struct sim_run *s)
{
	s->victim_out = true;
	s->rig.degraded = true;
}

/* ---- damaged metadata ---- */

/* Where one copy of the metadata lies on the victim: on a disk with two copies, the second. */
static void rot_find_place(struct sim_run *s)
{
	const struct label *l = s->rig.p->label;
	unsigned i, c, at[RAID_COPIES_MAX * 4], n = 0;

	s->rot_len = 0;
	i = (unsigned)rng_below(&s->rng, MAX(l->n_meta, 1));
	for (c = 0; i < l->n_meta && c < l->meta[i].n_cols; c++)
		if (l->meta[i].cols[c].disk == s->victim)
			at[n++] = c;
	if (!n)
		return;
	s->rot_off = l->meta[i].cols[at[n - 1]].off_bytes;
	s->rot_len = l->group_bytes;
	if (n == l->meta[i].n_cols && n == 1)
		s->rot_len = 0; /* the only copy */
}

static void rot_one(struct sim_run *s)
{
	struct rot *r = &s->rots[s->n_rots];

	rot_find_place(s);
	if (s->n_rots == ROT_MAX || !s->rot_len)
		return;
	r->off_bytes = s->rot_off + 512 * rng_below(&s->rng, s->rot_len / 512);
	sim_disk_peek(s->rig.disks, s->victim, r->off_bytes, r->before, 512);
	memcpy(r->after, r->before, 512);
	r->after[rng_below(&s->rng, 512)] ^= (uint8_t)(1u << rng_below(&s->rng, 8));
	sim_disk_poke(s->rig.disks, s->victim, r->off_bytes, r->after, 512);
	s->n_rots++;
}

static void rots_undo(struct sim_run *s)
{
	uint8_t now[512];

	while (s->n_rots) {
		struct rot *r = &s->rots[--s->n_rots];

		sim_disk_peek(s->rig.disks, s->victim, r->off_bytes, now, 512);
		if (!memcmp(now, r->after, 512))
			sim_disk_poke(s->rig.disks, s->victim, r->off_bytes, r->before, 512);
	}
}

/* ---- faults of a running pool ---- */

void nemesis_off(struct sim_run *s)
{
	unsigned i;

	for (i = 0; i < s->rig.n_disks; i++) {
		memset(sim_disk_faults(s->rig.disks, i), 0, sizeof(struct sim_faults));
		sim_disk_clear_bad(s->rig.disks, i);
	}
	rots_undo(s);
}

static void slow_disks(struct sim_run *s)
{
	static const uint64_t stalls[] = { NS_PER_MS, 20 * NS_PER_MS, NS_PER_SEC, 10 * NS_PER_SEC };
	unsigned i;

	for (i = 0; i < s->rig.n_disks; i++) {
		struct sim_faults *f = sim_disk_faults(s->rig.disks, i);

		f->stall = rng_chance(&s->rng, 1, 3) ? (uint32_t)rng_below(&s->rng, 300) : 0;
		f->stall_ns = stalls[rng_below(&s->rng, 4)];
	}
}

static void co_hang(struct sim_run *s)
{
	struct sim_faults *f = sim_disk_faults(s->rig.disks, (unsigned)rng_below(&s->rng, s->rig.n_disks));

	f->hang = true;
	co_sleep_ns(rng_below(&s->rng, MIN(3 * NS_PER_SEC, s->life_ns)));
	f->hang = false;
}

static void co_hurt_victim(struct sim_run *s)
{
	struct sim_faults *f = victim(s);
	uint64_t off;

	rig_note(&s->rig, "nemesis: disk %u", s->victim);
	switch (rng_below(&s->rng, 7)) {
	case 0:
		f->read_error = (uint32_t)rng_below(&s->rng, 4000);
		break;
	case 1:
		off = ALIGN_DOWN(rng_below(&s->rng, 4 * MIB), (uint64_t)4096);
		sim_disk_bad_range(s->rig.disks, s->victim, off + 4096 * 64, 4096 * (1 + rng_below(&s->rng, 64)));
		break;
	case 2:
		f->write_error = (uint32_t)rng_below(&s->rng, 3000);
		s->victim_out = true;
		break;
	case 3:
		f->flush_error = (uint32_t)rng_below(&s->rng, 20000);
		s->victim_out = true;
		break;
	case 4:
		f->gone = true;
		s->victim_out = true;
		break;
	case 5:
		rot_one(s);
		break;
	default:
		f->read_error = f->write_error = f->flush_error = 0;
	}
	if (s->victim_out)
		victim_is_out(s);
}

/* Any disk, any error: requests may fail and the pool may stop. What is not there any more is all back for the next life. */
static void hurt_any(struct sim_run *s)
{
	struct sim_faults *f = sim_disk_faults(s->rig.disks, (unsigned)rng_below(&s->rng, s->rig.n_disks));
	uint32_t rate = 1U << rng_below(&s->rng, 15);

	rig_note(&s->rig, "nemesis: beyond redundancy");
	s->rig.may_fail = true;
	switch (rng_below(&s->rng, 6)) {
	case 0:
		f->read_error = rate;
		break;
	case 1:
		f->write_error = rate;
		break;
	case 2:
		f->flush_error = 4 * rate;
		break;
	case 3:
		f->gone = rng_chance(&s->rng, 1, 3);
		break;
	default:
		f->read_error = f->write_error = f->flush_error = 0;
	}
}

void nemesis_co_main(void *arg)
{
	struct sim_run *s = arg;

	while (!run_is_over(s)) {
		run_co_sleep(s, rng_below(&s->rng, s->life_ns / 4));
		if (run_is_over(s))
			break;
		if (rng_chance(&s->rng, 1, 4))
			slow_disks(s);
		else if (rng_chance(&s->rng, 1, 8))
			co_hang(s);
		else if (s->beyond)
			hurt_any(s);
		else if (s->faults && s->tolerates)
			co_hurt_victim(s);
		else if (s->faults)
			rot_one(s);
	}
	s->n_running--;
}

/* ---- between lives ---- */

void nemesis_presence(struct sim_run *s)
{
	unsigned i;

	for (i = 0; i < s->rig.n_disks; i++)
		sim_disk_put_back(s->rig.disks, i);
	if (s->last || !s->tolerates || s->beyond)
		return;
	if (rng_chance(&s->rng, 1, 4)) {
		rig_note(&s->rig, "nemesis: disk %u is missing", s->victim);
		sim_disk_remove(s->rig.disks, s->victim);
		victim_is_out(s);
	}
}

void nemesis_co_opened(struct sim_run *s)
{
	struct ashlar_pool_info i;

	ashlar_co_pool_info(s->rig.p, &i);
	if (i.health != ASHLAR_ONLINE || victim(s)->gone)
		return;
	if (s->victim_out)
		rig_note(&s->rig, "nemesis: disk %u is back", s->victim);
	s->victim_out = s->rig.degraded = false;
	s->rig.may_be_full = s->overcommit;
	s->victim = s->tolerates || s->rig.n_disks > 1 ? (unsigned)rng_below(&s->rng, s->rig.n_disks) : 0;
}
