/*
 * crash_transfer.c: snapshots are sent and received, whole, from one to the next, and after a cut, when the power goes.
 */
#include "tests/crash/crash_run.h"
#include "tests/lib/sim_transfer.h"

static struct parcel *co_send(struct crash_run *c, struct model_vol *snap, struct model_vol *base)
{
	struct parcel_way way = { .seed = rng_next(&c->rng), .max_bytes = SIZE_MAX };
	struct parcel *p = snap ? rig_co_send(&c->rig, snap, base, true, &way) : NULL;

	if (p)
		parcel_keep(&c->rig, p, 0);
	return p;
}

/* Often and in small steps kept; now and then cut, and then it goes on. */
static void co_receive(struct crash_run *c, const struct parcel *p, struct model_vol *to, const char *name)
{
	struct rig_receive x = { .parcel = p, .to = to, .name = name, .seed = rng_next(&c->rng), .force = rng_chance(&c->rng, 1, 2),
				 .keep_bytes = c->rig.cluster_bytes, .cut = RIG_NEVER, .flip = RIG_NEVER };

	if (rng_chance(&c->rng, 1, 2))
		x.cut = rng_below(&c->rng, p->len);
	if (rng_chance(&c->rng, 1, 3))
		x.slow_ns = NS_PER_MS;
	if (rig_co_receive(&c->rig, &x) < 0)
		rig_co_kept(&c->rig, &c->rng, false, NULL);
}

int transfer_co_run(struct crash_run *c)
{
	struct rig *g = &c->rig;
	struct model_vol *v = ops_vol(g, 0), *s[3] = { NULL }, *to;
	struct parcel *p = NULL;
	unsigned i;

	if (!v || model_vol_find(g->model, "copy"))
		return 0;
	for (i = 0; i < 3; i++) {
		s[i] = family_co_take(c, &v, 1);
		p = i && !s[i - 1] ? NULL : co_send(c, s[i], i ? s[i - 1] : NULL);
		to = model_vol_find(g->model, "copy");
		if (p && (!i || (to && rig_is_free(g, to))))
			co_receive(c, p, to, "copy");
		family_co_writes(c, v);
		if (i == 1 && rng_chance(&c->rng, 1, 3) && rig_is_free(g, v))
			(void)!rig_co_vol_resize(g, v, rng_chance(&c->rng, 1, 2) ? v->size_bytes + g->cluster_bytes :
								ALIGN_DOWN(v->size_bytes / 2, (uint64_t)g->block_bytes));
	}
	return 0;
}

void transfer_co_after(struct rig *g, struct rng *rng)
{
	rig_co_kept(g, rng, rng_chance(rng, 1, 2), NULL);
}
