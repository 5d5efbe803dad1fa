/*
 * sim_limits.c: what clients of volumes may do in a second, over crashes. The model knows no time: it only has to come through.
 */
#include <inttypes.h>
#include <string.h>

#include "engine/base/units.h"
#include "tests/lib/sim_rig.h"

/* All limits follow from one number. */
static struct ashlar_limits limits_of(uint32_t n)
{
	struct ashlar_limits l = { .iops = n };

	if (!n)
		return l;
	l.bps = n % 3 ? n * 64 * (int64_t)KIB : 0;
	l.burst_iops = n % 2 ? 2 * (int64_t)n + 1 : 0;
	l.burst_bps = l.bps && n % 5 == 0 ? 3 * l.bps : 0;
	l.burst_seconds = l.burst_iops || l.burst_bps ? 1 + n % 100 : 0;
	return l;
}

void rig_settle_limits(struct rig *g, struct model_vol *mv, const struct ashlar_limits *l)
{
	struct ashlar_limits want = limits_of((uint32_t)l->iops);

	if (!model_vol_settle_limits(mv, (uint32_t)l->iops) || memcmp(&want, l, sizeof(want)))
		rig_fail(g, "volume %s: its limits are those of %" PRId64 ", not of %u", mv->name, l->iops, mv->limits);
}

int rig_co_vol_limit(struct rig *g, struct model_vol *v, uint32_t limits)
{
	struct ashlar_limits l = limits_of(limits);
	struct ashlar_volume_info info;
	struct ashlar_pool *p;
	struct err e = { 0 };
	int r;

	if (v->n_busy || v->limiting)
		return 0;
	rig_note(g, "limits of %u for %s", limits, v->name);
	model_vol_limit(v, limits);
	v->n_busy++;
	do {
		p = rig_pool(g, v);
		r = ashlar_co_volume_set_limits(p, v->name, &l, &e);
	} while (rig_has_moved(g, v, p, r));
	rig_note(g, "limits of %u for %s: %d", limits, v->name, r);
	v->n_busy--;
	if (!rig_is_unknown(g, r, &e, "limits", v->name))
		model_vol_limited(v, r == 0);
	if (r == 0 && ashlar_co_volume_info(rig_pool(g, v), v->name, &info, NULL) == 0 && !info.is_elsewhere)
		rig_settle_limits(g, v, &info.limits);
	return r;
}
