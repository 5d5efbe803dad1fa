/*
 * watch.c: looks after disks that nobody may be using right now: have they vanished, are they still ours, are they back?
 *
 * Every two seconds, each disk that is there: its file deleted, its size less than the label says; less often its label (ours.c).
 * One disk that is away is looked for where it was last seen; one that is out because of errors, or was found to be somebody
 * else's, is not: somebody must say so (`disk online`).
 */
#include <stdio.h>
#include <string.h>

#include "engine/base/units.h"
#include "engine/io/buf.h"
#include "engine/pool/attach.h"
#include "engine/pool/life.h"

#define WATCH_NS (2 * NS_PER_SEC)
#define LABEL_EVERY 5 /* rounds */
#define PROBE_EVERY 5
#define REPORT_NS (10 * NS_PER_SEC)
#define SPACE_EVERY 5
#define SPACE_NS (10 * NS_PER_SEC)
#define LOW_AGAIN 2 /* percent */

static void dead_co_close(struct ashlar_pool *p, unsigned i)
{
	struct pdisk *d = &p->disks[i];

	if (!d->dead || !pool_co_disk_is_idle(p, i) || !d->dead)
		return;
	disk_close(d->dead);
	d->dead = NULL;
}

/* ---- slow ones ---- */

/* Reads go around a slow disk, so there may be none that could show that it is quick again. */
struct slow_probe {
	struct ashlar_pool *p;
	unsigned disk;
};

static int slow_probe_here(void *arg)
{
	const struct slow_probe *s = arg;
	void *page = buf_alloc(LABEL_READ_BYTES);
	int r = raid_co_disk_read(pool_here(s->p)->raid, s->disk, 0, page, LABEL_READ_BYTES);

	buf_free(page, LABEL_READ_BYTES);
	return r;
}

static void slow_probe_co_main(void *arg)
{
	struct slow_probe *s = arg;
	struct ashlar_pool *p = s->p;
	struct pdisk *d = &p->disks[s->disk];
	unsigned i;

	for (i = 0; i < p->n_reactors; i++)
		if (d->slow_reactors >> i & 1 && !p->stopping && reactor_co_call(p->w->reactors[i], slow_probe_here, s) < 0)
			break; /* the RAID layer knows what to make of it */
	d->is_probed = false;
	xfree(s);
	pool_life_leave(p);
}

static void slow_probe(struct ashlar_pool *p, unsigned i)
{
	struct pdisk *d = &p->disks[i];
	struct slow_probe *s;

	if (!d->slow_reactors || !d->disk || d->is_probed || (d->state != PDISK_ONLINE && d->state != PDISK_STALE))
		return;
	d->is_probed = true;
	s = xcalloc(1, sizeof(*s));
	*s = (struct slow_probe){ p, i };
	pool_life_spawn(p, slow_probe_co_main, s, "slow disk");
}

/* ---- rounds ---- */

static void repairs_report(struct ashlar_pool *p, unsigned i)
{
	struct pdisk *d = &p->disks[i];
	uint64_t good = d->n_repaired, bad = d->n_unrepaired, now = reactor_now_ns();

	if (good + bad == d->n_reported || now - d->reported_ns < REPORT_NS)
		return;
	pool_event(p, ASHLAR_WARNING, "read.repaired", (int)i, NULL, "disk %s: %llu reads failed and were answered from other disks; the "
		   "places were rewritten, but for %llu", pool_disk_path(p, i), (unsigned long long)(good + bad - d->n_reported),
		   (unsigned long long)(bad - d->n_reported_bad));
	d->n_reported = good + bad;
	d->n_reported_bad = bad;
	d->reported_ns = now;
}

const uint8_t ashlar_low_levels[ASHLAR_LOW_LEVELS] = { 20, 10, 5 };

/* A level that is reached is reached until a little more than that is free again. */
static void low_report(struct ashlar_pool *p)
{
	struct pool_life *life = p->life;
	uint64_t free_bytes = life->free_bytes, percent = life->total_bytes / 100;
	unsigned was = life->low;

	while (life->low < ASHLAR_LOW_LEVELS && free_bytes <= percent * ashlar_low_levels[life->low])
		life->low++;
	while (life->low && free_bytes > percent * (ashlar_low_levels[life->low - 1] + LOW_AGAIN))
		life->low--;
	if (life->low > was)
		pool_event(p, ASHLAR_WARNING, "pool.low", -1, NULL, "%llu%% of the space is left (%llu MiB): delete or discard something, or add "
			   "disks", (unsigned long long)(free_bytes / MAX(percent, 1)), (unsigned long long)(free_bytes / MIB));
}

static void space_co_look(struct ashlar_pool *p, bool thorough)
{
	struct pool_life *life = p->life;
	uint64_t cluster = p->label->cluster_bytes, clusters;
	struct thin_space s;

	thin_space_get(p->thin, &s);
	clusters = s.clusters_used + s.clusters_free;
	if (!life->total_bytes || clusters != life->of_clusters || (thorough && life->n_kicks != life->of_kicks)) {
		life->of_clusters = clusters;
		life->of_kicks = life->n_kicks;
		life->room_bytes = pool_free_bytes(p) - s.clusters_free * cluster;
	}
	life->free_bytes = life->room_bytes + s.clusters_free * cluster;
	life->total_bytes = life->room_bytes + clusters * cluster;
	low_report(p);
	pool_co_attach_tell_space(p, life->free_bytes, life->total_bytes);
}

static void space_report(struct ashlar_pool *p)
{
	struct pool_life *life = p->life;

	if (!life->full || reactor_now_ns() - life->full_ns < SPACE_NS || !pool_free_bytes(p))
		return;
	life->full = false;
	pool_event(p, ASHLAR_INFO, "pool.space", -1, NULL, "there is space again");
	pool_life_kick(p);
}

void pool_watch_co_run(void *arg)
{
	struct ashlar_pool *p = arg;
	uint64_t round, until;
	unsigned i;

	/* The label of the opening says what all disks had before. Once more, and they say that all have that one: a disk as it was
	 * when the pool was closed is known for old, even if this opening ends in a crash before anything else is told. */
	if (pool_co_publish_labels(p) < 0)
		pool_log(p, "labels could not be written once more after opening");
	for (round = 1; !p->stopping && !p->failed; round++) {
		until = reactor_now_ns() + (round == 1 ? 0 : WATCH_NS); /* what is there now is what we know disks by */
		while (!p->stopping && reactor_now_ns() < until)
			(void)!co_queue_wait_until(&p->life->kick, until);
		for (i = 0; i < p->n_disks && !p->stopping && !p->failed; i++) {
			dead_co_close(p, i);
			pool_co_disk_look(p, i, round % LABEL_EVERY == 1);
			slow_probe(p, i);
			repairs_report(p, i);
			if (p->disks[i].state == PDISK_ABSENT && !p->disks[i].lost[0] && round % PROBE_EVERY == 0 && !p->stopping)
				pool_co_disk_probe(p, i);
		}
		space_report(p);
		if (!p->stopping && !p->failed)
			space_co_look(p, round % SPACE_EVERY == 1);
	}
	pool_life_leave(p);
}
