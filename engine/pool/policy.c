/*
 * policy.c: snapshots by a schedule: takes what is due, deletes what is beyond the number to be kept.
 *
 * Due: the newest snapshot that the volume's policy has made is as old as the policy's time, or there is none. So after a time when
 * the pool was closed one is taken, and not all that were missed. Age goes by the wall clock; one that is from the future (the
 * clock was set back) says nothing, and another is taken. To be deleted: all but the newest so many, unless somebody uses it.
 *
 * What it does is a command like any other, under a->admin. It never waits for that lock: who closes the pool has it, and waits for us.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "engine/base/units.h"
#include "engine/pool/life.h"
#include "engine/pool/volumes.h"

#define ROUND_NS (10 * NS_PER_SEC) /* at least so often: the wall clock may jump */
#define ADMIN_NS (100 * NS_PER_MS)
#define RETRY_MIN_NS (60 * NS_PER_SEC)
#define RETRY_MAX_NS (3600 * NS_PER_SEC)

/* A volume that has a policy. */
struct schedule {
	struct hash_node node; /* by the volume's id */
	bool seen;	       /* in this round */
	unsigned n, rank;      /* snapshots by the policy; so many of them have been looked at */
	uint64_t newest_wall_ns;
	uint64_t excess;       /* id of the oldest one to be deleted; 0: none */
	uint64_t retry_ns;     /* nothing is tried before: it has failed */
	uint64_t wait_ns;      /* how long that was */
};

struct policy_run {
	struct ashlar_pool *p;
	struct hash schedules;
	uint64_t sleep_ns; /* until something is due */
	struct schedule *todo;
};

/* ---- what is to be done ---- */

static struct schedule *schedule_find(struct policy_run *run, uint64_t volume)
{
	struct hash_node *n = hash_find(&run->schedules, volume);

	return n ? container_of(n, struct schedule, node) : NULL;
}

static bool schedule_begin(struct hash_node *n, void *arg)
{
	struct schedule *s = container_of(n, struct schedule, node);

	s->seen = false;
	s->n = s->rank = 0;
	s->excess = s->newest_wall_ns = 0;
	return true;
}

static bool is_by_policy(const struct thin_vol *v)
{
	return v->kind == THIN_KIND_SNAPSHOT && v->state == THIN_VOLUME_LIVE && v->made_by_policy;
}

/* Forgets volumes that have none any more, and finds the first with something to do. */
static bool schedule_judge(struct hash_node *n, void *arg)
{
	struct schedule *s = container_of(n, struct schedule, node);
	struct policy_run *run = arg;
	struct world *w = run->p->w;
	uint64_t wall = w->ops->wall_ns(w), now = reactor_now_ns(), every, age;

	if (!s->seen) {
		hash_del(&run->schedules, n);
		xfree(s);
		return true;
	}
	if (run->todo)
		return true;
	if (now < s->retry_ns) {
		run->sleep_ns = MIN(run->sleep_ns, s->retry_ns - now);
		return true;
	}
	every = thin_vol_by_id(run->p->thin, n->key)->policy_every_ns;
	age = s->n && s->newest_wall_ns <= wall ? wall - s->newest_wall_ns : UINT64_MAX;
	if (s->excess || age >= every)
		run->todo = s;
	else
		run->sleep_ns = MIN(run->sleep_ns, every - age);
	return true;
}

/* Does not suspend. Volumes and snapshots are in order of their age. */
static void round_look(struct policy_run *run)
{
	struct list *vols = thin_vols(run->p->thin);
	struct schedule *s;
	struct thin_vol *v;

	run->todo = NULL;
	run->sleep_ns = ROUND_NS;
	hash_each(&run->schedules, schedule_begin, NULL);
	list_for_each (v, vols, link) {
		if (v->state != THIN_VOLUME_LIVE || v->kind != THIN_KIND_VOLUME || !v->policy_every_ns)
			continue;
		s = schedule_find(run, v->id);
		if (!s) {
			s = xcalloc(1, sizeof(*s));
			hash_add(&run->schedules, &s->node, v->id);
		}
		s->seen = true;
	}
	list_for_each (v, vols, link) {
		s = is_by_policy(v) ? schedule_find(run, v->parent) : NULL;
		if (!s)
			continue;
		s->n++;
		s->newest_wall_ns = v->created_wall_ns;
	}
	list_for_each (v, vols, link) {
		s = is_by_policy(v) ? schedule_find(run, v->parent) : NULL;
		if (s && s->seen && s->n - s->rank++ > thin_vol_by_id(run->p->thin, v->parent)->policy_keep && !v->n_attached && !s->excess)
			s->excess = v->id;
	}
	hash_each(&run->schedules, schedule_judge, run);
}

/* ---- doing it ---- */

/* Coroutine. False: the pool is closing. */
static bool admin_co_take(struct ashlar_pool *p)
{
	while (p->a->admin.owner && !p->stopping && !p->failed)
		(void)!co_queue_wait_until(&p->life->kick, reactor_now_ns() + ADMIN_NS);
	if (p->stopping || p->failed)
		return false;
	co_mutex_lock(&p->a->admin); /* it is free: does not suspend */
	return true;
}

static int snapshot_co_take(struct ashlar_pool *p, struct thin_vol *v, struct err *e)
{
	time_t t = (time_t)(p->w->ops->wall_ns(p->w) / NS_PER_SEC);
	char snap[32];
	struct tm tm;
	int r;

	if (!gmtime_r(&t, &tm) || !strftime(snap, sizeof(snap), "auto-%Y%m%d-%H%M%S", &tm))
		return err_set(e, -ERANGE, "the clock is wrong");
	r = pool_co_snapshot_by_policy(p, v, snap, e);
	if (r == 0)
		pool_event(p, ASHLAR_INFO, "snapshot.taken", -1, v->name, "snapshot %s/%s@%s taken", p->label->name, v->name, snap);
	return r;
}

static int snapshot_co_expire(struct ashlar_pool *p, struct thin_vol *snap, const char *volume, struct err *e)
{
	char name[POOL_POINT_NAME];
	int r;

	pool_point_name(p, snap, name);
	r = pool_co_vols_delete(p, &snap, 1, false, false, NULL, e);
	if (r == 0)
		pool_event(p, ASHLAR_INFO, "snapshot.expired", -1, volume, "snapshot %s/%s deleted: there are enough newer ones",
			   p->label->name, name);
	return r;
}

/* Coroutine under a->admin. The world may have changed since run->todo was found. */
static void todo_co_do(struct policy_run *run)
{
	struct ashlar_pool *p = run->p;
	struct err e = { 0 };
	struct schedule *s;
	struct thin_vol *v;
	int r;

	round_look(run);
	s = run->todo;
	if (!s)
		return;
	v = thin_vol_by_id(p->thin, s->node.key);
	r = s->excess ? snapshot_co_expire(p, thin_vol_by_id(p->thin, s->excess), v->name, &e) : snapshot_co_take(p, v, &e);
	if (r == 0) {
		s->retry_ns = s->wait_ns = 0;
		return;
	}
	if (p->failed)
		return;
	s->wait_ns = s->wait_ns ? MIN(2 * s->wait_ns, RETRY_MAX_NS) : RETRY_MIN_NS;
	s->retry_ns = reactor_now_ns() + s->wait_ns;
	pool_event(p, ASHLAR_WARNING, "snapshot.failed", -1, v->name, "volume %s/%s: by its policy %s: %s", p->label->name, v->name,
		   s->excess ? "a snapshot was to be deleted" : "a snapshot was to be taken", e.text);
}

static bool schedule_free(struct hash_node *n, void *arg)
{
	xfree(container_of(n, struct schedule, node));
	return true;
}

void pool_policy_co_run(void *arg)
{
	struct policy_run run = { .p = arg };
	struct ashlar_pool *p = run.p;

	hash_init(&run.schedules);
	while (!p->stopping && !p->failed) {
		round_look(&run);
		if (!run.todo) {
			(void)!co_queue_wait_until(&p->life->kick, reactor_now_ns() + run.sleep_ns);
		} else if (admin_co_take(p)) {
			todo_co_do(&run);
			co_mutex_unlock(&p->a->admin);
		}
	}
	hash_each(&run.schedules, schedule_free, NULL);
	hash_fini(&run.schedules);
	pool_life_leave(p);
}
