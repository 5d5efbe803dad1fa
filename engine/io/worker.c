/*
 * A thread that is not running a work is free: it has just started, looks for one, or waits. There are as many free ones as works
 * that could run, as far as WORKERS_MAX goes, so no work waits for one that may never end.
 */
#include "engine/io/worker.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>

#define IDLE_SECONDS 5

struct worker_pool {
	pthread_mutex_t lock;
	pthread_cond_t more;  /* works; or it is over */
	pthread_cond_t ended; /* a thread */
	struct list ready;    /* queues with a work that could run */
	unsigned n_threads, n_running;
	unsigned n_could; /* works that could run: of each queue as many as it may */
	bool is_over;
};

void work_queue_init(struct work_queue *q)
{
	list_init(&q->works);
	list_init(&q->link);
	q->n_waiting = q->n_running = q->n_could = 0;
}

/* After each change of a queue. */
static void queue_place(struct worker_pool *p, struct work_queue *q)
{
	p->n_could -= q->n_could;
	q->n_could = MIN(q->n_waiting, WORKERS_PER_QUEUE - q->n_running);
	p->n_could += q->n_could;
	if (!list_is_empty(&q->link))
		list_del(&q->link);
	if (q->n_could)
		list_push_back(&p->ready, &q->link); /* behind the others: they take turns */
}

static struct work *work_take(struct worker_pool *p)
{
	struct work_queue *q = list_first(&p->ready, struct work_queue, link);
	struct work *w = list_entry(list_pop_front(&q->works), struct work, link);

	q->n_waiting--;
	q->n_running++;
	p->n_running++;
	queue_place(p, q);
	return w;
}

/* The message is posted under the lock: once the pool is over there may be no reactor to post it to. */
static void work_end(struct worker_pool *p, struct work *w)
{
	struct work_queue *q = w->queue;

	p->n_running--;
	if (p->is_over)
		return;
	q->n_running--;
	queue_place(p, q);
	reactor_post(w->home, &w->msg); /* the last that is done with it, and its queue */
}

/* False: nothing came for a while, or it is over. */
static bool wait_for_more(struct worker_pool *p)
{
	struct timespec until;
	int r = 0;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += IDLE_SECONDS;
	while (list_is_empty(&p->ready) && !p->is_over && r == 0)
		r = p->n_threads > 1 ? pthread_cond_timedwait(&p->more, &p->lock, &until) : pthread_cond_wait(&p->more, &p->lock);
	return !list_is_empty(&p->ready) && !p->is_over;
}

static void *worker_main(void *arg)
{
	struct worker_pool *p = arg;
	struct work *w;

	pthread_mutex_lock(&p->lock);
	for (;;) {
		if (list_is_empty(&p->ready) || p->is_over) {
			if (wait_for_more(p))
				continue;
			if (p->is_over || p->n_threads > 1)
				break;
			continue;
		}
		w = work_take(p);
		pthread_mutex_unlock(&p->lock);
		w->run(w);
		pthread_mutex_lock(&p->lock);
		work_end(p, w);
	}
	p->n_threads--;
	pthread_cond_signal(&p->ended);
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

static int thread_start(struct worker_pool *p)
{
	pthread_attr_t attr;
	sigset_t all, before;
	pthread_t t;
	int r;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the program's own threads */
	r = -pthread_create(&t, &attr, worker_main, p);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	if (r == 0)
		p->n_threads++;
	return r;
}

int worker_pool_create(struct worker_pool **out)
{
	struct worker_pool *p = xcalloc(1, sizeof(*p));
	int r;

	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->more, NULL);
	pthread_cond_init(&p->ended, NULL);
	list_init(&p->ready);
	pthread_mutex_lock(&p->lock);
	r = thread_start(p); /* this one stays: there is always one */
	pthread_mutex_unlock(&p->lock);
	if (r < 0)
		xfree(p);
	else
		*out = p;
	return r;
}

bool worker_pool_destroy(struct worker_pool *p)
{
	bool busy;

	pthread_mutex_lock(&p->lock);
	p->is_over = true;
	pthread_cond_broadcast(&p->more);
	while (p->n_threads > p->n_running)
		pthread_cond_wait(&p->ended, &p->lock);
	busy = p->n_threads > 0;
	pthread_mutex_unlock(&p->lock);
	if (busy)
		return true; /* they still need it */
	pthread_cond_destroy(&p->more);
	pthread_cond_destroy(&p->ended);
	pthread_mutex_destroy(&p->lock);
	xfree(p);
	return false;
}

void worker_submit(struct worker_pool *p, struct work_queue *q, struct work *w)
{
	w->queue = q;
	w->home = reactor_self();
	pthread_mutex_lock(&p->lock);
	list_push_back(&q->works, &w->link);
	q->n_waiting++;
	queue_place(p, q);
	if (p->n_could > p->n_threads - p->n_running && p->n_threads < WORKERS_MAX)
		(void)!thread_start(p); /* if that fails it waits for one that there is */
	else
		pthread_cond_signal(&p->more);
	pthread_mutex_unlock(&p->lock);
}
