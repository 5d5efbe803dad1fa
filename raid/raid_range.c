/*
 * Work on ranges: resync, compare, rebuild, scrub. Which instance does it, and which level.
 *
 * Whoever does it must hold the locks that writers of the group take. For a homed group these are the home's, so the call goes
 * there; else it runs where it was made.
 */
#include "raid/raid_impl.h"

enum range_what { RANGE_RESYNC, RANGE_COMPARE, RANGE_REBUILD, RANGE_SCRUB, RANGE_SCRUB_FIX };

struct range_call {
	struct raid *r;
	enum range_what what;
	uint64_t group, off_bytes, len_bytes;
	uint64_t *out;
	struct raid_scrub *scrub;
	bool force;
};

#define RANGE_AWAY 2 /* never a result of a level */

static int range_co_do(const struct range_call *c, struct raid_group *g)
{
	const struct raid_level *l = g->level;

	if (c->len_bytes > g->desc.size_bytes || c->off_bytes > g->desc.size_bytes - c->len_bytes)
		return -ERANGE;
	if (!c->len_bytes)
		return 0;
	switch (c->what) {
	case RANGE_RESYNC: return l->co_resync(g, c->off_bytes, c->len_bytes, c->out);
	case RANGE_COMPARE: return l->co_compare(g, c->off_bytes, c->len_bytes, c->out);
	case RANGE_REBUILD: return g->target_col < 0 ? -EINVAL : l->co_rebuild(g, c->off_bytes, c->len_bytes, c->out);
	case RANGE_SCRUB: return l->co_scrub(g, c->off_bytes, c->len_bytes, c->scrub);
	case RANGE_SCRUB_FIX: return l->co_scrub_fix(g, c->off_bytes, c->len_bytes, c->force);
	}
	return -EINVAL;
}

/* Coroutine. RANGE_AWAY: the group is homed elsewhere. */
static int range_co_here(const struct range_call *c)
{
	struct raid_group *g;
	uint8_t epoch;
	int res = raid_group_co_hold(c->r, c->group, &g, &epoch);

	if (res)
		return res;
	res = g->away ? RANGE_AWAY : range_co_do(c, g);
	raid_group_release(g, epoch);
	return res;
}

static int range_there(void *arg)
{
	return range_co_here(arg);
}

static int range_co(struct range_call *c)
{
	int res = range_co_here(c);

	while (res == RANGE_AWAY) { /* again if it moves between the two */
		c->r = c->r->peers[raid_home(c->r, c->group)];
		res = reactor_co_call(c->r->reactor, range_there, c);
	}
	return res;
}

int raid_co_resync_range(struct raid *r, uint64_t group, uint64_t off_bytes, uint64_t len_bytes, uint64_t *copied)
{
	uint64_t ignored;
	struct range_call c = { .r = r, .what = RANGE_RESYNC, .group = group, .off_bytes = off_bytes, .len_bytes = len_bytes,
				.out = copied ? copied : &ignored };

	*c.out = 0;
	return range_co(&c);
}

int raid_co_rebuild_range(struct raid *r, uint64_t group, uint64_t off_bytes, uint64_t len_bytes, uint64_t *copied)
{
	uint64_t ignored;
	struct range_call c = { .r = r, .what = RANGE_REBUILD, .group = group, .off_bytes = off_bytes, .len_bytes = len_bytes,
				.out = copied ? copied : &ignored };

	*c.out = 0;
	return range_co(&c);
}

int raid_co_compare_range(struct raid *r, uint64_t group, uint64_t off_bytes, uint64_t len_bytes, uint64_t *diff_off)
{
	uint64_t ignored;
	struct range_call c = { .r = r, .what = RANGE_COMPARE, .group = group, .off_bytes = off_bytes, .len_bytes = len_bytes,
				.out = diff_off ? diff_off : &ignored };

	return range_co(&c);
}

int raid_co_scrub_range(struct raid *r, uint64_t group, uint64_t off_bytes, uint64_t len_bytes, struct raid_scrub *s)
{
	struct range_call c = { .r = r, .what = RANGE_SCRUB, .group = group, .off_bytes = off_bytes, .len_bytes = len_bytes,
				.scrub = s };

	s->unreadable_bytes = s->repaired_bytes = 0;
	return range_co(&c);
}

int raid_co_scrub_fix(struct raid *r, uint64_t group, uint64_t off_bytes, uint64_t len_bytes, bool force)
{
	struct range_call c = { .r = r, .what = RANGE_SCRUB_FIX, .group = group, .off_bytes = off_bytes, .len_bytes = len_bytes,
				.force = force };

	return range_co(&c);
}
