/*
 * settings.c: properties of a pool that can be changed while it is open. Kept in the root page's owner area, changed by a
 * record.
 */
#include "engine/base/units.h"
#include "engine/pool/life.h"

#define MINUTE_NS (60 * NS_PER_SEC)

void pool_settings_default(struct ashlar_pool_settings *s)
{
	*s = (struct ashlar_pool_settings){
		.rebuild_delay_ns = 5 * MINUTE_NS,
		.pace_floor_bps = 10 * MIB,
		.hedge_ns = 100 * NS_PER_MS,
		.timeout_ns = 30 * NS_PER_SEC,
	};
}

int pool_apply_settings(struct ashlar_pool *p, const void *payload, size_t len)
{
	const struct pool_rec_settings *rec = payload;

	if (len != sizeof(*rec))
		return -ERR_FORMAT;
	p->settings = (struct ashlar_pool_settings){
		.rebuild_delay_ns = le64_get(rec->rebuild_delay_ns),
		.pace_floor_bps = le64_get(rec->pace_floor_bps),
		.pace_ceiling_bps = le64_get(rec->pace_ceiling_bps),
		.hedge_ns = le64_get(rec->hedge_ns),
		.timeout_ns = le64_get(rec->timeout_ns),
	};
	return 0;
}

void pool_settings_store(const struct ashlar_pool *p, struct pool_owner_disk *o)
{
	o->rebuild_delay_ns = le64_make(p->settings.rebuild_delay_ns);
	o->pace_floor_bps = le64_make(p->settings.pace_floor_bps);
	o->pace_ceiling_bps = le64_make(p->settings.pace_ceiling_bps);
	o->hedge_ns = le64_make(p->settings.hedge_ns);
	o->timeout_ns = le64_make(p->settings.timeout_ns);
}

void pool_settings_load(struct ashlar_pool *p, const struct pool_owner_disk *o)
{
	struct ashlar_pool_settings s = {
		.rebuild_delay_ns = le64_get(o->rebuild_delay_ns),
		.pace_floor_bps = le64_get(o->pace_floor_bps),
		.pace_ceiling_bps = le64_get(o->pace_ceiling_bps),
		.hedge_ns = le64_get(o->hedge_ns),
		.timeout_ns = le64_get(o->timeout_ns),
	};

	if (s.rebuild_delay_ns | s.pace_floor_bps | s.pace_ceiling_bps | s.hedge_ns | s.timeout_ns)
		p->settings = s; /* else of a pool that knew none: defaults */
}

static int publish_here(void *arg)
{
	struct ashlar_pool *p = arg;

	raid_set_limits(pool_here(p)->raid, p->settings.hedge_ns, p->settings.timeout_ns);
	return 0;
}

void pool_co_settings_publish(struct ashlar_pool *p)
{
	pool_co_each_reactor(p, publish_here, p);
}

/* ---- commands ---- */

void ashlar_co_pool_settings(struct ashlar_pool *p, struct ashlar_pool_settings *out)
{
	*out = p->settings;
}

static int settings_check(const struct ashlar_pool *p, const struct ashlar_pool_settings *s, struct err *e)
{
	const char *name = p->label->name;

	if (p->read_only)
		return err_set(e, -EROFS, "pool %s is open read-only", name);
	if (s->hedge_ns < NS_PER_MS || s->timeout_ns < 100 * NS_PER_MS)
		return err_set(e, -EINVAL, "pool %s: a disk must be given 1 ms before reads go elsewhere, and 100 ms before it is out", name);
	if (s->hedge_ns > s->timeout_ns)
		return err_set(e, -EINVAL, "pool %s: reads must go elsewhere before the disk is out, not after", name);
	if (s->timeout_ns > 60 * MINUTE_NS)
		return err_set(e, -EINVAL, "pool %s: a disk that has not answered for an hour is gone: choose a shorter time", name);
	if (s->pace_ceiling_bps && s->pace_ceiling_bps < s->pace_floor_bps)
		return err_set(e, -EINVAL, "pool %s: background work cannot be allowed less at most than it gets at least", name);
	if (s->pace_ceiling_bps && s->pace_ceiling_bps < MIB)
		return err_set(e, -EINVAL, "pool %s: background work needs at least 1 MiB a second", name);
	return 0;
}

int ashlar_co_pool_set(struct ashlar_pool *p, const struct ashlar_pool_settings *s, struct err *e)
{
	struct pool_rec_settings rec = {
		.rebuild_delay_ns = le64_make(s->rebuild_delay_ns),
		.pace_floor_bps = le64_make(s->pace_floor_bps),
		.pace_ceiling_bps = le64_make(s->pace_ceiling_bps),
		.hedge_ns = le64_make(s->hedge_ns),
		.timeout_ns = le64_make(s->timeout_ns),
	};
	uint64_t seq;
	int r = settings_check(p, s, e);

	if (r < 0)
		return r;
	r = meta_co_admit(p->meta, sizeof(rec) + 64, false);
	if (r == 0) {
		seq = meta_record(p->meta, POOL_REC_SETTINGS, &rec, sizeof(rec));
		r = meta_co_commit(p->meta, seq);
		if (r == 0)
			r = meta_co_wait_applied(p->meta, seq);
	}
	if (r < 0)
		return err_set(e, r, "pool %s: its settings could not be written: %s", p->label->name, err_text(r));
	pool_co_settings_publish(p);
	pool_life_kick(p);
	return 0;
}
