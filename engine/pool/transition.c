/*
 * transition.c: a group's way from one descriptor to another, and its time as a homed one.
 *
 * While a column of a mirrored data group is filled (a target, or a disk that has come back), the group is *homed*: one
 * instance does all its requests, so that its range locks keep the copying and the writers apart. Parity groups always are;
 * metadata and log groups need not be, every byte of them has one reactor that writes it.
 *
 * Order. Into it: first the others, which forward from then on, then the home. Out of it: first the home, then the others; those
 * forward until it is their turn, and the home takes forwarded requests at any time. (A parity group's target becomes a column
 * at the home last: until then the home writes to both places, so whoever reads the new one reads right. One that takes another shape has
 * nobody but its home who reads, so the home comes first: what it holds until then may have been forwarded.)
 *
 * What is in flight on an instance when it changes is waited for, but not for ever: a request on a disk that does not answer
 * keeps a whole group waiting, and one of a metadata group may itself be waiting for us to read metadata. So after a moment
 * the instance goes on as it was, and we try again later.
 *
 * Leases. An instance that has changed has none of the group: it says so to home in order with what it asks before and after
 * (lease_return), and asks again. Dirty bits stay.
 *
 * Regions that an instance wants synced (a write failed there, and no disk could be put out) travel with the change, since
 * requests come to another instance from now on.
 */
#include <string.h>

#include "engine/pool/life.h"

#define TRY_NS (200 * NS_PER_MS)
#define PAUSE_NS (500 * NS_PER_MS)

void pool_group_info(const struct ashlar_pool *p, const struct pgroup *g, struct raid_group_info *out)
{
	bool data = g->kind == THIN_GROUP_DATA;

	memset(out, 0, sizeof(*out));
	out->desc = g->desc;
	out->unsync = g->unsync;
	out->missed = pool_members_are_online(p, &g->desc) ? 0 : data ? g->dirty : ~0ULL;
	out->lease = data ? 0 : ~0ULL; /* checksums tell good from bad there, copy by copy */
	out->homed = g->homed;
	out->checksummed = g->kind == THIN_GROUP_META || g->kind == THIN_GROUP_LOG;
	out->shaping = g->shaping;
	out->has_target = g->has_target;
	out->target_col = g->target_col;
	out->target = g->target;
}

struct change {
	struct ashlar_pool *p;
	struct pgroup *g;
	struct raid_group_info info;
	uint64_t unsync; /* of the instances that have changed */
};

static int change_here(void *arg)
{
	struct change *c = arg;
	struct pool_reactor *pr = pool_here(c->p);
	struct raid_group_info info = c->info;
	int r;

	info.unsync |= c->unsync;
	r = raid_co_group_replace_until(pr->raid, &info, reactor_now_ns() + TRY_NS);
	if (r < 0)
		return r;
	c->unsync |= raid_group_unsync(pr->raid, info.desc.group);
	pool_raid_hooks.lease_return(pr, info.desc.group, ~0ULL);
	return 0;
}

/* Coroutine. */
static void change_co_at(struct change *c, unsigned reactor)
{
	while (reactor_co_call(c->p->w->reactors[reactor], change_here, c) < 0)
		co_sleep_ns(PAUSE_NS);
}

static void change_co_others(struct change *c, unsigned home)
{
	unsigned i;

	for (i = 0; i < c->p->n_reactors; i++)
		if (i != home)
			change_co_at(c, i);
}

static struct change *change_begin(struct ashlar_pool *p, struct pgroup *g)
{
	struct change *c = xcalloc(1, sizeof(*c));

	CHECK(g->moving);
	c->p = p;
	c->g = g;
	pool_group_info(p, g, &c->info);
	return c;
}

static void change_end(struct change *c)
{
	c->g->unsync |= c->unsync;
	xfree(c);
}

void pool_co_group_publish(struct ashlar_pool *p, struct pgroup *g)
{
	unsigned home = raid_home(p->reactors[0].raid, g->desc.group);
	struct change *c = change_begin(p, g);

	if (g->homed || g->has_target || pool_layout_is_parity(g->desc.layout)) {
		change_co_others(c, home);
		change_co_at(c, home);
	} else {
		change_co_at(c, home);
		change_co_others(c, home);
	}
	change_end(c);
}

void pool_co_group_publish_shape(struct ashlar_pool *p, struct pgroup *g, void (*co_thaw)(void *arg), void *arg)
{
	unsigned home = raid_home(p->reactors[0].raid, g->desc.group);
	struct change *c = change_begin(p, g);

	change_co_at(c, home);
	co_thaw(arg);
	change_co_others(c, home);
	change_end(c);
}

int pool_co_group_claim(struct ashlar_pool *p, uint64_t group, struct pgroup **out)
{
	struct pgroup *g;
	int r;

	for (;;) {
		r = p->stopping ? -ECANCELED : pool_co_pgroup_get(p, group, &g);
		if (r == 0 && g->leaving)
			r = -ENOENT;
		if (r < 0)
			return r;
		if (!g->moving)
			break;
		co_queue_wait(&p->life->claims);
	}
	g->moving = true;
	*out = g;
	return 0;
}

void pool_group_unclaim(struct ashlar_pool *p, struct pgroup *g)
{
	CHECK(g->moving && !g->has_target && !g->homed);
	g->moving = false;
	co_queue_wake_all(&p->life->claims);
}

void pool_co_transition_begin(struct ashlar_pool *p, struct pgroup *g, const struct raid_col *target, unsigned col)
{
	g->homed = g->kind == THIN_GROUP_DATA;
	g->has_target = target != NULL;
	if (target) {
		g->target = *target;
		g->target_col = (uint8_t)col;
	}
	pool_co_group_publish(p, g);
}

void pool_co_transition_end(struct ashlar_pool *p, struct pgroup *g)
{
	g->homed = g->has_target = false;
	pool_co_group_publish(p, g);
}
