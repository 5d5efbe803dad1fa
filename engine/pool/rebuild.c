/*
 * rebuild.c: what lost disks hold is rebuilt on the others.
 *
 * A disk is lost when it is out or away, and has been for long enough (settings.rebuild_delay_ns), or at once if it answered
 * with errors or somebody said so. Every redundant group that has a column there gets that column moved (move.c), those that
 * can lose least first, and of these metadata and logs first; a few groups at a time.
 *
 * Progress is per group and needs no record: what has been moved is not on the lost disk any more. After a crash the walk over
 * the group table finds what is left. If the disk comes back in the middle, the groups that are still on it are resynced
 * there instead. If another disk goes, the order is made anew.
 *
 * A group some block of which no column can give stays where it is: the lost disk may come back, and it may have it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/pool/life.h"

#define MOVERS 3
#define AGAIN_NS (60 * NS_PER_SEC) /* look again, though nobody has said that anything has changed */
#define GIVE_UP_NS (3600 * NS_PER_SEC) /* the same, when all that is left cannot be rebuilt */

struct todo {
	uint64_t group, bytes;
	uint32_t rank; /* small: first */
};

struct rebuild {
	struct ashlar_pool *p;
	struct pool_job *job; /* NULL: nothing to do */
	struct todo *v;
	size_t n, cap, next;
	uint64_t disk_gen; /* as of the plan */
	unsigned n_movers;
	struct co_queue movers_ended;
	unsigned n_moved, n_full, n_bad, n_retry; /* groups of this round */
	uint64_t bad_group;
	int bad_error;
	uint64_t orphan; /* a metadata group that a crash left with a record and without a place in the label; UINT64_MAX: none */
	uint64_t gave_up_ns, gave_up_gen; /* when only groups were left that cannot be rebuilt; 0: not so */
};

/* ---- which disks ---- */

/* UINT64_MAX: never, as things are. */
static uint64_t disk_due_ns(const struct ashlar_pool *p, unsigned i)
{
	const struct pdisk *d = &p->disks[i];
	uint64_t delay = d->at_once || d->leaving ? 0 : p->settings.rebuild_delay_ns;

	if (d->state != PDISK_ABSENT && d->state != PDISK_FAILED)
		return UINT64_MAX;
	return delay > UINT64_MAX - d->since_ns ? UINT64_MAX : d->since_ns + delay;
}

static bool disk_is_lost(const struct ashlar_pool *p, unsigned i)
{
	return disk_due_ns(p, i) <= reactor_now_ns();
}

/* When the next disk counts as lost that does not yet. */
static uint64_t next_due_ns(const struct ashlar_pool *p)
{
	uint64_t at = UINT64_MAX;
	unsigned i;

	for (i = 0; i < p->n_disks; i++)
		if (!disk_is_lost(p, i))
			at = MIN(at, disk_due_ns(p, i));
	return at;
}

static unsigned lost_names(const struct ashlar_pool *p, char *text, size_t len)
{
	size_t at = 0;
	unsigned i, n = 0;

	text[0] = 0;
	for (i = 0; i < p->n_disks; i++) {
		if (!disk_is_lost(p, i))
			continue;
		if (at + 1 < len)
			at += (size_t)snprintf(text + at, len - at, "%s%s", n ? ", " : "disk ", pool_disk_path(p, i));
		n++;
	}
	return n;
}

/* ---- the plan ---- */

static int lost_col(const struct ashlar_pool *p, const struct raid_desc *d)
{
	unsigned i;

	for (i = 0; i < d->n_cols; i++)
		if (disk_is_lost(p, d->cols[i].disk))
			return (int)i;
	return -1;
}

/* A lost disk is to be removed, and no other could take its column: the group gets fewer columns. */
static bool is_reshaped(const struct ashlar_pool *p, unsigned kind, const struct raid_desc *d)
{
	int col = lost_col(p, d);

	return col >= 0 && p->disks[d->cols[col].disk].leaving && pool_group_needs_shape(p, kind, d);
}

static int plan_add(struct rebuild *rb, const struct raid_desc *d, unsigned kind)
{
	struct ashlar_pool *p = rb->p;
	uint64_t bytes;
	int left, r;

	if (!raid_profile_tolerates((struct raid_profile){ d->layout, d->copies }) || lost_col(p, d) < 0)
		return 0;
	if (kind == THIN_GROUP_META && pool_label_meta_find(p->label, d->group) < 0) {
		rb->orphan = d->group;
		return 0;
	}
	left = raid_desc_redundancy(p->reactors[0].raid, d);
	if (left < 0)
		return 0; /* there is nothing to rebuild it from */
	if (rb->n == rb->cap) {
		rb->cap = MAX(2 * rb->cap, 64);
		rb->v = xrealloc(rb->v, rb->cap * sizeof(*rb->v));
	}
	r = is_reshaped(p, kind, d) ? pool_co_group_bytes(p, d, &bytes) : pool_co_column_bytes(p, kind, d, &bytes);
	rb->v[rb->n++] = (struct todo){
		.group = d->group,
		.bytes = bytes,
		.rank = (uint32_t)left * 2 + (kind == THIN_GROUP_DATA),
	};
	return r;
}

static int plan_group(void *arg, const struct pool_group_disk *rec)
{
	struct rebuild *rb = arg;
	struct raid_desc *d = xmalloc(sizeof(*d));
	int r = pool_group_decode(rb->p, rec, d, NULL);

	if (r == 0)
		r = plan_add(rb, d, rec->kind);
	xfree(d);
	return r;
}

static int todo_order(const void *a, const void *b)
{
	const struct todo *x = a, *y = b;

	if (x->rank != y->rank)
		return x->rank < y->rank ? -1 : 1;
	return x->group < y->group ? -1 : x->group > y->group;
}

static int plan_co_make(struct rebuild *rb)
{
	uint64_t total = 0;
	size_t i;
	int r;

	rb->n = rb->next = 0;
	rb->n_moved = rb->n_full = rb->n_bad = rb->n_retry = 0;
	rb->disk_gen = rb->p->disk_gen;
	rb->orphan = UINT64_MAX;
	r = pool_co_each_group(rb->p, plan_group, rb);
	if (r == 0 && rb->orphan != UINT64_MAX)
		r = pool_co_meta_orphan_destroy(rb->p, rb->orphan);
	if (r < 0 || !rb->n)
		return r;
	qsort(rb->v, rb->n, sizeof(*rb->v), todo_order);
	for (i = 0; i < rb->n; i++)
		total += rb->v[i].bytes;
	if (rb->job)
		rb->job->info.total_bytes = rb->job->info.done_bytes + total;
	return 0;
}

/* ---- moving ---- */

/* Coroutine. Every column that is on a lost disk. */
static int group_co_rebuild(struct rebuild *rb, const struct todo *t)
{
	struct ashlar_pool *p = rb->p;
	struct pgroup *g;
	int col, r = pool_co_group_claim(p, t->group, &g);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	while (r == 0 && (col = lost_col(p, &g->desc)) >= 0)
		r = is_reshaped(p, g->kind, &g->desc) ? pool_co_group_reshape(p, g, rb->job) :
							pool_co_column_move(p, g, (unsigned)col, rb->job);
	pool_group_unclaim(p, g);
	return r;
}

static void mover_co_run(void *arg)
{
	struct rebuild *rb = arg;
	struct ashlar_pool *p = rb->p;

	while (rb->next < rb->n && rb->disk_gen == p->disk_gen && !p->stopping && !p->failed) {
		const struct todo t = rb->v[rb->next++];
		uint64_t gen = p->disk_gen;
		int r = group_co_rebuild(rb, &t);

		while (r == -ERR_POOL_FULL && pool_co_group_reclaim(p) == 0)
			r = group_co_rebuild(rb, &t);
		if (r == 0) {
			rb->n_moved++;
		} else if (r == -ERR_POOL_FULL) {
			rb->n_full++;
		} else if (gen != p->disk_gen || r == -ECANCELED || r == -EAGAIN) {
			rb->n_retry++; /* the world has changed in the middle */
		} else {
			rb->n_bad++;
			rb->bad_group = t.group;
			rb->bad_error = r;
		}
	}
	rb->n_movers--;
	co_queue_wake_all(&rb->movers_ended);
}

static void movers_co_run(struct rebuild *rb)
{
	unsigned i, n = (unsigned)MIN(MOVERS, rb->n);

	for (i = 0; i < n; i++) {
		rb->n_movers++;
		co_spawn(CO_SERVICE, mover_co_run, rb, "rebuild");
	}
	while (rb->n_movers)
		co_queue_wait(&rb->movers_ended);
}

/* ---- the job ---- */

static void job_begin(struct rebuild *rb)
{
	char what[sizeof(rb->job->info.what)];
	uint64_t total = 0;
	size_t i;

	lost_names(rb->p, what, sizeof(what));
	if (rb->job) {
		memcpy(rb->job->info.what, what, sizeof(what));
		return;
	}
	rb->job = pool_job_start(rb->p, ASHLAR_JOB_REBUILD, "%s", what);
	for (i = 0; i < rb->n; i++)
		total += rb->v[i].bytes;
	rb->job->info.total_bytes = total;
}

static unsigned disks_with_lost(const struct ashlar_pool *p)
{
	char none[1];

	return lost_names(p, none, sizeof(none));
}

/* There is nothing left that could be done. */
static void job_finish(struct rebuild *rb)
{
	struct ashlar_pool *p = rb->p;
	bool lost = disks_with_lost(p) != 0;

	if (!rb->job)
		return;
	if (p->stopping || p->failed)
		pool_job_end(rb->job, ASHLAR_JOB_STOPPED, "the pool was closed; it goes on when the pool is open again");
	else if (rb->n_bad)
		pool_job_end(rb->job, ASHLAR_JOB_FAILED, "%u groups could not be rebuilt: of group %llu some blocks cannot be read from any "
			     "disk (%s); if a lost disk can be read, bring it back", rb->n_bad, (unsigned long long)rb->bad_group,
			     err_text(rb->bad_error));
	else if (lost)
		pool_job_end(rb->job, ASHLAR_JOB_DONE, "all that can be has its full redundancy again, on the disks that are left");
	else
		pool_job_end(rb->job, ASHLAR_JOB_DONE, "the disk is back: what is still on it is resynced there");
	rb->job = NULL;
}

/* Coroutine. Until a disk comes or goes, space is freed, or it is time. */
static void rebuild_co_wait(struct ashlar_pool *p, uint64_t until)
{
	if (!p->stopping)
		(void)!co_queue_wait_until(&p->life->kick, until);
}

static void rebuild_rests(struct ashlar_pool *p)
{
	if (!p->life->rebuilds)
		return;
	p->life->rebuilds = false;
	pool_life_kick(p);
}

/* A disk that would have room, if it were not about to leave; NULL. */
static const char *leaving_path(const struct ashlar_pool *p)
{
	unsigned i;

	for (i = 0; i < p->n_disks; i++)
		if (p->disks[i].state == PDISK_ONLINE && p->disks[i].leaving)
			return pool_disk_path(p, i);
	return NULL;
}

static void job_waits_for_space(struct rebuild *rb)
{
	const char *leaving = leaving_path(rb->p);

	pool_job_waits(rb->job, "waits for space on other disks: %u groups have no disk with room that is not theirs already; add a disk, or give the lost one up with `disk remove`%s%.60s%s",
		       rb->n_full, leaving ? ", or keep disk " : ", or delete something", leaving ? leaving : "", leaving ?
		       ", which is leaving: `disk online`" : "");
}

/* Coroutine. One round; returns when to look again. */
static uint64_t rebuild_co_round(struct rebuild *rb)
{
	struct ashlar_pool *p = rb->p;
	uint64_t now = reactor_now_ns();
	int r = 0;

	rb->n = 0;
	if (rb->gave_up_ns && rb->gave_up_gen == p->disk_gen && now - rb->gave_up_ns < GIVE_UP_NS)
		return MIN(next_due_ns(p), rb->gave_up_ns + GIVE_UP_NS);
	rb->gave_up_ns = 0;
	if (disks_with_lost(p))
		r = plan_co_make(rb);
	if (r < 0) {
		pool_log(p, "the group table cannot be read for a rebuild: %s", err_text(r));
		return now + AGAIN_NS;
	}
	if (!rb->n) {
		rebuild_rests(p);
		rb->n_bad = 0;
		job_finish(rb);
		return disks_with_lost(p) ? MIN(next_due_ns(p), now + AGAIN_NS) : next_due_ns(p);
	}
	job_begin(rb);
	p->life->rebuilds = true;
	movers_co_run(rb);
	if (p->stopping || p->failed || rb->disk_gen != p->disk_gen || rb->n_retry || rb->n_moved)
		return 0; /* at once */
	if (rb->n_full) {
		job_waits_for_space(rb);
		return MIN(next_due_ns(p), reactor_now_ns() + AGAIN_NS);
	}
	job_finish(rb);
	rebuild_rests(p);
	rb->gave_up_ns = reactor_now_ns();
	rb->gave_up_gen = p->disk_gen;
	return MIN(next_due_ns(p), rb->gave_up_ns + GIVE_UP_NS);
}

void pool_rebuild_co_run(void *arg)
{
	struct ashlar_pool *p = arg;
	struct rebuild *rb = xcalloc(1, sizeof(*rb));
	uint64_t until;

	rb->p = p;
	co_queue_init(&rb->movers_ended);
	while (!p->stopping && !p->failed) {
		until = rebuild_co_round(rb);
		if (until)
			rebuild_co_wait(p, until);
	}
	job_finish(rb);
	xfree(rb->v);
	xfree(rb);
	pool_life_leave(p);
}
