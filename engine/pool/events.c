/*
 * events.c: what has happened that an operator should know: the last 1024, numbered, of all pools of an engine.
 *
 * The ring lives on the home. An event from another reactor travels there as a message and gets its number on arrival; its
 * text is made where it happens, the disk's path is looked up at home. Each event is a line of the log too.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "engine/pool/life.h"
#include "engine/pool/pool_internal.h"

#define RING 1024

struct event_log {
	struct ashlar_event *ring[RING]; /* seq n in n % RING; NULL: not yet */
	uint64_t last;
	struct co_queue changed;
	unsigned n_waiters;
	bool closing;
};

const char *ashlar_severity_name(enum ashlar_severity s)
{
	static const char *const names[] = { "info", "warning", "error" };

	return names[s];
}

struct event_log *event_log_create(void)
{
	struct event_log *l = xcalloc(1, sizeof(*l));

	co_queue_init(&l->changed);
	return l;
}

void event_log_co_destroy(struct event_log *l)
{
	unsigned i;

	l->closing = true;
	while (l->n_waiters) {
		co_queue_wake_all(&l->changed);
		co_yield();
	}
	for (i = 0; i < RING; i++)
		xfree(l->ring[i]);
	xfree(l);
}

/* ---- reporting ---- */

static void event_add(struct ashlar *a, struct ashlar_event *ev)
{
	struct event_log *l = a->events;

	ev->seq = ++l->last;
	xfree(l->ring[ev->seq % RING]);
	l->ring[ev->seq % RING] = ev;
	co_queue_wake_all(&l->changed);
}

struct event_msg {
	struct msg msg;
	struct ashlar_pool *p;
	struct ashlar_event *ev;
	int disk;
};

static void event_arrived(struct msg *m)
{
	struct event_msg *em = container_of(m, struct event_msg, msg);
	struct ashlar_pool *p = em->p;

	if (em->disk >= 0)
		snprintf(em->ev->disk, sizeof(em->ev->disk), "%.127s", pool_disk_path(p, (unsigned)em->disk));
	pool_log(p, "%s", em->ev->text);
	event_add(p->a, em->ev);
	xfree(em);
}

void pool_event(struct ashlar_pool *p, enum ashlar_severity s, const char *type, int disk, const char *volume, const char *fmt, ...)
{
	struct event_msg *em = xcalloc(1, sizeof(*em));
	va_list ap;

	em->msg.run = event_arrived;
	em->p = p;
	em->disk = disk;
	em->ev = xcalloc(1, sizeof(*em->ev));
	em->ev->wall_ns = p->w->ops->wall_ns(p->w);
	em->ev->severity = s;
	snprintf(em->ev->type, sizeof(em->ev->type), "%s", type);
	snprintf(em->ev->pool, sizeof(em->ev->pool), "%.63s", p->label->name);
	if (volume)
		snprintf(em->ev->volume, sizeof(em->ev->volume), "%.127s", volume);
	va_start(ap, fmt);
	vsnprintf(em->ev->text, sizeof(em->ev->text), fmt, ap);
	va_end(ap);
	if (reactor_self() == p->w->reactors[0])
		event_arrived(&em->msg);
	else
		reactor_post(p->w->reactors[0], &em->msg);
}

/* ---- listening ---- */

int ashlar_co_events(struct ashlar *a, uint64_t since, size_t max, uint64_t wait_ns, struct ashlar_event **out, size_t *n,
		     struct err *e)
{
	struct event_log *l = a->events;
	uint64_t now = reactor_now_ns(), end = wait_ns > UINT64_MAX - now ? UINT64_MAX : now + wait_ns, first;
	int r = 0;

	if (since > l->last) /* numbers of an engine that ran before this one */
		since = 0;
	l->n_waiters++;
	while (l->last == since && !l->closing && r == 0 && reactor_now_ns() < end)
		r = co_queue_wait_until(&l->changed, end);
	l->n_waiters--;
	first = MAX(since + 1, l->last > RING ? l->last - RING + 1 : 1);
	*n = MIN(max, l->last + 1 - first);
	*out = xcalloc(*n + 1, sizeof(**out));
	for (size_t i = 0; i < *n; i++)
		(*out)[i] = *l->ring[(first + i) % RING];
	return 0;
}
