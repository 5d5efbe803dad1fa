/*
 * take_out.c: an empty disk is taken out of the pool.
 *
 * Nothing is placed on a leaving disk, so once it is empty it stays so. Then:
 *   1. A checkpoint. The journal's records before it may name the disk, those after it do not: nobody who replays needs to know it.
 *   2. A label in which its entry is free is written to all others.
 *      Crash: where the newest label that counts has it, it is out of the pool, else it is a member, empty, and still to be removed.
 *   3. Its own label areas are zeroed. Crash: its labels are older than the others', which do not know it; it is ignored.
 */
#include <string.h>

#include "engine/pool/leave.h"

#define IDLE_NS NS_PER_MS

/* Does anything in memory lie there, or may a crash bring it back? Does not suspend. */
static bool is_named(const struct ashlar_pool *p, unsigned disk)
{
	struct hash_node *n;
	unsigned i, c;
	size_t b;

	for (i = 0; i < p->label->n_meta; i++)
		for (c = 0; c < p->label->meta[i].n_cols; c++)
			if (p->label->meta[i].cols[c].disk == disk)
				return true;
	for (b = 0; b < p->pgroups.n_buckets; b++) {
		for (n = p->pgroups.buckets[b]; n; n = n->next) {
			const struct pgroup *g = container_of(n, struct pgroup, node);

			if (pool_desc_has_disk(&g->desc, disk) || (g->before && pool_desc_has_disk(g->before, disk)) ||
			    (g->has_target && g->target.disk == disk))
				return true;
		}
	}
	return false;
}

struct named {
	unsigned disk;
};

static int named_group(void *arg, const struct pool_group_disk *rec)
{
	const struct named *x = arg;
	unsigned i;

	for (i = 0; i < rec->n_cols; i++)
		if (le16_get(rec->cols[i].disk) == x->disk)
			return -EBUSY;
	return 0;
}

/* Coroutine. */
static int empty_co_check(struct ashlar_pool *p, unsigned disk)
{
	struct named x = { disk };
	bool empty;
	int r = pool_co_table_settle(p);

	if (r < 0)
		return r;
	co_mutex_lock(&p->alloc);
	empty = pool_space_is_empty(p, disk) && !is_named(p, disk);
	co_mutex_unlock(&p->alloc);
	return empty ? pool_co_each_group(p, named_group, &x) : -EBUSY;
}

static bool is_to_go(const struct ashlar_pool *p, unsigned disk)
{
	return p->label->disks[disk].state != LABEL_DISK_FREE && p->label->disks[disk].leaving & LABEL_LEAVE_REMOVE;
}

/* Coroutine, under p->labels. The handle is the caller's. */
static int entry_co_free(struct ashlar_pool *p, unsigned disk, struct disk **handle)
{
	struct pdisk *d = &p->disks[disk];
	unsigned i;

	pool_event(p, ASHLAR_INFO, "disk.removed", (int)disk, NULL, "disk %s is no disk of the pool any more", pool_disk_path(p, disk));
	*handle = d->disk;
	d->disk = p->as->disks[disk].disk = NULL;
	d->state = PDISK_FREE;
	d->leaving = d->rolled_back = d->at_once = false;
	d->extents = d->cursor = d->no_run = 0;
	d->reason[0] = d->lost[0] = d->refused[0] = 0;
	xfree(d->last_path);
	d->last_path = NULL;
	memset(&p->label->disks[disk], 0, sizeof(p->label->disks[0]));
	for (i = 0; i < p->n_disks; i++)
		if (p->label->disks[i].successor_plus_1 == disk + 1)
			p->label->disks[i].successor_plus_1 = 0;
	p->disk_gen++;
	p->change_gen++;
	pool_co_set_disk(p, disk);
	return pool_co_publish_locked(p);
}

/* Coroutine. Zeros its labels, when nothing else is with it any more; closes it, or leaves that to watch.c. */
static int handle_co_wipe(struct ashlar_pool *p, unsigned disk, struct disk *handle)
{
	uint64_t end = reactor_now_ns() + p->settings.timeout_ns;

	while (!pool_co_disk_is_idle(p, disk) && reactor_now_ns() < end && !p->stopping)
		co_sleep_ns(IDLE_NS);
	if (pool_co_disk_is_idle(p, disk))
		return pool_co_disk_wipe(p, disk, handle);
	p->disks[disk].dead = handle; /* it has no other: who has a disk has none that is dead */
	return -ETIMEDOUT;
}

/* Coroutine. One that is away may come back, as anybody's: if nothing is with the kernel, it is not ours any more at once. */
static void dead_co_close(struct ashlar_pool *p, unsigned disk)
{
	struct pdisk *d = &p->disks[disk];

	if (!d->dead || !pool_co_disk_is_idle(p, disk) || !d->dead)
		return;
	disk_close(d->dead);
	d->dead = NULL;
}

int pool_co_take_out(struct ashlar_pool *p, unsigned disk, bool *wiped)
{
	struct disk *handle = NULL;
	int r;

	*wiped = false;
	co_mutex_lock(&p->life->returning);
	r = is_to_go(p, disk) ? empty_co_check(p, disk) : -EBUSY;
	if (r == 0)
		r = meta_co_checkpoint(p->meta);
	if (r < 0)
		goto out;
	co_mutex_lock(&p->labels);
	r = entry_co_free(p, disk, &handle);
	co_mutex_unlock(&p->labels);
	if (handle)
		*wiped = handle_co_wipe(p, disk, handle) == 0;
	else
		dead_co_close(p, disk);
out:
	co_mutex_unlock(&p->life->returning);
	return r;
}
