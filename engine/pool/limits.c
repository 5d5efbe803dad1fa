/*
 * limits.c: what clients of a volume may do in a second: the command. thin/limit.c holds them to it.
 */
#include "engine/base/units.h"
#include "engine/pool/label.h"
#include "engine/pool/volumes.h"

#define LIMIT_BPS_MIN (64 * KIB)
#define LIMIT_BPS_MAX PIB
#define LIMIT_BURST_BPS_MAX (2 * TIB) /* its field is in KiB */
#define LIMIT_BURST_SECONDS 60

void pool_limits_get(const struct thin_vol *v, struct ashlar_limits *out)
{
	*out = (struct ashlar_limits){ .iops = v->limits.iops,
				       .bps = (int64_t)v->limits.bps,
				       .burst_iops = v->limits.burst_iops,
				       .burst_bps = (int64_t)v->limits.burst_bps,
				       .burst_seconds = v->limits.burst_seconds };
}

static int check_iops(struct ashlar_pool *p, const char *name, const struct ashlar_limits *l, struct err *e)
{
	if (l->iops > UINT32_MAX || l->burst_iops > UINT32_MAX)
		return err_set(e, -ERANGE, "volume %s/%s: more than %u I/Os per second are no limit: leave it off", p->label->name, name,
			       UINT32_MAX);
	if (l->burst_iops && !l->iops)
		return err_set(e, -EINVAL, "volume %s/%s: a burst of I/Os needs a limit of I/Os (iops) that it goes beyond", p->label->name, name);
	if (l->burst_iops && l->burst_iops <= l->iops)
		return err_set(e, -EINVAL, "volume %s/%s: a burst of %lld I/Os per second is not more than the limit of %lld: raise it, or take it off",
			       p->label->name, name, (long long)l->burst_iops, (long long)l->iops);
	return 0;
}

static int check_bps(struct ashlar_pool *p, const char *name, const struct ashlar_limits *l, struct err *e)
{
	char burst[16], text[16];

	size_format((uint64_t)l->bps, text, sizeof(text));
	size_format((uint64_t)l->burst_bps, burst, sizeof(burst));
	if (l->bps && (l->bps < (int64_t)LIMIT_BPS_MIN || l->bps > (int64_t)LIMIT_BPS_MAX))
		return err_set(e, -ERANGE, "volume %s/%s: %s per second: a limit is 64K per second or more, up to 1P", p->label->name, name, text);
	if (l->burst_bps > (int64_t)LIMIT_BURST_BPS_MAX)
		return err_set(e, -ERANGE, "volume %s/%s: a burst of %s per second: 2T is the most there is", p->label->name, name, burst);
	if (l->burst_bps && !l->bps)
		return err_set(e, -EINVAL, "volume %s/%s: a burst of bytes needs a limit of bytes (bps) that it goes beyond", p->label->name, name);
	if (l->burst_bps && l->burst_bps <= l->bps)
		return err_set(e, -EINVAL, "volume %s/%s: a burst of %s per second is not more than the limit of %s: raise it, or take it off",
			       p->label->name, name, burst, text);
	return 0;
}

static int check_burst(struct ashlar_pool *p, const char *name, const struct ashlar_limits *l, struct err *e)
{
	if (l->burst_seconds > UINT16_MAX)
		return err_set(e, -ERANGE, "volume %s/%s: a burst lasts %u seconds at most", p->label->name, name, UINT16_MAX);
	if (l->burst_seconds && !l->burst_iops && !l->burst_bps)
		return err_set(e, -EINVAL, "volume %s/%s: there is no burst (burst_iops, burst_bps) that could last %lld seconds", p->label->name,
			       name, (long long)l->burst_seconds);
	return 0;
}

static void take(int64_t *now, int64_t change)
{
	if (change >= 0)
		*now = change;
}

int pool_limits_change(struct ashlar_pool *p, const char *name, const struct ashlar_limits *change, struct thin_limits *limits,
		       struct err *e)
{
	struct ashlar_limits l = { limits->iops, (int64_t)limits->bps, limits->burst_iops, (int64_t)limits->burst_bps, limits->burst_seconds };
	int r;

	take(&l.iops, change->iops);
	take(&l.bps, change->bps);
	take(&l.burst_iops, l.iops || change->burst_iops > 0 ? change->burst_iops : 0);
	take(&l.burst_bps, l.bps || change->burst_bps > 0 ? change->burst_bps : 0);
	take(&l.burst_seconds, l.burst_iops || l.burst_bps || change->burst_seconds > 0 ? change->burst_seconds : 0);
	r = check_iops(p, name, &l, e);
	if (r == 0)
		r = check_bps(p, name, &l, e);
	if (r == 0)
		r = check_burst(p, name, &l, e);
	if (r < 0)
		return r;
	if (!l.burst_seconds && (l.burst_iops || l.burst_bps))
		l.burst_seconds = LIMIT_BURST_SECONDS;
	*limits = (struct thin_limits){ .iops = (uint32_t)l.iops,
					.bps = (uint64_t)l.bps,
					.burst_iops = (uint32_t)l.burst_iops,
					.burst_bps = ALIGN_UP((uint64_t)l.burst_bps, KIB),
					.burst_seconds = (uint16_t)l.burst_seconds };
	return 0;
}

static int set_co_locked(struct ashlar_pool *p, const char *name, const struct ashlar_limits *change, struct err *e)
{
	struct thin_vol *v = pool_vol_find(p, name, e), *to;
	struct thin_limits limits;
	int r;

	if (!v)
		return -ENOENT;
	limits = v->limits;
	r = pool_limits_change(p, name, change, &limits, e);
	if (r == 0 && (limits.iops || limits.bps))
		r = pool_co_feature(p, LABEL_INCOMPAT_LIMITS, e);
	if (r < 0)
		return r;
	to = xmalloc(sizeof(*to));
	*to = *v;
	to->limits = limits;
	r = pool_co_vol_update(p, v, to, e);
	if (r == 0)
		pool_co_vol_set_limits(p, v, &limits);
	xfree(to);
	return r;
}

int ashlar_co_volume_set_limits(struct ashlar_pool *p, const char *name, const struct ashlar_limits *change, struct err *e)
{
	int r = pool_check_writable(p, e);

	if (r < 0)
		return r;
	co_mutex_lock(&p->a->admin);
	r = set_co_locked(p, name, change, e);
	co_mutex_unlock(&p->a->admin);
	return r;
}
