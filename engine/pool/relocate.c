/*
 * relocate.c: the worker that moves columns off leaving disks, and from fuller disks to emptier ones.
 *
 * It goes by what the labels want (leave.h). Each leaving disk has a job, and so has the rebalancing; the columns of all leaving disks
 * are moved by a few movers in turn, metadata and logs first. Redundancy comes before convenience: while a rebuild or a resync is at
 * work, or waits for room, nothing is moved. What lies on a leaving disk that is lost is the rebuild's business.
 *
 * Progress is per column and needs no record: what has moved is not there any more. Stopping, pausing and closing give up the columns
 * under way. A group's redundancy is never less meanwhile: the old column is one until the new one has everything.
 *
 * In a pool that has fewer disks then than its metadata has copies, a copy is dropped instead of moved, but for two.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/pool/leave.h"

#define MOVERS 3
#define AGAIN_NS (60 * NS_PER_SEC)
#define SOON_NS (200 * NS_PER_MS)
#define GIVE_UP_NS (3600 * NS_PER_SEC)
#define BALANCING LABEL_DISKS_MAX /* as a disk: its job */

struct todo {
	uint64_t group, bytes;
	uint16_t from, to; /* to: LABEL_DISKS_MAX: wherever; both: one more place for metadata */
	uint16_t job;
	uint8_t rank; /* small: first */
};

struct relocate {
	struct ashlar_pool *p;
	struct todo *v;
	size_t n, cap, next;
	uint64_t disk_gen; /* as of the plan */
	uint64_t orphan;   /* a metadata group there that no label names; UINT64_MAX */
	unsigned n_movers, n_moved, n_retry;
	struct co_queue movers_ended;
	struct {
		unsigned n_todo, n_full, n_bad; /* of this round */
		uint64_t bad_group;
		int bad_error;
		uint64_t gave_up_ns, gave_up_gen; /* 0: not */
	} jobs[LABEL_DISKS_MAX + 1];
};

/* ---- jobs ---- */

static enum ashlar_job_kind job_kind(const struct ashlar_pool *p, unsigned disk)
{
	const struct label_disk *ld;

	if (disk == BALANCING)
		return ASHLAR_JOB_REBALANCE;
	ld = &p->label->disks[disk];
	if (!(ld->leaving & LABEL_LEAVE_REMOVE))
		return ASHLAR_JOB_EVACUATE;
	return ld->successor_plus_1 ? ASHLAR_JOB_REPLACE : ASHLAR_JOB_REMOVE;
}

struct pool_job *pool_relocate_job(struct ashlar_pool *p, unsigned disk)
{
	struct pool_job **j = &p->life->relocations[disk];
	unsigned next = disk == BALANCING ? 0 : p->label->disks[disk].successor_plus_1;

	if (*j)
		(*j)->info.kind = job_kind(p, disk);
	else if (disk == BALANCING)
		*j = pool_job_start(p, ASHLAR_JOB_REBALANCE, "pool %s", p->label->name);
	else if (next)
		*j = pool_job_start(p, job_kind(p, disk), "disk %.70s by %.70s", pool_disk_path(p, disk), pool_disk_path(p, next - 1));
	else
		*j = pool_job_start(p, job_kind(p, disk), "disk %s", pool_disk_path(p, disk));
	(*j)->yields = true;
	return *j;
}

bool pool_job_is_relocation(const struct ashlar_pool *p, const struct pool_job *j, unsigned *disk)
{
	for (*disk = 0; *disk <= LABEL_DISKS_MAX; ++*disk)
		if (p->life->relocations[*disk] == j)
			return true;
	return false;
}

#define job_over(rl, disk, state, ...)                                                         \
	do {                                                                                   \
		struct pool_job *over = (rl)->p->life->relocations[disk];                      \
		(rl)->p->life->relocations[disk] = NULL;                                       \
		pool_job_end(over, state, __VA_ARGS__);                                        \
	} while (0)

static bool is_wanted(const struct ashlar_pool *p, unsigned disk)
{
	return disk == BALANCING ? p->label->wanted & LABEL_REBALANCE : disk < p->n_disks && p->disks[disk].leaving;
}

static bool is_paused(const struct ashlar_pool *p, unsigned disk)
{
	return disk == BALANCING ? p->label->wanted & LABEL_REBALANCE_PAUSED : p->label->disks[disk].leaving & LABEL_LEAVE_PAUSED;
}

static bool is_active(const struct ashlar_pool *p, unsigned disk)
{
	return is_wanted(p, disk) && p->life->relocations[disk] && !is_paused(p, disk);
}

/* Is there something to do for a disk that is leaving, or for the pool, that has no job (yet)? */
static bool needs_job(const struct relocate *rl, unsigned disk)
{
	const struct ashlar_pool *p = rl->p;
	uint64_t since = rl->jobs[disk].gave_up_ns;

	if (since && rl->jobs[disk].gave_up_gen == p->disk_gen && reactor_now_ns() - since < GIVE_UP_NS)
		return false;
	return disk == BALANCING || p->disks[disk].used || p->label->disks[disk].leaving & LABEL_LEAVE_REMOVE;
}

/* As the labels want it. */
static void job_look(struct relocate *rl, unsigned disk)
{
	struct ashlar_pool *p = rl->p;
	struct pool_job *j = p->life->relocations[disk];

	if (!is_wanted(p, disk)) {
		if (j)
			job_over(rl, disk, ASHLAR_JOB_STOPPED, "cancelled; %swhat has moved stays where it is", disk == BALANCING ? "" :
				 "the disk takes data again, and ");
		return;
	}
	if (!j && !needs_job(rl, disk))
		return;
	j = pool_relocate_job(p, disk);
	if (is_paused(p, disk)) {
		if (j->info.state != ASHLAR_JOB_PAUSED)
			pool_job_waits(j, "is paused; `job resume` goes on with it");
		j->info.state = ASHLAR_JOB_PAUSED;
	} else if (j->info.state == ASHLAR_JOB_PAUSED) {
		pool_job_waits(j, "%s", "");
	}
}

static bool jobs_look(struct relocate *rl)
{
	bool active = false;
	unsigned i;

	for (i = 0; i <= LABEL_DISKS_MAX; i++) {
		job_look(rl, i);
		active |= is_active(rl->p, i);
	}
	return active;
}

static void jobs_wait(struct relocate *rl, const char *why)
{
	unsigned i;

	for (i = 0; i <= LABEL_DISKS_MAX; i++)
		if (is_active(rl->p, i))
			pool_job_waits(rl->p->life->relocations[i], "%s", why);
}

/* ---- the plan ---- */

static void todo_add(struct relocate *rl, const struct todo *t)
{
	if (rl->n == rl->cap) {
		rl->cap = MAX(2 * rl->cap, 64);
		rl->v = xrealloc(rl->v, rl->cap * sizeof(*rl->v));
	}
	rl->v[rl->n++] = *t;
	rl->jobs[t->job].n_todo++;
}

static bool is_redundant(const struct raid_desc *d)
{
	return raid_profile_tolerates((struct raid_profile){ d->layout, d->copies }) > 0;
}

/* Is the column there to be copied? What is lost of redundant groups is rebuilt instead. */
static bool col_is_ours(const struct ashlar_pool *p, const struct raid_desc *d, unsigned disk)
{
	return is_redundant(d) ? p->disks[disk].state == PDISK_ONLINE : p->disks[disk].disk != NULL;
}

static int plan_group(void *arg, const struct pool_group_disk *rec)
{
	struct relocate *rl = arg;
	struct ashlar_pool *p = rl->p;
	struct raid_desc *d = xmalloc(sizeof(*d));
	uint64_t bytes = 0;
	unsigned c, k;
	int r = pool_group_decode(p, rec, d, NULL);

	for (c = 0; r == 0 && c < d->n_cols; c++) {
		unsigned disk = d->cols[c].disk;

		for (k = 0; k < c && d->cols[k].disk != disk; k++)
			;
		if (k < c || !is_active(p, disk) || !col_is_ours(p, d, disk))
			continue;
		if (rec->kind == THIN_GROUP_META && pool_label_meta_find(p->label, d->group) < 0) {
			rl->orphan = d->group; /* a crash has left it without a name */
			break;
		}
		if (!bytes)
			r = pool_group_needs_shape(p, rec->kind, d) ? pool_co_group_bytes(p, d, &bytes) : pool_co_column_bytes(p, rec->kind, d, &bytes);
		todo_add(rl, &(struct todo){ .group = d->group, .bytes = bytes, .from = (uint16_t)disk, .to = LABEL_DISKS_MAX,
					     .job = (uint16_t)disk, .rank = rec->kind == THIN_GROUP_DATA });
	}
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

static void plan_begin(struct relocate *rl)
{
	unsigned i;

	rl->n = rl->next = 0;
	rl->n_moved = rl->n_retry = 0;
	rl->disk_gen = rl->p->disk_gen;
	rl->orphan = UINT64_MAX;
	for (i = 0; i <= LABEL_DISKS_MAX; i++)
		rl->jobs[i].n_todo = rl->jobs[i].n_full = rl->jobs[i].n_bad = 0;
}

/* Totals of the jobs: what has been done, and what is to be. */
static void plan_totals(struct relocate *rl)
{
	struct pool_job *const *jobs = rl->p->life->relocations;
	unsigned i;
	size_t k;

	for (i = 0; i <= LABEL_DISKS_MAX; i++)
		if (rl->jobs[i].n_todo)
			jobs[i]->info.total_bytes = jobs[i]->info.done_bytes;
	for (k = 0; k < rl->n; k++)
		jobs[rl->v[k].job]->info.total_bytes += rl->v[k].bytes;
}

static int plan_co_leaving(struct relocate *rl)
{
	struct ashlar_pool *p = rl->p;
	int r;

	plan_begin(rl);
	r = pool_co_table_settle(p);
	if (r == 0)
		r = pool_co_each_group(p, plan_group, rl);
	if (r == 0 && rl->orphan != UINT64_MAX)
		r = pool_co_meta_orphan_destroy(p, rl->orphan);
	if (r < 0)
		return r;
	if (rl->n)
		qsort(rl->v, rl->n, sizeof(*rl->v), todo_order);
	plan_totals(rl);
	return 0;
}

static int plan_co_balance(struct relocate *rl)
{
	struct balance_move *v;
	size_t n, i;
	int r;

	plan_begin(rl);
	r = pool_co_balance_plan(rl->p, &v, &n);
	for (i = 0; r == 0 && i < n; i++)
		todo_add(rl, &(struct todo){ .group = v[i].group, .bytes = v[i].bytes, .from = v[i].from, .to = v[i].to, .job = BALANCING });
	if (r == 0) {
		xfree(v);
		plan_totals(rl);
	}
	return r;
}

/* ---- moving ---- */

static int col_on(const struct raid_desc *d, unsigned disk)
{
	unsigned c;

	for (c = 0; c < d->n_cols; c++)
		if (d->cols[c].disk == disk)
			return (int)c;
	return -1;
}

/* Are all the others good? */
static bool can_spare_col(const struct ashlar_pool *p, const struct raid_desc *d, unsigned col)
{
	unsigned c;

	for (c = 0; c < d->n_cols; c++)
		if (c != col && p->disks[d->cols[c].disk].state != PDISK_ONLINE)
			return false;
	return true;
}

/* Coroutine. Everything that the claimed group has on that disk. */
static int group_co_leave(struct ashlar_pool *p, struct pgroup *g, unsigned disk, struct pool_job *job)
{
	int col, r = 0;

	while (r == 0 && (col = col_on(&g->desc, disk)) >= 0) {
		if (job->stop || job->pause || !p->disks[disk].leaving)
			return -ECANCELED;
		if (!col_is_ours(p, &g->desc, disk))
			return -EAGAIN;
		if (pool_group_needs_shape(p, g->kind, &g->desc))
			r = pool_co_group_reshape(p, g, job);
		else if (g->kind == THIN_GROUP_DATA || g->desc.n_cols <= 2 || g->desc.n_cols <= pool_n_staying(p))
			r = pool_co_column_move(p, g, (unsigned)col, job);
		else
			r = can_spare_col(p, &g->desc, (unsigned)col) ? pool_co_column_drop(p, g, (unsigned)col) : -EAGAIN;
	}
	return r;
}

/* Coroutine. One column of it to that disk, if that is still a good thing. */
static int group_co_balance(struct ashlar_pool *p, struct pgroup *g, const struct todo *t, struct pool_job *job)
{
	struct pool_target to = { .prefer_plus_1 = t->to + 1u };
	int col = t->from == LABEL_DISKS_MAX ? -1 : col_on(&g->desc, t->from);

	if (t->from == LABEL_DISKS_MAX)
		return pool_co_metadata_spread(p, g, pool_metadata_copies(p), job);
	if (col < 0 || col_on(&g->desc, t->to) >= 0 ||
	    !pool_balance_helps(p, g->desc.col_bytes / p->label->extent_bytes, t->from, t->to))
		return 0; /* something has changed: there will be another plan */
	to.col = (unsigned)col;
	memset(to.avoid, 0xff, sizeof(to.avoid));
	to.avoid[t->to / 64] &= ~(1ULL << (t->to % 64));
	return pool_co_column_move_to(p, g, &to, job);
}

static int todo_co_do(struct relocate *rl, const struct todo *t, bool *moved)
{
	struct ashlar_pool *p = rl->p;
	struct pool_job *job = p->life->relocations[t->job];
	uint64_t before;
	struct pgroup *g;
	int r = pool_co_group_claim(p, t->group, &g);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	before = p->change_gen;
	r = t->job == BALANCING ? group_co_balance(p, g, t, job) : group_co_leave(p, g, t->from, job);
	*moved = r == 0 && p->change_gen != before;
	pool_group_unclaim(p, g);
	return r;
}

static bool movers_go_on(const struct relocate *rl)
{
	const struct ashlar_pool *p = rl->p;

	return rl->disk_gen == p->disk_gen && !p->stopping && !p->failed && !p->life->rebuilds && !p->life->resyncs;
}

static void mover_co_run(void *arg)
{
	struct relocate *rl = arg;
	struct ashlar_pool *p = rl->p;

	while (rl->next < rl->n && movers_go_on(rl)) {
		const struct todo t = rl->v[rl->next++];
		const struct pool_job *job = p->life->relocations[t.job];
		uint64_t gen = p->disk_gen;
		bool moved = false;
		int r;

		if (job->stop || job->pause) {
			rl->n_retry++;
			continue;
		}
		r = todo_co_do(rl, &t, &moved);
		while (r == -ERR_POOL_FULL && pool_co_group_reclaim(p) == 0)
			r = todo_co_do(rl, &t, &moved);
		rl->n_moved += moved;
		if (r == -ERR_POOL_FULL) {
			rl->jobs[t.job].n_full++;
		} else if (r < 0 && (gen != p->disk_gen || r == -ECANCELED || r == -EAGAIN || job->stop || job->pause)) {
			rl->n_retry++; /* the world has changed in the middle */
		} else if (r < 0) {
			rl->jobs[t.job].n_bad++;
			rl->jobs[t.job].bad_group = t.group;
			rl->jobs[t.job].bad_error = r;
		}
	}
	rl->n_movers--;
	co_queue_wake_all(&rl->movers_ended);
}

static void movers_co_run(struct relocate *rl)
{
	unsigned i, n = (unsigned)MIN(MOVERS, rl->n);

	for (i = 0; i < n; i++) {
		rl->n_movers++;
		co_spawn(CO_SERVICE, mover_co_run, rl, "relocation");
	}
	while (rl->n_movers)
		co_queue_wait(&rl->movers_ended);
}

/* ---- ends ---- */

static void give_up(struct relocate *rl, unsigned disk)
{
	rl->jobs[disk].gave_up_ns = reactor_now_ns();
	rl->jobs[disk].gave_up_gen = rl->p->disk_gen;
	job_over(rl, disk, ASHLAR_JOB_FAILED, "%u groups could not be moved: of group %llu some blocks cannot be read (%s); delete what lies "
		 "there, or restore it, and try again", rl->jobs[disk].n_bad, (unsigned long long)rl->jobs[disk].bad_group,
		 err_text(rl->jobs[disk].bad_error));
}

/* Coroutine. It has nothing any more. Returns when to look again. */
static uint64_t leaving_co_finish(struct relocate *rl, unsigned disk)
{
	struct ashlar_pool *p = rl->p;
	char path[160];
	bool wiped;
	int r;

	if (!(p->label->disks[disk].leaving & LABEL_LEAVE_REMOVE)) {
		job_over(rl, disk, ASHLAR_JOB_DONE, "the disk is empty and takes no new data: `disk remove` takes it out of the pool, `disk online` "
			 "puts it to use again");
		return UINT64_MAX;
	}
	snprintf(path, sizeof(path), "%s", pool_disk_path(p, disk)); /* of a replacement, this one, not the new one */
	r = pool_co_take_out(p, disk, &wiped);
	if (r < 0)
		return reactor_now_ns() + SOON_NS;
	job_over(rl, disk, ASHLAR_JOB_DONE, "%s is no disk of the pool any more%s", path, wiped ? "" : "; its labels could not be wiped, and "
		 "are ignored");
	return 0;
}

/* Coroutine. After the movers, or where there was nothing to move. */
static uint64_t leaving_co_look(struct relocate *rl, unsigned disk)
{
	struct ashlar_pool *p = rl->p;
	struct pool_job *j = p->life->relocations[disk];

	if (!is_active(p, disk))
		return UINT64_MAX;
	if (pool_space_is_empty(p, disk))
		return leaving_co_finish(rl, disk);
	if (rl->jobs[disk].n_bad && !rl->n_moved && !rl->n_retry) {
		give_up(rl, disk);
		return UINT64_MAX;
	}
	if (rl->jobs[disk].n_full && !rl->n_moved) {
		pool_job_waits(j, "waits for space: %u groups have no disk with room that is not theirs already; add a disk, or delete "
			       "something", rl->jobs[disk].n_full);
		return reactor_now_ns() + AGAIN_NS;
	}
	if (!rl->jobs[disk].n_todo && p->disks[disk].state != PDISK_ONLINE) {
		pool_job_waits(j, "waits until what the disk holds has been rebuilt on others, since it is not in service");
		return reactor_now_ns() + AGAIN_NS;
	}
	return reactor_now_ns() + SOON_NS;
}

/* Coroutine. False: nothing is leaving. */
static bool leaving_co_round(struct relocate *rl, uint64_t *until)
{
	struct ashlar_pool *p = rl->p;
	bool any = false;
	unsigned i;
	int r;

	for (i = 0; i < p->n_disks; i++)
		any |= is_active(p, i);
	if (!any)
		return false;
	r = plan_co_leaving(rl);
	if (r < 0) {
		pool_log(p, "the group table cannot be read for a relocation: %s", err_text(r));
		*until = reactor_now_ns() + AGAIN_NS;
		return true;
	}
	movers_co_run(rl);
	for (i = 0; i < p->n_disks && !p->stopping && !p->failed; i++) {
		uint64_t at = leaving_co_look(rl, i);

		*until = MIN(*until, at);
	}
	if (rl->n_moved)
		*until = 0;
	return true;
}

/* ---- evening out ---- */

static bool some_disk_is_missed(const struct ashlar_pool *p)
{
	unsigned i;

	for (i = 0; i < p->n_disks; i++)
		if (p->disks[i].state != PDISK_FREE && p->disks[i].state != PDISK_ONLINE && p->disks[i].used)
			return true;
	return false;
}

/* Coroutine. */
static void balance_co_finish(struct relocate *rl, unsigned left)
{
	struct ashlar_pool *p = rl->p;
	int r;

	co_mutex_lock(&p->life->returning);
	r = pool_co_rebalance_want(p, 0);
	co_mutex_unlock(&p->life->returning);
	if (r < 0)
		return; /* the pool has stopped */
	if (left)
		job_over(rl, BALANCING, ASHLAR_JOB_DONE, "disks are as even as they can be; %u columns could not be moved", left);
	else
		job_over(rl, BALANCING, ASHLAR_JOB_DONE, "disks are about equally full");
}

/* Coroutine. */
static void balance_co_round(struct relocate *rl, uint64_t *until)
{
	struct ashlar_pool *p = rl->p;
	int r;

	if (!is_active(p, BALANCING))
		return;
	if (some_disk_is_missed(p)) {
		pool_job_waits(p->life->relocations[BALANCING], "waits until all disks are back, or what they hold has been rebuilt");
		*until = reactor_now_ns() + AGAIN_NS;
		return;
	}
	r = plan_co_balance(rl);
	if (r < 0) {
		pool_log(p, "the group table cannot be read for a rebalancing: %s", err_text(r));
		*until = reactor_now_ns() + AGAIN_NS;
		return;
	}
	movers_co_run(rl);
	if (p->stopping || p->failed)
		return;
	if (rl->n_moved || rl->n_retry)
		*until = rl->n_moved ? 0 : reactor_now_ns() + SOON_NS;
	else if (is_active(p, BALANCING))
		balance_co_finish(rl, rl->jobs[BALANCING].n_full + rl->jobs[BALANCING].n_bad);
}

/* ---- the whole ---- */

/* Coroutine. One round; returns when to look again. */
static uint64_t relocate_co_round(struct relocate *rl)
{
	struct ashlar_pool *p = rl->p;
	uint64_t until = UINT64_MAX;

	if (!jobs_look(rl)) {
		for (unsigned i = 0; i <= LABEL_DISKS_MAX; i++)
			if (is_wanted(p, i) && rl->jobs[i].gave_up_ns)
				return reactor_now_ns() + AGAIN_NS;
		return UINT64_MAX;
	}
	if (p->life->rebuilds || p->life->resyncs) {
		jobs_wait(rl, "waits until redundancy has been restored");
		return reactor_now_ns() + AGAIN_NS;
	}
	if (leaving_co_round(rl, &until)) {
		if (is_active(p, BALANCING))
			pool_job_waits(p->life->relocations[BALANCING], "waits until no disk is leaving");
		return until;
	}
	balance_co_round(rl, &until);
	return until;
}

static void jobs_close(struct relocate *rl)
{
	unsigned i;

	for (i = 0; i <= LABEL_DISKS_MAX; i++)
		if (rl->p->life->relocations[i])
			job_over(rl, i, ASHLAR_JOB_STOPPED, "the pool was closed; it goes on when the pool is open again");
}

void pool_relocate_co_run(void *arg)
{
	struct ashlar_pool *p = arg;
	struct relocate *rl = xcalloc(1, sizeof(*rl));
	uint64_t until, kicks;

	rl->p = p;
	co_queue_init(&rl->movers_ended);
	while (!p->stopping && !p->failed) {
		kicks = p->life->n_kicks;
		until = relocate_co_round(rl);
		if (until && kicks == p->life->n_kicks && !p->stopping && !p->failed)
			(void)!co_queue_wait_until(&p->life->kick, until);
	}
	jobs_close(rl);
	xfree(rl->v);
	xfree(rl);
	pool_life_leave(p);
}
