/*
 * life.c: starting and stopping what looks after disks and data in the background. The parts are listed in life.h.
 */
#include <stdio.h>
#include <string.h>

#include "engine/pool/adopt.h"
#include "engine/pool/life.h"
#include "engine/pool/moved.h"

struct pool_life *pool_life_create(struct ashlar_pool *p)
{
	struct pool_life *life = xcalloc(1, sizeof(*life));

	life->p = p;
	list_init(&life->jobs);
	list_init(&life->own_ops);
	co_mutex_init(&life->returning);
	co_queue_init(&life->jobs_changed);
	co_queue_init(&life->kick);
	co_queue_init(&life->ended);
	co_queue_init(&life->claims);
	co_queue_init(&life->pace.waiters);
	return life;
}

void pool_life_free(struct pool_life *life)
{
	struct list *l;

	CHECK(!life->n_running && !life->n_job_waiters);
	while ((l = list_pop_front(&life->jobs)))
		xfree(container_of(l, struct pool_job, link));
	xfree(life);
}

void pool_life_kick(struct ashlar_pool *p)
{
	p->life->n_kicks++;
	co_queue_wake_all(&p->life->kick);
}

void pool_life_spawn(struct ashlar_pool *p, void (*fn)(void *arg), void *arg, const char *name)
{
	p->life->n_running++;
	co_spawn(CO_SERVICE, fn, arg, name);
}

void pool_life_leave(struct ashlar_pool *p)
{
	CHECK(p->life->n_running > 0);
	if (--p->life->n_running == 0)
		co_queue_wake_all(&p->life->ended);
}

void pool_life_start(struct ashlar_pool *p)
{
	pool_pace_start(p);
	pool_life_spawn(p, pool_resync_co_run, p, "resync");
	pool_life_spawn(p, pool_rebuild_co_run, p, "rebuild");
	pool_life_spawn(p, pool_relocate_co_run, p, "relocation");
	pool_life_spawn(p, pool_watch_co_run, p, "disk watch");
	pool_life_spawn(p, pool_policy_co_run, p, "snapshot policy");
	pool_life_spawn(p, pool_adopts_co_run, p, "adopted volumes");
	pool_life_spawn(p, pool_moved_co_run, p, "moved volumes");
	pool_life_spawn(p, pool_moves_co_run, p, "moves of families");
}

void pool_co_life_stop(struct ashlar_pool *p)
{
	struct pool_life *life = p->life;

	CHECK(p->stopping);
	pool_pace_stop(p);
	pool_life_kick(p);
	co_queue_wake_all(&life->claims);
	while (life->n_running)
		co_queue_wait(&life->ended);
	while (life->n_job_waiters) {
		co_queue_wake_all(&life->jobs_changed);
		co_yield();
	}
}

const char *pool_disk_path(const struct ashlar_pool *p, unsigned disk)
{
	return p->disks[disk].disk ? p->disks[disk].disk->path : p->label->disks[disk].path;
}

void pool_life_full(struct ashlar_pool *p)
{
	p->life->full_ns = reactor_now_ns();
	if (p->life->full || p->stopping)
		return;
	p->life->full = true;
	pool_event(p, ASHLAR_ERROR, "pool.full", -1, NULL, "there is no space left: writes that need some are held; delete or discard "
		   "something, or add disks");
}
