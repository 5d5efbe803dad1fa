/*
 * sim_transfer.c: a courier: sends snapshots, keeps the streams over crashes, and receives them into volumes old and new, whole,
 * cut, damaged and resumed, while clients and admin go on.
 */
#include <stdio.h>

#include "tests/lib/sim_transfer.h"
#include "tests/sim/sim_run.h"

static uint64_t any_slow(struct sim_run *s, struct rng *rng)
{
	return rng_chance(rng, 1, 3) ? s->life_ns / 64 : 0;
}

/* Another one of that volume, or of any of the family; either order. */
static struct model_vol *any_base(struct sim_run *s, struct rng *rng, const struct model_vol *snap)
{
	struct model_vol *v, *best = NULL;
	unsigned i, n = 0;

	for (i = 0; i < model_n_snaps(s->rig.model); i++) {
		v = model_snap(s->rig.model, i);
		if (v != snap && v->parent == snap->parent && rig_is_free(&s->rig, v) && rng_below(rng, ++n) == 0)
			best = v;
	}
	return best;
}

static void co_send(struct sim_run *s, struct rng *rng)
{
	struct parcel_way way = { .seed = rng_next(rng), .slow_ns = any_slow(s, rng), .max_bytes = SIZE_MAX, .stop = &s->stop };
	struct model_vol *snap = family_any_snap(s, rng), *base = snap && rng_chance(rng, 2, 3) ? any_base(s, rng, snap) : NULL;
	struct parcel *p;

	if (!snap)
		return;
	if (rng_chance(rng, 1, 12))
		way.max_bytes = rng_below(rng, 200000);
	p = rig_co_send(&s->rig, snap, base, rng_chance(rng, 2, 3), &way);
	if (p)
		parcel_keep(&s->rig, p, (unsigned)rng_below(rng, RIG_PARCELS_MAX));
}

/* Mostly one that has what the stream begins from. */
static struct model_vol *any_target(struct sim_run *s, struct rng *rng, const struct parcel *p)
{
	struct model_vol *v, *best = NULL;
	bool any = rng_chance(rng, 1, 16);
	unsigned i, n = 0;

	for (i = 0; i < model_n_vols(s->rig.model); i++) {
		v = model_vol(s->rig.model, i);
		if (!rig_is_free(&s->rig, v) || (!any && !model_vol_has(s->rig.model, v, model_image_content(p->base))))
			continue;
		if (!any && model_vol_has(s->rig.model, v, model_image_content(p->image)) && !rng_chance(rng, 1, 16))
			continue;
		if (rng_below(rng, ++n) == 0)
			best = v;
	}
	return best;
}

static bool has_room(struct sim_run *s)
{
	unsigned i, n = 0;

	for (i = 0; i < model_n_vols(s->rig.model); i++)
		n += model_vol(s->rig.model, i)->state == MODEL_LIVE;
	return n < s->n_vols_max + 2 && model_n_vols(s->rig.model) <= 300 && model_n_snaps(s->rig.model) <= 500;
}

/* One that somebody can receive, if there is such a one; to: who. */
static const struct parcel *any_parcel(struct sim_run *s, struct rng *rng, const char *name, struct model_vol **to)
{
	unsigned first = (unsigned)rng_below(rng, RIG_PARCELS_MAX), i;

	for (i = 0; i < s->rig.n_parcels; i++) {
		const struct parcel *p = s->rig.parcels[(first + i) % s->rig.n_parcels];

		*to = p->base ? any_target(s, rng, p) : NULL;
		if (p->base ? *to != NULL : has_room(s) && !model_vol_find(s->rig.model, name))
			return p;
	}
	return NULL;
}

static void co_receive(struct sim_run *s, struct rng *rng)
{
	char name[MODEL_NAME_MAX];
	const struct parcel *p;
	struct rig_receive x = { .name = name, .seed = rng_next(rng), .slow_ns = any_slow(s, rng), .cut = RIG_NEVER,
				 .flip = RIG_NEVER, .stop = &s->stop };

	snprintf(name, sizeof(name), "r%u", s->next_name++ % 3);
	p = x.parcel = model_n_snaps(s->rig.model) > 500 ? NULL : any_parcel(s, rng, name, &x.to);
	if (!p)
		return;
	x.force = rng_chance(rng, 2, 3);
	x.no_resume = rng_chance(rng, 1, 8);
	x.keep_bytes = rng_chance(rng, 1, 4) ? 0 : 1 + rng_below(rng, 256 * KIB);
	if (rng_chance(rng, 1, 4))
		x.cut = rng_below(rng, p->len);
	else if (rng_chance(rng, 1, 6))
		x.flip = rng_below(rng, p->len);
	rig_co_receive(&s->rig, &x);
}

void courier_co_main(void *arg)
{
	struct sim_run *s = arg;
	struct rng rng;

	rng_init(&rng, rng_next(&s->rng));
	while (!run_is_over(s)) {
		rig_co_kept(&s->rig, &rng, false, &s->stop);
		run_co_sleep(s, rng_below(&rng, s->life_ns / 24));
		if (run_is_over(s))
			break;
		if (s->rig.n_parcels && rng_chance(&rng, 2, 3))
			co_receive(s, &rng);
		else
			co_send(s, &rng);
	}
	s->n_running--;
}

void courier_co_end(struct sim_run *s)
{
	struct rng rng;

	rng_init(&rng, rng_next(&s->rng));
	rig_co_kept(&s->rig, &rng, true, NULL);
}
