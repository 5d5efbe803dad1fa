/*
 * The real world: threads and their loops.
 *
 * A loop is: a turn of the reactor; requests that go by AIO; then one call of the kernel (ur_ops) that submits everything queued
 * and, if there is nothing left to do, sleeps until a completion, the next timer or a kick.
 *
 * Sleep and wake: the sleeper sets `sleeping`, then looks at its inbox; the poster puts its message, then looks at
 * `sleeping`. Both are sequentially consistent, so one of them sees the other.
 */
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/units.h"
#include "engine/io/buf.h"
#include "engine/io/real_priv.h"

#define ARENA_BYTES_DEFAULT (16u << 20)
#define BLIND_POLL_NS (50 * NS_PER_US)

static uint64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

static uint64_t real_now_ns(struct world *w)
{
	return clock_ns(CLOCK_MONOTONIC);
}

static uint64_t real_wall_ns(struct world *w)
{
	return clock_ns(CLOCK_REALTIME);
}

static void real_random(struct world *w, void *buf, size_t len)
{
	char *p = buf;
	ssize_t r;

	while (len > 0) {
		r = getrandom(p, len, 0);
		if (r < 0) {
			CHECK(errno == EINTR);
			continue;
		}
		p += r;
		len -= (size_t)r;
	}
}

static void real_kick(struct world *w, struct reactor *to)
{
	uint64_t one = 1;

	CHECK(write(container_of(to, struct ur, r)->kick_fd, &one, sizeof(one)) == sizeof(one));
}

static void *real_arena(struct reactor *r, size_t *len)
{
	struct ur *u = container_of(r, struct ur, r);

	*len = u->arena_len;
	return u->arena;
}

static const struct world_ops real_ops = {
	.now_ns = real_now_ns,
	.wall_ns = real_wall_ns,
	.random = real_random,
	.kick = real_kick,
	.disk_co_open = udisk_co_open,
	.disk_probe = udisk_probe,
	.net_submit = ur_net_submit,
	.arena = real_arena,
	.keep_open = real_keep_open,
	.keep_create = real_keep_create,
	.keep_close = real_keep_close,
};

/* ---- the loop ---- */

static uint64_t sleep_limit(struct ur *u)
{
	uint64_t deadline = reactor_next_deadline(&u->r), now;

	if (deadline == UINT64_MAX && !u->aio.blind)
		return UINT64_MAX;
	now = u->r.now_ns;
	if (deadline > now) /* the time of the turn is old: do not sleep too long */
		now = clock_ns(CLOCK_MONOTONIC);
	if (u->aio.blind)
		deadline = MIN(deadline, now + BLIND_POLL_NS);
	return deadline > now ? deadline - now : 0;
}

static void loop(struct ur *u)
{
	struct reactor *r = &u->r;
	unsigned done;

	while (!u->stop) {
		r->now_ns = clock_ns(CLOCK_MONOTONIC);
		reactor_turn(r);
		done = u->aio.n | u->aio.inflight ? ur_aio_poll(u) : 0;
		if (done) { /* what these lead to goes to the kernel together with what was there before */
			r->now_ns = clock_ns(CLOCK_MONOTONIC);
			reactor_turn(r);
			done = u->aio.n;
		}
		if (done || reactor_has_work(r)) {
			u->w->ops->submit(u);
		} else {
			atomic_store(&r->sleeping, true);
			if (!reactor_has_msg(r) && !u->stop)
				u->w->ops->sleep(u, sleep_limit(u));
			atomic_store(&r->sleeping, false);
		}
		u->w->ops->reap(u);
		if (u->n_counted)
			ur_publish_counts(u);
	}
}

static int ur_start(struct ur *u)
{
	int r;

	u->kick_fd = eventfd(0, EFD_CLOEXEC);
	if (u->kick_fd < 0) {
		r = -errno;
		snprintf(u->start_error, sizeof(u->start_error), "cannot make an eventfd: %s", strerror(-r));
		return r;
	}
	r = u->w->ops->init(u, u->start_error, sizeof(u->start_error));
	if (r < 0) {
		close(u->kick_fd);
		u->kick_fd = -1;
	}
	return r;
}

static void *ur_main(void *arg)
{
	struct ur *u = arg;
	struct real_world *w = u->w;
	int r = ur_start(u);

	if (r == 0) {
		reactor_enter(&u->r);
		u->r.now_ns = clock_ns(CLOCK_MONOTONIC);
	}
	pthread_mutex_lock(&w->lock);
	u->start_result = r;
	w->n_started++;
	pthread_cond_signal(&w->started);
	pthread_mutex_unlock(&w->lock);
	if (r < 0)
		return NULL;
	loop(u);
	ur_aio_fini(u);
	u->w->ops->fini(u);
	ur_nconns_fini(u);
	reactor_enter(NULL);
	return NULL;
}

/* ---- create, run, destroy ---- */

static unsigned cpus_allowed(void)
{
	cpu_set_t set;
	int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN);

	return MIN(MAX((unsigned)n, 1u), REACTORS_MAX);
}

static struct ur *ur_create(struct real_world *w, unsigned index)
{
	struct ur *u = xaligned(64, sizeof(*u));
	void *arena;

	memset(u, 0, sizeof(*u));
	u->w = w;
	u->kick_fd = -1;
	list_init(&u->soon);
	list_init(&u->nconns);
	list_init(&u->soon_task.link);
	arena = mmap(NULL, w->opt.arena_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (arena != MAP_FAILED) {
		u->arena = arena;
		u->arena_len = w->opt.arena_bytes;
	}
	reactor_init(&u->r, &w->world, index);
	u->r.backend = u;
	w->ur[index] = u;
	w->world.reactors[index] = &u->r;
	return u;
}

static void ur_destroy(struct ur *u)
{
	reactor_fini(&u->r);
	if (u->arena)
		munmap(u->arena, u->arena_len);
	if (u->kick_fd >= 0)
		close(u->kick_fd);
	xfree(u);
}

static void stop_arrived(struct msg *m)
{
	container_of(m, struct ur, stop_msg)->stop = true;
}

static void threads_stop(struct real_world *w, unsigned n)
{
	unsigned i;

	for (i = 0; i < n; i++) {
		if (w->ur[i]->start_result < 0)
			continue;
		w->ur[i]->stop_msg.run = stop_arrived;
		reactor_post(&w->ur[i]->r, &w->ur[i]->stop_msg);
	}
	for (i = 0; i < n; i++)
		pthread_join(w->ur[i]->thread, NULL);
}

static int threads_start(struct real_world *w, struct err *e)
{
	unsigned i, n = w->world.n_reactors;
	sigset_t all, before;
	int r = 0;
	char name[24];

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the program's own threads */
	for (i = 0; i < n; i++) {
		r = -pthread_create(&w->ur[i]->thread, NULL, ur_main, w->ur[i]);
		if (r < 0)
			break;
		snprintf(name, sizeof(name), "reactor-%u", i);
		pthread_setname_np(w->ur[i]->thread, name);
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r < 0)
		err_set(e, r, "cannot start thread %u of %u: %s", i + 1, n, strerror(-r));
	n = i;
	pthread_mutex_lock(&w->lock);
	while (w->n_started < n)
		pthread_cond_wait(&w->started, &w->lock);
	for (i = 0; i < n && r == 0; i++)
		if (w->ur[i]->start_result < 0)
			r = err_set(e, w->ur[i]->start_result, "%s", w->ur[i]->start_error);
	pthread_mutex_unlock(&w->lock);
	if (r < 0)
		threads_stop(w, n);
	return r;
}

static void world_free(struct real_world *w)
{
	unsigned i;

	ndisk_forget_broken(w);
	if (w->workers && worker_pool_destroy(w->workers))
		for (i = 0; i < w->world.n_reactors; i++)
			w->ur[i]->arena = NULL; /* may still be read and written */
	for (i = 0; i < w->world.n_reactors; i++)
		ur_destroy(w->ur[i]);
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->started);
	xfree(w);
}

/* Asks the kernel with arguments that it must refuse, but not by one of these. */
static int uring_refused(void)
{
	return syscall(SYS_io_uring_setup, 0, NULL) < 0 && (errno == EPERM || errno == ENOSYS || errno == EACCES) ? -errno : 0;
}

/* io_uring or epoll; the latter with threads of its own. */
static int io_choose(struct real_world *w, struct err *e)
{
	int r;

	if (w->opt.io == REAL_IO_AUTO)
		w->uring_refused = uring_refused();
	w->ops = w->opt.io == REAL_IO_AIO || w->uring_refused ? &ur_epoll_ops : &ur_uring_ops;
	if (w->ops == &ur_uring_ops)
		return 0;
	r = worker_pool_create(&w->workers);
	return r < 0 ? err_set(e, r, "cannot start a thread: %s", strerror(-r)) : 0;
}

bool real_io_parse(const char *text, enum real_io *io)
{
	static const char *const names[] = { [REAL_IO_AUTO] = "auto", [REAL_IO_URING] = "uring", [REAL_IO_AIO] = "aio" };
	unsigned i;

	for (i = 0; i < ARRAY_LEN(names); i++) {
		if (!strcmp(text, names[i])) {
			*io = (enum real_io)i;
			return true;
		}
	}
	return false;
}

const char *real_world_io(const struct world *world, int *why)
{
	const struct real_world *w = container_of(world, struct real_world, world);

	*why = w->uring_refused;
	return w->ops->name;
}

int real_world_create(const struct real_options *o, struct world **out, struct err *e)
{
	struct real_world *w = xcalloc(1, sizeof(*w));
	unsigned i;
	int r;

	w->opt = *o;
	if (!w->opt.arena_bytes)
		w->opt.arena_bytes = ARENA_BYTES_DEFAULT;
	w->opt.arena_bytes = ALIGN_UP(w->opt.arena_bytes, (size_t)MIB);
	w->world.ops = &real_ops;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->started, NULL);
	list_init(&w->closing);
	list_init(&w->broken);
	r = io_choose(w, e);
	if (r == 0) {
		w->world.n_reactors = o->n_reactors ? MIN(o->n_reactors, REACTORS_MAX) : cpus_allowed();
		for (i = 0; i < w->world.n_reactors; i++)
			ur_create(w, i);
		r = threads_start(w, e);
	}
	if (r < 0) {
		world_free(w);
		return r;
	}
	*out = &w->world;
	return 0;
}

struct run {
	int (*fn)(void *arg);
	void *arg;
	int result;
	sem_t ended;
};

static void run_co_main(void *arg)
{
	struct run *run = arg;

	run->result = run->fn(run->arg);
	sem_post(&run->ended);
}

int real_world_run(struct world *w, int (*fn)(void *arg), void *arg)
{
	struct run run = { .fn = fn, .arg = arg };

	CHECK(!reactor_self());
	sem_init(&run.ended, 0, 0);
	reactor_spawn(w->reactors[0], run_co_main, &run, "main");
	while (sem_wait(&run.ended) < 0)
		CHECK(errno == EINTR);
	sem_destroy(&run.ended);
	return run.result;
}

void real_world_destroy(struct world *world)
{
	struct real_world *w = container_of(world, struct real_world, world);

	CHECK(!reactor_self());
	threads_stop(w, w->world.n_reactors);
	world_free(w);
}
