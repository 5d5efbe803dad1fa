/*
 * jobs.c: the list of jobs of a pool: progress, rate, estimate; waiting for one, stopping one.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "engine/pool/leave.h"
#include "engine/pool/move_family.h"

#define ENDED_MAX 16 /* kept */
#define RATE_NS (5 * NS_PER_SEC)

const char *ashlar_job_kind_name(enum ashlar_job_kind k)
{
	static const char *const names[] = { "resync", "rebuild", "scrub", "evacuate", "remove", "replace", "rebalance", "adopt", "move out",
					     "move" };

	return names[k];
}

const char *ashlar_job_state_name(enum ashlar_job_state s)
{
	static const char *const names[] = { "waiting", "running", "paused", "done", "failed", "stopped" };

	return names[s];
}

static bool job_is_over(const struct pool_job *j)
{
	return j->info.state >= ASHLAR_JOB_DONE;
}

/* ---- the job's side ---- */

static void job_sample(struct pool_job *j, uint64_t now)
{
	unsigned i = j->n_samples++ % JOB_SAMPLES;

	j->samples[i].at_ns = now;
	j->samples[i].done_bytes = j->info.done_bytes;
}

struct pool_job *pool_job_start(struct ashlar_pool *p, enum ashlar_job_kind kind, const char *fmt, ...)
{
	struct pool_job *j = xcalloc(1, sizeof(*j));
	va_list ap;

	j->p = p;
	j->info.id = ++p->life->last_job;
	j->info.kind = kind;
	j->info.state = ASHLAR_JOB_RUNNING;
	j->info.started_wall_ns = p->w->ops->wall_ns(p->w);
	va_start(ap, fmt);
	vsnprintf(j->info.what, sizeof(j->info.what), fmt, ap);
	va_end(ap);
	job_sample(j, reactor_now_ns());
	list_push_back(&p->life->jobs, &j->link);
	pool_event(p, ASHLAR_INFO, "job.start", -1, NULL, "%s of %s has begun", ashlar_job_kind_name(kind), j->info.what);
	return j;
}

void pool_job_progress(struct pool_job *j, uint64_t bytes)
{
	uint64_t now = reactor_now_ns();

	j->info.done_bytes += bytes;
	if (j->info.done_bytes > j->info.total_bytes) /* more has been allocated since it was counted */
		j->info.total_bytes = j->info.done_bytes;
	if (j->info.state == ASHLAR_JOB_WAITING) {
		j->info.state = ASHLAR_JOB_RUNNING;
		j->info.result[0] = 0;
	}
	if (now - j->samples[(j->n_samples - 1) % JOB_SAMPLES].at_ns >= NS_PER_SEC)
		job_sample(j, now);
}

void pool_job_waits(struct pool_job *j, const char *fmt, ...)
{
	char text[sizeof(j->info.result)];
	bool new;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	new = strcmp(text, j->info.result);
	memcpy(j->info.result, text, sizeof(text));
	j->info.state = text[0] ? ASHLAR_JOB_WAITING : ASHLAR_JOB_RUNNING;
	if (new && text[0])
		pool_event(j->p, ASHLAR_WARNING, "job.waits", -1, NULL, "%s of %s %s", ashlar_job_kind_name(j->info.kind),
			   j->info.what, text);
	co_queue_wake_all(&j->p->life->jobs_changed);
}

static void jobs_trim(struct pool_life *life)
{
	struct pool_job *j, *next;

	list_for_each_safe (j, next, &life->jobs, link) {
		if (life->n_ended <= ENDED_MAX)
			return;
		if (!job_is_over(j) || j->users)
			continue;
		list_del(&j->link);
		life->n_ended--;
		xfree(j);
	}
}

void pool_job_end(struct pool_job *j, enum ashlar_job_state state, const char *fmt, ...)
{
	struct ashlar_pool *p = j->p;
	va_list ap;

	CHECK(!job_is_over(j));
	va_start(ap, fmt);
	vsnprintf(j->info.result, sizeof(j->info.result), fmt, ap);
	va_end(ap);
	j->info.state = state;
	if (state == ASHLAR_JOB_DONE)
		j->info.done_bytes = j->info.total_bytes;
	p->life->n_ended++;
	if (!p->stopping)
		pool_event(p, state == ASHLAR_JOB_FAILED ? ASHLAR_ERROR : ASHLAR_INFO, "job.end", -1, NULL, "%s of %s: %s",
			   ashlar_job_kind_name(j->info.kind), j->info.what, j->info.result);
	co_queue_wake_all(&p->life->jobs_changed);
	jobs_trim(p->life);
}

/* ---- the other side ---- */

static void job_info(const struct pool_job *j, struct ashlar_job_info *out)
{
	uint64_t now = reactor_now_ns(), at = now, done = j->info.done_bytes;
	unsigned i, n = MIN(j->n_samples, (unsigned)JOB_SAMPLES);

	*out = j->info;
	out->left_ns = UINT64_MAX;
	if (j->info.state != ASHLAR_JOB_RUNNING)
		return;
	for (i = 0; i < n; i++) {
		if (now - j->samples[i].at_ns <= RATE_NS + NS_PER_SEC && j->samples[i].at_ns < at) {
			at = j->samples[i].at_ns;
			done = j->samples[i].done_bytes;
		}
	}
	if (at < now)
		out->bytes_per_s = (uint64_t)((unsigned __int128)(j->info.done_bytes - done) * NS_PER_SEC / (now - at));
	if (out->bytes_per_s)
		out->left_ns = (uint64_t)((unsigned __int128)(j->info.total_bytes - j->info.done_bytes) * NS_PER_SEC /
					  out->bytes_per_s);
}

int ashlar_co_job_list(struct ashlar_pool *p, struct ashlar_job_info **out, size_t *n, struct err *e)
{
	struct pool_health h;
	struct pool_job *j;
	size_t count = 0;

	pool_co_health(p, &h);
	list_for_each (j, &p->life->jobs, link)
		count++;
	*out = xcalloc(count + 1, sizeof(**out));
	*n = 0;
	list_for_each (j, &p->life->jobs, link) {
		job_info(j, &(*out)[*n]);
		(*out)[*n].redundancy = h.redundancy;
		(*out)[(*n)++].redundancy_promised = h.promised;
	}
	return 0;
}

static struct pool_job *job_find(struct ashlar_pool *p, uint64_t id, struct err *e)
{
	struct pool_job *j;

	list_for_each (j, &p->life->jobs, link)
		if (j->info.id == id)
			return j;
	err_set(e, -ENOENT, "pool %s has no job %llu (the last %d that ended are kept)", p->label->name, (unsigned long long)id,
		ENDED_MAX);
	return NULL;
}

/* Coroutine. Until it is over, or the time is. */
static void job_co_wait(struct pool_job *j, uint64_t end)
{
	struct pool_life *life = j->p->life;
	int r = 0;

	j->users++;
	life->n_job_waiters++;
	while (!job_is_over(j) && r == 0)
		r = co_queue_wait_until(&life->jobs_changed, end);
	life->n_job_waiters--;
	j->users--;
}

int ashlar_co_job_wait(struct ashlar_pool *p, uint64_t id, uint64_t max_ns, struct ashlar_job_info *out, struct err *e)
{
	uint64_t now = reactor_now_ns();
	struct pool_job *j = job_find(p, id, e);

	if (!j)
		return -ENOENT;
	job_co_wait(j, max_ns > UINT64_MAX - now ? UINT64_MAX : now + max_ns);
	job_info(j, out);
	return 0;
}

static int job_is_vital(const struct pool_job *j, struct err *e)
{
	if (j->info.kind == ASHLAR_JOB_ADOPT)
		return err_set(e, -EINVAL, "job %llu cannot be stopped or paused: the volume has only part of its contents yet; set the pool's "
			       "pace, or give it up by deleting the volume, which leaves the source as it is",
			       (unsigned long long)j->info.id);
	return err_set(e, -EINVAL, "job %llu is a %s: it keeps data safe and cannot be stopped or paused; set the pool's pace instead",
		       (unsigned long long)j->info.id, ashlar_job_kind_name(j->info.kind));
}

int ashlar_co_job_stop(struct ashlar_pool *p, uint64_t id, struct err *e)
{
	struct pool_job *j = job_find(p, id, e);
	unsigned disk;
	int r = 0;

	if (!j)
		return -ENOENT;
	if (job_is_over(j))
		return 0;
	j->users++;
	if (pool_job_is_relocation(p, j, &disk))
		r = pool_co_relocation_stop(p, disk, e);
	else if (j->info.kind == ASHLAR_JOB_SCRUB || j->info.kind == ASHLAR_JOB_MOVE_OUT || j->info.kind == ASHLAR_JOB_MOVE)
		j->stop = true;
	else
		r = job_is_vital(j, e);
	pool_life_kick(p);
	if (r == 0)
		job_co_wait(j, UINT64_MAX);
	j->users--;
	return r;
}

int ashlar_co_job_pause(struct ashlar_pool *p, uint64_t id, bool pause, struct err *e)
{
	struct pool_job *j = job_find(p, id, e);
	unsigned disk;
	int r;

	if (!j)
		return -ENOENT;
	if (job_is_over(j))
		return err_set(e, -EINVAL, "job %llu has ended: %s", (unsigned long long)id, ashlar_job_state_name(j->info.state));
	if (j->info.kind == ASHLAR_JOB_SCRUB)
		return err_set(e, -EINVAL, "job %llu is a scrub: stop it, and begin another when there is time", (unsigned long long)id);
	if (j->info.kind == ASHLAR_JOB_MOVE_OUT)
		return err_set(e, -EINVAL, "job %llu copies a live volume to somewhere else: stop it, and begin again when there is time",
			       (unsigned long long)id);
	if (j->info.kind == ASHLAR_JOB_MOVE)
		return pool_co_move_pause(p, id, pause, e);
	if (!pool_job_is_relocation(p, j, &disk))
		return job_is_vital(j, e);
	j->users++;
	r = pool_co_relocation_pause(p, disk, pause, e);
	j->users--;
	return r;
}
