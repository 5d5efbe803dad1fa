/*
 * sim_nemesis.c: what happens to disks in service, within the atlas: only as many at a time have faults, or have not caught up
 * since, as the pool says it can spare at that moment. Slow disks are everywhere. On pools without redundancy one copy of the
 * metadata is damaged.
 *
 * A disk is `hurt` from the first fault until the pool calls it online again, some time after the last fault.
 */
#include <inttypes.h>
#include <string.h>

#include "engine/pool/pool_internal.h"
#include "tests/sim/sim_run.h"

static bool is_hurt(const struct sim_run *s, unsigned i)
{
	return s->hurt >> i & 1;
}

static uint64_t now(const struct sim_run *s)
{
	return world_now_ns(s->rig.w);
}

/* Longest time that a request may take on a disk that is well. */
static uint64_t patience(const struct sim_run *s)
{
	return s->rig.settings.timeout_ns / 3;
}

void nemesis_off(struct sim_run *s)
{
	unsigned i;

	pools_off(s);
	for (i = 0; i < s->rig.n_disks; i++) {
		memset(sim_disk_faults(s->rig.disks, i), 0, sizeof(struct sim_faults));
		sim_disk_clear_bad(s->rig.disks, i);
		sim_disk_faults(s->rig.disks, i)->gone = s->harm[i].removed; /* nothing comes back through the open handle */
		if (s->harm[i].removed || s->harm[i].saved || s->harm[i].cut_bytes)
			continue; /* and a blank disk stays one */
		s->harm[i].now = false;
		s->harm[i].healed_ns = s->rig.w ? now(s) : 0;
	}
}

void nemesis_co_look(struct sim_run *s)
{
	unsigned i;

	rig_co_claim(&s->rig, &s->claim);
	if (s->claim.redundancy < 0 && !s->beyond)
		rig_fail(&s->rig, "the pool says that something is lost");
	for (i = 0; i < s->rig.n_disks; i++) {
		struct harm *h = &s->harm[i];

		if (!is_hurt(s, i) || h->now || s->claim.away >> i & 1)
			continue;
		if (h->missed && now(s) < h->healed_ns + s->rig.settings.timeout_ns)
			continue; /* an old request may fail yet */
		h->missed = false;
		s->hurt &= ~(1U << i);
		rig_note(&s->rig, "nemesis: disk %u has caught up", i);
	}
	if (!s->hurt && !s->claim.away) {
		s->rig.degraded = s->moves; /* too few may stay for a layout */
		s->rig.may_be_full = s->overcommit || s->transfers || s->moves || s->pools; /* what is received takes space too */
	}
}

/* ---- slow ---- */

static void slow_disks(struct sim_run *s)
{
	static const uint64_t stalls[] = { NS_PER_MS, 20 * NS_PER_MS, NS_PER_SEC, 10 * NS_PER_SEC };
	unsigned i;

	for (i = 0; i < s->rig.n_disks; i++) {
		struct sim_faults *f = sim_disk_faults(s->rig.disks, i);

		if (s->harm[i].now)
			continue;
		f->stall = rng_chance(&s->rng, 1, 3) ? (uint32_t)rng_below(&s->rng, 300) : 0;
		f->stall_ns = stalls[rng_below(&s->rng, 4)];
		f->stall_ns = MIN(f->stall_ns, patience(s));
		if (f->stall)
			rig_note(&s->rig, "nemesis: disk %u is slow now and then (%" PRIu64 " us)", i, f->stall_ns / 1000);
	}
}

static void co_hang(struct sim_run *s)
{
	unsigned i = (unsigned)rng_below(&s->rng, s->rig.n_disks);
	struct sim_faults *f = sim_disk_faults(s->rig.disks, i);
	uint64_t max;

	if (s->harm[i].now)
		return;
	rig_note(&s->rig, "nemesis: disk %u hangs for a moment", i);
	f->hang = true;
	max = MIN(patience(s), 3 * NS_PER_SEC);
	co_sleep_ns(rng_below(&s->rng, MIN(max, s->life_ns)));
	f->hang = false;
}

/* ---- hurting one ---- */

enum how {
	HOW_READ_ERRORS,
	HOW_BAD_RANGES,
	HOW_ROT,
	HOW_WRITE_ERRORS, /* from here on it may miss writes */
	HOW_FLUSH_ERRORS,
	HOW_GONE,
	HOW_PULLED, /* and nothing at its path */
	HOW_HANG,
	HOW_SLOW, /* beyond all patience, now and then */
	HOW_FAIL, /* somebody says so */
	HOW_FLAKY, /* gone for a moment, again and again */
	HOW_WIPED, /* pulled, and blank when it comes back */
	HOW_N,
};

static const char *const hows[HOW_N] = {
	"read errors", "latent errors", "rot", "write errors", "flush errors", "gone", "pulled", "hangs", "slow",
	"is failed by command", "flaky", "wiped",
};

static void bad_ranges(struct sim_run *s, unsigned i)
{
	uint64_t size = s->rig.p->label->disks[MAX(rig_member(&s->rig, i), 0)].size_bytes, off, n = 1 + rng_below(&s->rng, 4);

	while (n--) {
		off = rng_below(&s->rng, rng_chance(&s->rng, 1, 2) ? MIN(size, 4 * MIB) : size - MIB) + 256 * KIB;
		sim_disk_bad_range(s->rig.disks, i, ALIGN_DOWN(off, (uint64_t)4096), 4096 * (1 + rng_below(&s->rng, 64)));
	}
}

static void co_fail(struct sim_run *s, unsigned i)
{
	struct err e = { 0 };
	int r = ashlar_co_disk_fail(s->rig.p, rig_paths[i], false, true, &e);

	if (r == 0)
		r = ashlar_co_disk_fail(s->rig.p, rig_paths[i], false, false, &e);
	if (r < 0 && !s->rig.may_fail && rig_member(&s->rig, i) >= 0)
		rig_fail(&s->rig, "disk fail %s: %s (%d), although redundancy is %d", rig_paths[i], e.text, r, s->claim.redundancy);
	if (r == 0 && rig_member(&s->rig, i) >= 0 && !(rig_away(&s->rig) >> i & 1))
		rig_fail(&s->rig, "disk %u has been failed and is online", i);
}

static void co_flaky(struct sim_run *s, unsigned i)
{
	unsigned n = 1 + (unsigned)rng_below(&s->rng, 5);

	while (n-- && !run_is_over(s)) {
		sim_disk_faults(s->rig.disks, i)->gone = true;
		run_co_sleep(s, rng_below(&s->rng, 3 * NS_PER_MS));
		sim_disk_faults(s->rig.disks, i)->gone = false;
		run_co_sleep(s, rng_below(&s->rng, 10 * NS_PER_MS));
	}
}

/* Whatever was with the disk has ended, so that it may be changed behind the engine's back. */
static bool co_drained(struct sim_run *s, unsigned i)
{
	unsigned k;

	for (k = 0; k < 1000 && !sim_disk_is_idle(s->rig.disks, i); k++)
		co_sleep_ns(10 * NS_PER_MS);
	return sim_disk_is_idle(s->rig.disks, i);
}

static void co_wipe(struct sim_run *s, unsigned i)
{
	if (!co_drained(s, i))
		return;
	s->harm[i].saved = sim_disks_clone(s->rig.disks);
	sim_disk_restore(s->rig.disks, i, NULL);
}

static void co_hurt(struct sim_run *s, unsigned i, enum how how)
{
	struct sim_faults *f = sim_disk_faults(s->rig.disks, i);
	struct harm *h = &s->harm[i];

	rig_note(&s->rig, "nemesis: disk %u: %s", i, hows[how]);
	s->hurt |= 1U << i;
	h->now = true;
	h->missed |= how >= HOW_WRITE_ERRORS;
	if (how >= HOW_WRITE_ERRORS)
		s->rig.degraded = s->rig.may_be_full = true;
	f->stall = 0;
	switch (how) {
	case HOW_READ_ERRORS: f->read_error = (uint32_t)rng_below(&s->rng, 4000); break;
	case HOW_BAD_RANGES: bad_ranges(s, i); break;
	case HOW_ROT: rot_one(s, i); break;
	case HOW_WRITE_ERRORS: f->write_error = (uint32_t)rng_below(&s->rng, 3000); break;
	case HOW_FLUSH_ERRORS: f->flush_error = (uint32_t)rng_below(&s->rng, 20000); break;
	case HOW_HANG: f->hang = true; break;
	case HOW_SLOW:
		f->stall = (uint32_t)rng_below(&s->rng, 10000);
		f->stall_ns = 2 * s->rig.settings.timeout_ns;
		break;
	case HOW_FAIL: co_fail(s, i); break;
	case HOW_FLAKY: co_flaky(s, i); break;
	case HOW_PULLED:
	case HOW_WIPED:
		sim_disk_remove(s->rig.disks, i);
		h->removed = true; /* fall through */
	default: f->gone = true;
	}
	if (how == HOW_WIPED)
		co_wipe(s, i);
}

/* ---- coming back ---- */

/* A blank disk in the place of one of the pool's: nobody may take it for that. */
static void co_blank_comes(struct sim_run *s, unsigned i)
{
	struct err e = { 0 };
	int r;

	sim_disk_put_back(s->rig.disks, i);
	s->harm[i].removed = false;
	sim_disk_faults(s->rig.disks, i)->gone = false;
	run_co_sleep(s, rng_below(&s->rng, 20 * NS_PER_SEC));
	if (rig_away(&s->rig) >> i & 1 && rng_chance(&s->rng, 1, 2)) {
		r = ashlar_co_disk_online(s->rig.p, rig_paths[i], NULL, &e);
		if (r == 0 && !s->rig.failed)
			rig_fail(&s->rig, "a blank disk has been taken for disk %u", i);
		rig_note(&s->rig, "nemesis: blank disk %u is refused: %s", i, e.text);
	}
	sim_disk_faults(s->rig.disks, i)->gone = true;
	if (!co_drained(s, i))
		return;
	sim_disk_restore(s->rig.disks, i, s->harm[i].saved);
	sim_disks_destroy(s->harm[i].saved);
	s->harm[i].saved = NULL;
}

static void co_online(struct sim_run *s, unsigned i)
{
	struct err e = { 0 };
	int r;

	if (rig_member(&s->rig, i) < 0)
		return; /* it has been removed meanwhile */
	r = ashlar_co_disk_online(s->rig.p, rig_paths[i], NULL, &e);
	rig_note(&s->rig, "nemesis: disk online %u: %d %s", i, r, e.text);
	/* What it still has under way may keep it away a while. */
	if (r < 0 && !s->rig.may_fail && r != -EBUSY && r != -EAGAIN && r != -EALREADY)
		rig_fail(&s->rig, "disk online %s: %s (%d)", rig_paths[i], e.text, r);
}

static void co_heal(struct sim_run *s, unsigned i)
{
	struct harm *h = &s->harm[i];

	rig_note(&s->rig, "nemesis: disk %u has no faults any more", i);
	if (h->saved)
		co_blank_comes(s, i);
	if (h->saved)
		return; /* still in use */
	if (sim_disk_faults(s->rig.disks, i)->gone && rng_chance(&s->rng, 1, 3) && co_drained(s, i))
		sim_disk_restore(s->rig.disks, i, s->rig.disks); /* it was without power */
	memset(sim_disk_faults(s->rig.disks, i), 0, sizeof(struct sim_faults));
	sim_disk_clear_bad(s->rig.disks, i);
	sim_disk_put_back(s->rig.disks, i);
	if (h->cut_bytes)
		sim_disk_resize(s->rig.disks, i, h->cut_bytes);
	if (s->n_rots)
		rot_undo(s);
	h->now = h->removed = false;
	h->cut_bytes = 0;
	h->healed_ns = now(s);
	if (h->missed && rng_chance(&s->rng, 1, 2)) {
		run_co_sleep(s, rng_below(&s->rng, NS_PER_SEC));
		if (!run_is_over(s))
			co_online(s, i);
	}
}

/* ---- one step ---- */

static unsigned pick(struct sim_run *s, uint32_t set)
{
	unsigned k = (unsigned)rng_below(&s->rng, (unsigned)__builtin_popcount(set)), i;

	for (i = 0; !(set >> i & 1) || k--; i++)
		;
	return i;
}

static uint32_t harmed(const struct sim_run *s)
{
	uint32_t set = 0;
	unsigned i;

	for (i = 0; i < s->rig.n_disks; i++)
		set |= (uint32_t)s->harm[i].now << i;
	return set;
}

static void co_disks(struct sim_run *s)
{
	uint32_t well, bad = harmed(s);

	nemesis_co_look(s);
	well = rig_members(&s->rig) & ~s->hurt;
	if (bad && rng_chance(&s->rng, 1, 2))
		co_heal(s, pick(s, bad));
	else if (well & ~s->claim.away && rig_may_hurt_one(&s->rig, &s->claim, s->hurt, s->tolerates))
		co_hurt(s, pick(s, well & ~s->claim.away), (enum how)rng_below(&s->rng, HOW_N));
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
		if (rng_chance(&s->rng, 1, 5))
			slow_disks(s);
		else if (rng_chance(&s->rng, 1, 8))
			co_hang(s);
		else if (s->tolerates && !s->beyond && rng_chance(&s->rng, 1, 8))
			probe_co_ask(s);
		else if (!s->beyond && !s->n_rots && !harmed(s) && rng_chance(&s->rng, 1, 12))
			rig_co_scrub(&s->rig, rng_chance(&s->rng, 1, 2), 0);
		else if (s->beyond)
			hurt_any(s);
		else if (s->faults && s->tolerates)
			co_disks(s);
		else if (s->faults)
			rot_one(s, (unsigned)rng_below(&s->rng, s->rig.n_disks));
	}
	s->n_running--;
}
