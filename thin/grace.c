/*
 * grace.c: a cluster that the map has lost is released when every request that may have looked it up has ended.
 *
 * Two-phase counting: see struct thin_grace. A request that was counted before the switch ends before the release; one
 * counted after it looked up a map that had lost the cluster already. A period starts as soon as there is something to
 * release, and ends at once when nothing is in flight, so an idle volume keeps nothing back.
 */
#include "engine/base/mutant.h"
#include "thin/volume_internal.h"

void thin_grace_init(struct thin_grace *g)
{
	*g = (struct thin_grace){ 0 };
	co_queue_init(&g->next_waiters);
	co_queue_init(&g->current_waiters);
}

void thin_grace_fini(struct thin_grace *g)
{
	CHECK(!g->running && !g->n[0] && !g->n[1] && !g->next.n);
	xfree(g->next.v);
	xfree(g->current.v);
}

static bool has_next(const struct thin_grace *g)
{
	return g->next.n || !co_queue_is_empty(&g->next_waiters);
}

static void grace_start(struct thin_grace *g)
{
	struct cluster_list empty = g->current;

	g->current = g->next;
	g->next = empty;
	list_splice_back(&g->current_waiters.waiters, &g->next_waiters.waiters);
	g->running = true;
	g->phase ^= 1;
	CHECK(!g->next.n && !g->n[g->phase]);
}

static void grace_end(struct thin_volume *v)
{
	struct thin_grace *g = &v->grace;

	g->running = false;
	if (g->current.n)
		thin_release(v->t, g->current.v, g->current.n);
	g->current.n = 0;
	co_queue_wake_all(&g->current_waiters);
}

void thin_grace_kick(struct thin_volume *v)
{
	struct thin_grace *g = &v->grace;

	while (!g->running && has_next(g)) {
		grace_start(g);
		if (!g->n[g->phase ^ 1] || MUTANT(DISCARD_IGNORES_INFLIGHT))
			grace_end(v);
	}
}

void thin_grace_leave(struct thin_volume *v, struct thin_req *q)
{
	struct thin_grace *g = &v->grace;

	q->counted = false;
	if (--g->n[q->phase] == 0 && g->running && q->phase != g->phase) {
		grace_end(v);
		thin_grace_kick(v);
	}
}

void thin_grace_free(struct thin_volume *v, uint64_t cluster)
{
	struct cluster_list *c = &v->grace.next;

	if (c->n == c->cap) {
		c->cap = c->cap ? 2 * c->cap : 64;
		c->v = xrealloc(c->v, c->cap * sizeof(*c->v));
	}
	c->v[c->n++] = cluster;
}

void thin_grace_co_wait(struct thin_volume *v)
{
	struct thin_grace *g = &v->grace;

	if (!g->n[0] && !g->n[1])
		return;
	if (g->running) {
		co_queue_wait(&g->next_waiters);
		return;
	}
	grace_start(g); /* somebody is in flight, all in the phase that ends: it does not end now */
	co_queue_wait(&g->current_waiters);
}
