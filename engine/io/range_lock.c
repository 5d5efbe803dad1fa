/*
 * A list of holds in order of arrival. One waits while any hold before it conflicts, granted or itself waiting: that is
 * the FIFO. Lists are as long as there are requests in flight on the object, some tens.
 */
#include "engine/io/range_lock.h"

void range_lock_init(struct range_lock *l)
{
	list_init(&l->holds);
	l->n_waiting = 0;
}

static void hold_init(struct range_hold *h, uint64_t off_bytes, uint64_t len_bytes, bool shared)
{
	CHECK(len_bytes > 0 && off_bytes + len_bytes > off_bytes);
	h->off_bytes = off_bytes;
	h->end_bytes = off_bytes + len_bytes;
	h->shared = shared;
	h->granted = false;
	h->waiter = NULL;
}

/* Whether any hold from the list's start up to `stop` (not included) stands against h. */
static bool has_conflict_before(const struct range_lock *l, const struct range_hold *h, const struct list *stop)
{
	const struct range_hold *o;
	const struct list *n;

	for (n = l->holds.next; n != stop; n = n->next) {
		o = list_entry(n, const struct range_hold, link);
		if (o->off_bytes < h->end_bytes && h->off_bytes < o->end_bytes && !(o->shared && h->shared))
			return true;
	}
	return false;
}

bool range_try_lock(struct range_lock *l, uint64_t off_bytes, uint64_t len_bytes, bool shared, struct range_hold *h)
{
	hold_init(h, off_bytes, len_bytes, shared);
	if (has_conflict_before(l, h, &l->holds))
		return false;
	h->granted = true;
	list_push_back(&l->holds, &h->link);
	return true;
}

void range_co_lock(struct range_lock *l, uint64_t off_bytes, uint64_t len_bytes, bool shared, struct range_hold *h)
{
	if (range_try_lock(l, off_bytes, len_bytes, shared, h))
		return;
	h->waiter = co_self();
	CHECK(h->waiter);
	list_push_back(&l->holds, &h->link);
	l->n_waiting++;
	co_suspend();
	CHECK(h->granted);
}

void range_unlock(struct range_lock *l, struct range_hold *h)
{
	struct range_hold *o;
	unsigned left;

	CHECK(h->granted);
	h->granted = false;
	list_del(&h->link);
	left = l->n_waiting;
	if (!left)
		return;
	list_for_each(o, &l->holds, link) {
		if (o->granted)
			continue;
		if (!has_conflict_before(l, o, &o->link)) {
			o->granted = true;
			l->n_waiting--;
			co_wake(o->waiter);
		}
		if (--left == 0)
			break;
	}
}
